"""Values of a run in a CSV file."""

import csv
import itertools
import os
from pathlib import Path
from typing import Any

from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.files.atomic import atomic_write, check_file

_HEADER = ["step", "name", "value"]


class CSVTracker(Tracker):
    """Writes what `fit` reports to a CSV file, a line for each value.

    The columns are `step`, `name` and `value`. So results of several
    callbacks, at different steps, are in one file. Pictures are not written:
    `SamplePredictions` has written them.

    Args:
        filename: Path of the file. A new run replaces it; a run that
            `ResumableTraining` continues adds to it.
        strict: Boolean, as for `Tracker`. Defaults to `False`.

    Raises:
        ValueError: If the file cannot be written.

    Example:

    >>> from keras_lenet import HeldOutEvaluation
    >>> from keras_lenet.trackers import CSVTracker
    >>> callbacks = [
    ...     HeldOutEvaluation((x_test, y_test), freq=100),
    ...     CSVTracker("run.csv"),
    ... ]  # doctest: +SKIP
    >>> model.fit(x_train, y_train, callbacks=callbacks)  # doctest: +SKIP
    """

    def __init__(
        self, filename: str | os.PathLike[str], strict: bool = False
    ) -> None:
        super().__init__(strict)
        self.path: Path = Path(filename)
        check_file(self.path, "filename")
        self._count = 0

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._count = 0

    def open(self) -> None:
        rows = [_HEADER]
        if self._count:
            # The interrupted run may have gone on after it was saved.
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(itertools.islice(csv.reader(file), self._count + 1))
        with (
            atomic_write(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows(rows)

    def log_scalars(self, values: dict[str, float], step: int) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [step, name, value] for name, value in values.items()
            )
        self._count += len(values)

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "count": self._count}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._count = state["count"]
