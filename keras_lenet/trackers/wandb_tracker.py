"""Values and pictures of a run in Weights & Biases."""

from typing import Any

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.types import Array


class WandbTracker(Tracker):
    """Logs what `fit` reports to Weights & Biases.

    It needs the package wandb (`pip install "keras-lenet[wandb]"`). It logs to
    the active run, or starts and finishes a run of its own. The x-axis is
    `step`, the number of training steps.

    Args:
        project: String. The project of a new run. Defaults to
            `"keras-lenet"`.
        strict: Boolean, as for `Tracker`. Defaults to `False`.
        **kwargs: Other arguments of `wandb.init`, e.g. `name`, `config`, or
            `mode="offline"`.

    Raises:
        ImportError: If wandb is not installed.

    Example:

    >>> from keras_lenet import HeldOutEvaluation
    >>> from keras_lenet.trackers import WandbTracker
    >>> callbacks = [
    ...     HeldOutEvaluation((x_test, y_test), freq=100),
    ...     WandbTracker(mode="offline"),
    ... ]  # doctest: +SKIP
    >>> model.fit(x_train, y_train, callbacks=callbacks)  # doctest: +SKIP
    """

    needs: str | None = "wandb"

    def __init__(
        self,
        project: str = "keras-lenet",
        strict: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(strict)
        self.project = project
        self.kwargs = kwargs
        self._run: Any = None
        self._is_own = False

    def open(self) -> None:
        import wandb

        self._is_own = wandb.run is None
        self._run = wandb.run
        if self._is_own:
            resumed = {"id": self.run_id, "resume": "allow"}
            self._run = wandb.init(
                project=self.project,
                **{**(resumed if self.run_id else {}), **self.kwargs},
            )
        self.run_id = self._run.id
        # W&B's own steps count calls of `log`.
        self._run.define_metric("*", step_metric="step")

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def log_image(self, name: str, image: Array, step: int) -> None:
        import wandb

        self._run.log({name: wandb.Image(image), "step": step})

    def close(self) -> None:
        if self._is_own:
            self._run.finish()
