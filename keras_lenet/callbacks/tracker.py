"""The base class of experiment trackers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.callbacks.periodic import StatefulCallback
from keras_lenet.distribution import is_main_process
from keras_lenet.types import Array, Logs
from keras_lenet.validation.extras import check_installed


class Tracker(StatefulCallback):
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

    Raises:
        ImportError: If the package `needs` is not installed.

    Attributes:
        needs: String or `None`. The package that a subclass imports.
        run_id: String or `None`. Set by `open` if the tracker gives the run a
            name. If it is set already, `open` continues that run.
        next_step: Integer. 1 more than the last step with a value in the run,
            or 0.
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

    needs: str | None = None
    run_id: str | None = None
    next_step = 0
    path: Path | None = None
    _is_open = False

    def __init__(self, strict: bool = False) -> None:
        if self.needs is not None:
            check_installed(self.needs, f"`{type(self).__name__}`")
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
        return {
            **super().get_state(),
            "run_id": self.run_id,
            "next_step": self.next_step,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.run_id = state["run_id"]
        self.next_step = state["next_step"]

    def send_scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Logs those of the values that are numbers. Tolerates errors."""
        numbers = {
            name: float(value)
            for name, value in values.items()
            if np.ndim(value) == 0
        }
        self._send(step, self.log_scalars, numbers)

    def send_image(self, name: str, image: Array, step: int) -> None:
        """Logs a picture, and tolerates errors."""
        self._send(step, self.log_image, name, image)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        # The last `fit` may have been interrupted.
        self._close()
        self._has_ended = False
        self.run_id = None
        self.next_step = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if is_main_process():
            values = {f"epoch_{k}": v for k, v in (logs or {}).items()}
            self.send_scalars(values, self._count_steps())

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._close()
        self._has_ended = True

    def _send(
        self, step: int, log: Callable[..., None], *arguments: Any
    ) -> None:
        self._attempt(f"at step {step}", self._log, step, log, *arguments)

    def _log(
        self, step: int, log: Callable[..., None], *arguments: Any
    ) -> None:
        if not self._is_open:
            self.open()
            self._is_open = True
        log(*arguments, step)
        self.next_step = max(self.next_step, step + 1)
        if self._has_ended:
            # From a callback that comes later in the list.
            self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._attempt("at the end", self.close)
