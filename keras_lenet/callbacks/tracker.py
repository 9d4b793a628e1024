"""The base class of experiment trackers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.callbacks.periodic import (
    TolerantCallback,
    count_steps,
    count_updates,
)
from keras_lenet.distribution import is_main_process
from keras_lenet.types import Array, Logs


class Tracker(TolerantCallback):
    """Sends what `fit` reports to an experiment tracker.

    Put trackers into the `callbacks` of `fit`, in any order, but before
    `ResumableTraining`. Each receives

    - the results of every evaluation of `HeldOutEvaluation`, under their names
      in its `history`,
    - every picture of `SamplePredictions`, as `predictions`,
    - the logs of every epoch, under names that start with `epoch_`,

    all with the number of training steps of `fit` so far. A tracker has no
    hooks on batches, so `LeNet5.fit` makes as many steps in one execution as
    without it. If several processes train together, only the main one logs.

    A subclass implements `log_scalars`, and the other methods if it needs
    them. `fit` calls `open` before the first value of a run, and again if
    values follow after `close`.

    Args:
        strict: Boolean. Whether an error of the tracker ends the run. By
            default the run continues, with one warning.

    Attributes:
        run_id: String or `None`. Set by `open` if the tracker gives the run a
            name. If it is set already, `open` continues that run.
        first_step: Integer. The step from which a resumed run continues, or 0.
        path: Path of the file or folder that the tracker writes, or `None`.

    Example:

    >>> from keras_lenet import HeldOutEvaluation, LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> from keras_lenet.trackers import Tracker
    >>> class Printer(Tracker):
    ...     def log_scalars(self, values, step):
    ...         print(step, *values)
    >>> (x_train, y_train), test = load_data("digits")
    >>> model = LeNet5()
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> held_out = HeldOutEvaluation(test, freq=5)
    >>> history = model.fit(
    ...     x_train[:500],
    ...     y_train[:500],
    ...     batch_size=50,
    ...     verbose=0,
    ...     callbacks=[held_out, Printer()],
    ... )
    5 loss val_loss
    10 loss val_loss
    10 epoch_loss epoch_val_loss
    """

    run_id: str | None = None
    first_step = 0
    path: Path | None = None
    _is_open = False

    def __init__(self, strict: bool = False) -> None:
        super().__init__(strict)

    def open(self) -> None:
        """Starts a run in the tracker, or continues the run `run_id`."""

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        """Logs numbers by their names."""
        raise NotImplementedError

    def log_image(self, name: str, image: Array, step: int) -> None:
        """Logs a picture, a uint8 array of shape `(height, width, 3)`."""

    def close(self) -> None:
        """Ends the run in the tracker."""

    def get_state(self) -> dict[str, Any]:
        """Returns the state that a resumed run continues with."""
        step = count_steps(self.model, self._updates_before)
        return {"run_id": self.run_id, "first_step": step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, after `on_train_begin`."""
        self.run_id = state["run_id"]
        self.first_step = state["first_step"]

    def send_scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Logs those of the values that are numbers. Tolerates errors."""
        numbers = {
            name: float(value)
            for name, value in values.items()
            if np.ndim(value) == 0
        }
        self._send(self.log_scalars, numbers, step=step)

    def send_image(self, name: str, image: Array, step: int) -> None:
        """Logs a picture, and tolerates errors."""
        self._send(self.log_image, name, image, step=step)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        # The last `fit` may have been interrupted.
        self._close()
        self._has_ended = False
        self.run_id = None
        self.first_step = 0
        self._updates_before = count_updates(self.model)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if is_main_process():
            values = {f"epoch_{k}": v for k, v in (logs or {}).items()}
            step = count_steps(self.model, self._updates_before)
            self.send_scalars(values, step)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._close()
        self._has_ended = True

    def _send(
        self, log: Callable[..., None], *arguments: Any, step: int
    ) -> None:
        self._attempt(f"at step {step}", self._log, log, *arguments, step)

    def _log(self, log: Callable[..., None], *arguments: Any) -> None:
        if not self._is_open:
            self.open()
            self._is_open = True
        log(*arguments)
        if self._has_ended:
            # From a callback that comes later in the list.
            self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._attempt("at the end", self.close)
