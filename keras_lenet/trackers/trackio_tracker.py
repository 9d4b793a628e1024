"""Values and pictures of a run in trackio."""

from typing import Any

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.types import Array


class TrackioTracker(Tracker):
    """Logs what `fit` reports to trackio, in a run of its own.

    It needs the package trackio (`pip install "keras-lenet[trackio]"`).

    Args:
        project: String. The project of the run. Defaults to `"keras-lenet"`.
        strict: Boolean, as for `Tracker`. Defaults to `False`.
        **kwargs: Other arguments of `trackio.init`, e.g. `name` or `config`.

    Raises:
        ImportError: If trackio is not installed.

    Example:

    >>> from keras_lenet import HeldOutEvaluation
    >>> from keras_lenet.trackers import TrackioTracker
    >>> callbacks = [
    ...     HeldOutEvaluation((x_test, y_test), freq=100),
    ...     TrackioTracker(name="first"),
    ... ]  # doctest: +SKIP
    >>> model.fit(x_train, y_train, callbacks=callbacks)  # doctest: +SKIP
    """

    needs: str | None = "trackio"

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

    def open(self) -> None:
        import trackio

        resumed = {"name": self.run_id, "resume": "allow"}
        self._run = trackio.init(
            project=self.project,
            **{
                "embed": False,
                **self.kwargs,
                **(resumed if self.run_id else {}),
            },
        )
        self.run_id = self._run.name

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def log_image(self, name: str, image: Array, step: int) -> None:
        import trackio

        self._run.log({name: trackio.Image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()
