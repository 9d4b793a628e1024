"""Values of a run in a CSV file."""

import csv
import os
from pathlib import Path

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

    def open(self) -> None:
        rows = [_HEADER]
        if self.next_step:
            # An interrupted run may have gone on after it was saved, and may
            # have written a part of a line.
            with self.path.open(newline="", encoding="utf-8") as file:
                _, *others = csv.reader(file)
            rows += [
                row
                for row in others
                if len(row) == len(_HEADER) and int(row[0]) < self.next_step
            ]
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
