"""Saving the best model of all runs."""

import difflib
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks.held_out_evaluation import HeldOutEvaluation
from keras_lenet.callbacks.isolation import get_values
from keras_lenet.callbacks.periodic import warn_of_failure
from keras_lenet.callbacks.terminal import print_line, shows_progress_bar
from keras_lenet.distribution import is_main_process, without_distribution
from keras_lenet.files.atomic import atomic_write, check_file
from keras_lenet.files.formats import FileFormatError, parsing
from keras_lenet.types import Array, Logs

# The entry of the `.keras` file that holds the best value.
BEST_VALUE = "best_value.json"


class BestModelCheckpoint(keras.callbacks.Callback):
    """Saves the model at the end of every epoch that is the best so far.

    Keras' `ModelCheckpoint` writes over the file it replaces, which is lost
    when the process dies meanwhile, and begins anew after a restart. This one
    replaces the file atomically, and finds the best value in it again: a file
    that is there is replaced by a better model only, of whichever training.
    Delete it to start anew.

    Args:
        filepath: Path of the `.keras` file to save to. It is no template: all
            runs have one file. Braces that belong to its name are doubled,
            `{{` and `}}`, as in `ModelCheckpoint`.
        monitor: String. The name of the value in the logs. Defaults to
            `"val_loss"`. `HeldOutEvaluation` earlier in the list gives those
            of its last evaluation in the epoch. In epochs without the value
            no model is saved; a warning says so once.
        mode: `"min"`, `"max"` or `"auto"`. What is better. `"auto"` knows that
            a loss or error should fall and an accuracy rise. Defaults to
            `"auto"`.
        verbose: 0 or 1. Whether to say when a model is saved. Defaults to `0`.
        strict: Boolean. Whether an error in saving ends the training. By
            default training goes on, with one warning.

    Attributes:
        best: Float. The best value so far, or `None`.

    Raises:
        ValueError: When an argument is not of the form above, or `mode` is
            `"auto"` and the name says nothing. In `fit`, when the file holds
            the best by another value, or a model that this callback did not
            write.

    A model with weights that are not finite is never saved.

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
        super().__init__()
        self.filepath = Path(_without_fields(filepath))
        check_file(self.filepath, "filepath", ".keras")
        if mode == "auto":
            mode = _direction(monitor)
        if mode not in ("min", "max"):
            raise ValueError(
                "`mode` must be 'min', 'max' or, where the name of `monitor` "
                f"ends in loss, error or accuracy, 'auto'. Received: "
                f"mode={mode!r} for monitor={monitor!r}"
            )
        self.monitor = monitor
        self.mode = mode
        self.verbose = verbose
        self.strict = strict
        self.best: float | None = None
        self._warned = self._missed = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._warned = self._missed = False
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
                        "a model without its value of "
                        f"{self.monitor!r}, saved by something else",
                        "Give another `filepath`, or move the file away.",
                    )
                found = json.loads(archive.read(BEST_VALUE))
            received = found["monitor"], found["mode"]
            if received != (self.monitor, self.mode):
                raise FileFormatError(
                    self.filepath,
                    "the best by",
                    (self.monitor, self.mode),
                    received,
                    "Give another `filepath`.",
                )
            self.best = float(found["best"])

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        if self.monitor not in logs:
            if not self._missed:
                self._missed = True
                self._warn_of_missing_value(epoch, logs)
            return
        try:
            self._save_if_better(logs[self.monitor])
        except Exception as error:
            if self.strict:
                raise
            if not self._warned:
                self._warned = True
                warn_of_failure(
                    f"BestModelCheckpoint failed in epoch {epoch + 1}", error
                )

    def _save_if_better(self, value: Any) -> None:
        value = float(value)
        self._check_finite([np.array(value)])
        sign = 1 if self.mode == "min" else -1
        if self.best is not None and not sign * value < sign * self.best:
            return
        model = self.model
        self._check_finite(get_values(model.weights))
        if not is_main_process():
            self.best = value
            return
        found = {"monitor": self.monitor, "mode": self.mode, "best": value}
        with atomic_write(self.filepath) as temporary:
            with without_distribution():
                model.save(temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(BEST_VALUE, json.dumps(found))
        self.best = value
        if self.verbose:
            print_line(
                f"{self.filepath}: saved, {self.monitor} is {value:.4f}",
                shows_progress_bar(self),
            )

    def _warn_of_missing_value(self, epoch: int, logs: Logs) -> None:
        held_out = [
            callback
            for callback in HeldOutEvaluation.of_fit(self.params)
            if callback.gives(self.monitor)
        ]
        closest = difflib.get_close_matches(self.monitor, logs, 1)
        validated = any(name.startswith("val_") for name in logs)
        advice = ""
        if any(callback.comes_later for callback in held_out):
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

    def _check_finite(self, values: list[Array]) -> None:
        if not all(np.isfinite(value).all() for value in values):
            raise FloatingPointError(
                f"{self.monitor} or a weight is not finite, so "
                f"{self.filepath} stays as it is"
            )


def _without_fields(filepath: str | os.PathLike[str]) -> str:
    """Returns a path with its doubled braces made single."""
    try:
        return os.fspath(filepath).format()
    except (LookupError, ValueError) as error:
        raise ValueError(
            "`filepath` of `BestModelCheckpoint` must be one file, which holds "
            f"the best model of all runs. Received: filepath={filepath!r}. "
            "Use `keras.callbacks.ModelCheckpoint` for a file for each epoch. "
            "Double braces that belong to the name: '{{' and '}}'."
        ) from error


def _direction(monitor: str) -> str:
    if monitor.endswith(("loss", "error")):
        return "min"
    return "max" if monitor.endswith("accuracy") else "auto"
