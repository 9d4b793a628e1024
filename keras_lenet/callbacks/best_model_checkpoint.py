"""Saving the best model across runs."""

import difflib
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.callbacks.held_out_evaluation import HeldOutEvaluation
from keras_lenet.callbacks.isolation import get_values
from keras_lenet.callbacks.periodic import TolerantCallback
from keras_lenet.callbacks.terminal import print_line, shows_progress_bar
from keras_lenet.distribution import is_main_process, without_distribution
from keras_lenet.files.atomic import atomic_write, check_file
from keras_lenet.files.formats import FileFormatError, parsing
from keras_lenet.types import Logs

# The entry of the `.keras` file that holds the best value.
BEST_VALUE = "best_value.json"


class BestModelCheckpoint(TolerantCallback):
    """Saves the model at the end of an epoch if it is the best so far.

    Keras' `ModelCheckpoint` overwrites the file in place, so a crash while
    saving loses the best model, and it forgets the best value after a restart.
    This callback replaces the file atomically and stores the best value in it:
    only a better model, of any run, replaces an existing file. Delete the file
    to start again. A model with non-finite weights is never saved.

    Args:
        filepath: Path of the `.keras` file. It is not a template: all runs
            share one file. Double braces that belong to the name, `{{` and
            `}}`, as in `ModelCheckpoint`.
        monitor: String. The name of the value in the logs. Defaults to
            `"val_loss"`. A `HeldOutEvaluation` earlier in the list provides
            the values of its last evaluation in the epoch. In epochs without
            the value no model is saved, with one warning.
        mode: `"min"`, `"max"` or `"auto"`. Whether a lower or a higher value
            is better. `"auto"` minimizes a loss or error and maximizes an
            accuracy. Defaults to `"auto"`.
        verbose: 0 or 1. Whether to print a line when a model is saved.
            Defaults to `0`.
        strict: Boolean. Whether an error while saving ends the run. By
            default the run continues, with one warning.

    Attributes:
        best: Float. The best value so far, or `None`.

    Raises:
        ValueError: If an argument is invalid, or `mode` is `"auto"` and
            `monitor` does not end in loss, error or accuracy. In `fit`, if the
            file holds the best model by another value, or a model that this
            callback did not write.

    Example:

    >>> from keras_lenet import BestModelCheckpoint
    >>> best = BestModelCheckpoint(
    ...     getfixture("tmp_path") / "best.keras", "val_accuracy"
    ... )
    >>> model.fit(..., callbacks=[held_out, best])  # doctest: +SKIP
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        mode: str = "auto",
        verbose: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__(strict)
        self.filepath: Path = Path(_unescape_braces(filepath))
        check_file(self.filepath, "filepath", ".keras")
        if mode == "auto":
            if monitor.endswith(("loss", "error")):
                mode = "min"
            elif monitor.endswith("accuracy"):
                mode = "max"
        if mode not in ("min", "max"):
            raise ValueError(
                "`mode` must be 'min' or 'max', or 'auto' if `monitor` ends in "
                f"loss, error or accuracy. Received: mode={mode!r} for "
                f"monitor={monitor!r}"
            )
        self.monitor = monitor
        self.mode = mode
        self.verbose = verbose
        self.best: float | None = None
        self._missed = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._missed = False
        if not self.filepath.exists():
            self.best = None
            return
        with parsing(self.filepath, "a model saved by BestModelCheckpoint"):
            with zipfile.ZipFile(self.filepath) as archive:
                names = archive.namelist()
                if "config.json" in names and BEST_VALUE not in names:
                    raise FileFormatError(
                        self.filepath,
                        "a model saved by",
                        "BestModelCheckpoint",
                        f"a model without its value of {self.monitor!r}, "
                        "saved by something else",
                        "Give another `filepath`, or move the file away.",
                    )
                saved = json.loads(archive.read(BEST_VALUE))
            received = saved["monitor"], saved["mode"]
            if received != (self.monitor, self.mode):
                raise FileFormatError(
                    self.filepath,
                    "the best by",
                    (self.monitor, self.mode),
                    received,
                    "Give another `filepath`.",
                )
            self.best = float(saved["best"])

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        if self.monitor in logs:
            self._attempt(
                f"in epoch {epoch + 1}",
                self._save_if_better,
                logs[self.monitor],
            )
        elif not self._missed:
            self._missed = True
            self._warn_of_missing_value(epoch, logs)

    def _save_if_better(self, value: Any) -> None:
        value = float(value)
        self._check_finite(value)
        sign = 1 if self.mode == "min" else -1
        if self.best is not None and not sign * value < sign * self.best:
            return
        self._check_finite(*get_values(self.model.weights))
        if not is_main_process():
            self.best = value
            return
        best = {"monitor": self.monitor, "mode": self.mode, "best": value}
        with atomic_write(self.filepath) as temporary:
            with without_distribution():
                self.model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(BEST_VALUE, json.dumps(best))
        self.best = value
        if self.verbose:
            print_line(
                f"{self.filepath}: saved, {self.monitor} is {value:.4f}",
                shows_progress_bar(self),
            )

    def _check_finite(self, *values: Any) -> None:
        if not all(np.isfinite(value).all() for value in values):
            raise FloatingPointError(
                f"{self.monitor} or a weight is not finite, so "
                f"{self.filepath} is left unchanged"
            )

    def _warn_of_missing_value(self, epoch: int, logs: Logs) -> None:
        held_out = [
            callback
            for callback in HeldOutEvaluation.of_fit(self.params)
            if callback.provides(self.monitor)
        ]
        closest = difflib.get_close_matches(self.monitor, logs, 1)
        validated = any(name.startswith("val_") for name in logs)
        advice = ""
        # A callback that comes later has not finished the epoch yet.
        if any(callback.in_epoch for callback in held_out):
            advice = (
                " `HeldOutEvaluation` must come before `BestModelCheckpoint` "
                "in `callbacks`."
            )
        elif self.monitor.startswith("val_") and not validated:
            advice = (
                " `HeldOutEvaluation` made no evaluation in this epoch, with "
                f"freq={held_out[0].freq!r}."
                if held_out
                else " Give `validation_data` to `fit`, or put "
                "`HeldOutEvaluation` before `BestModelCheckpoint`."
            )
        elif closest:
            advice = f" Did you mean {closest[0]!r}?"
        warnings.warn(
            f"Can save best model only with {self.monitor} available. No "
            f"model is saved in epoch {epoch + 1}. Available metrics are: "
            f"{', '.join(logs)}.{advice}",
            stacklevel=2,
        )


def _unescape_braces(filepath: str | os.PathLike[str]) -> str:
    try:
        return os.fspath(filepath).format()
    except (LookupError, ValueError) as error:
        raise ValueError(
            "`filepath` of `BestModelCheckpoint` must be one file, which holds "
            f"the best model of all runs. Received: filepath={filepath!r}. "
            "Use `keras.callbacks.ModelCheckpoint` for a file for each epoch. "
            "Double braces that belong to the name: '{{' and '}}'."
        ) from error
