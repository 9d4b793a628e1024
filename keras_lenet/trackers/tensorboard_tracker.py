"""Values and pictures of a run in TensorBoard."""

import itertools
import os
from pathlib import Path
from typing import Any

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.types import Array

_numbers = itertools.count()


class TensorBoardTracker(Tracker):
    """Writes what `fit` reports to event files, which TensorBoard shows.

    It needs the package tensorboardX (`pip install
    "keras-lenet[tensorboard]"`), not TensorFlow. Unlike
    `keras.callbacks.TensorBoard`, it works on every backend, and logs
    evaluations inside an epoch. It writes no graphs, histograms or profiles.

    Args:
        log_dir: Path of the folder. Created if it does not exist. TensorBoard
            shows the last run in a folder, so give each run its own.
        strict: Boolean, as for `Tracker`. Defaults to `False`.

    Raises:
        ImportError: If tensorboardX is not installed.

    Example:

    >>> from keras_lenet import HeldOutEvaluation
    >>> from keras_lenet.trackers import TensorBoardTracker
    >>> callbacks = [
    ...     HeldOutEvaluation((x_test, y_test), freq=100),
    ...     TensorBoardTracker("logs/first"),
    ... ]  # doctest: +SKIP
    >>> model.fit(x_train, y_train, callbacks=callbacks)  # doctest: +SKIP
    """

    needs: str | None = "tensorboardX"

    def __init__(
        self, log_dir: str | os.PathLike[str] = "logs", strict: bool = False
    ) -> None:
        super().__init__(strict)
        self.path: Path = Path(log_dir)
        self._writer: Any = None

    def open(self) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(self.path),
            # TensorBoard forgets what other runs logged from this step on.
            purge_step=self.next_step,
            # Otherwise, a second file in a second would replace the first.
            filename_suffix=f".{os.getpid()}.{next(_numbers)}",
        )

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_image(self, name: str, image: Array, step: int) -> None:
        self._writer.add_image(name, image, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
