"""Evaluation on held-out data inside `fit`."""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks.data import (
    length,
    standardize_held_out,
    to_array,
    to_iterable,
)
from keras_lenet.callbacks.isolation import (
    get_values,
    metrics_results,
    preserve_training_state,
)
from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.callbacks.terminal import print_line, shows_progress_bar
from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.distribution import is_main_process, repeat_for_devices
from keras_lenet.files.atomic import atomic_write, check_file
from keras_lenet.types import Array, Logs
from keras_lenet.validation.arguments import check_positive_integer
from keras_lenet.validation.batches import check_targets


class HeldOutEvaluation(PeriodicCallback):
    """Evaluates on held-out data every few training steps, inside `fit`.

    Calling `model.evaluate` in the middle of an epoch resets the training
    metrics that `fit` averages, and on PyTorch changes the random state and
    the layers' mode. This callback restores everything: the weights, training
    metrics, random state and history equal those of a run without it.

    At the end of every epoch with an evaluation, the last results are added to
    `History` and to the logs of the callbacks that follow in the list, under
    names that start with `val_`, so that `EarlyStopping(monitor="val_loss")`
    and `ModelCheckpoint` can use them. As with Keras' `validation_freq`, the
    names are missing in other epochs. If `fit` has `validation_data`, its
    results keep these names.

    The trackers among the callbacks (`keras_lenet.trackers`) log the results
    of every evaluation.

    `LeNet5.fit` makes several steps in one execution, a divisor of `freq`. If
    you compile with `steps_per_execution=k` yourself, callbacks reach the
    model only every `k` steps. An evaluation then runs at the first of these
    steps at or after a multiple of `freq`, and `history` has that step.

    Args:
        data: The data to evaluate on: a tuple or list `(x, y)` or
            `(x, y, sample_weight)` of arrays, as for `validation_data` of
            `fit`; a dataset that yields batches, e.g. a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, a Grain dataset,
            or a list of `(x, y)` tuples; or a dict of names to any of these.
        freq: Integer or `"epoch"`. The number of training steps between two
            evaluations. Defaults to `100`.
        sample_size: Integer. The number of samples to evaluate on, drawn again
            for every evaluation; only for arrays. Defaults to all samples.
        seed: Integer. The random seed of the samples. Every step draws other
            samples. Defaults to a random seed.
        batch_size: Integer. The batch size for arrays. Defaults to `500`.
        at_start: Boolean. Whether to evaluate before the first step too.
            Defaults to `False`.
        at_end: Boolean. Whether to evaluate after the last step too, if it is
            not due anyway. Defaults to `False`.
        filename: Path of a CSV file that gets a line at every evaluation and
            replaces an earlier run's. By default no file is written.
        verbose: 0 or 1. Whether to print a line at every evaluation. Defaults
            to `0`.
        strict: Boolean. Whether an error in an evaluation ends the run. By
            default the run continues, with one warning.

    Attributes:
        history: Dict of lists with one entry for each evaluation of the last
            run: `"step"`, the number of training steps so far; the training
            metrics by their names, averaged over the steps since the previous
            evaluation (NaN if there were none); and the held-out metrics as
            `"val_" + name`, or `"val_" + set + "_" + name` if `data` is a
            dict.

    Raises:
        ValueError: If an argument is invalid, arrays differ in length or are
            empty, or there are fewer than `sample_size` samples.

    Metrics over several batches, and over the steps between two evaluations,
    are computed from sums of the metrics' variables. This is correct for
    metrics that add up over samples, like those of Keras.

    Example:

    >>> import keras
    >>> from keras_lenet import HeldOutEvaluation, LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> (x_train, y_train), (x_test, y_test) = load_data("digits")
    >>> model = LeNet5()
    >>> model.compile(
    ...     "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    ... )
    >>> held_out = HeldOutEvaluation((x_test, y_test), freq=5, sample_size=100)
    >>> history = model.fit(
    ...     x_train, y_train, batch_size=100, verbose=0, callbacks=[held_out]
    ... )
    >>> held_out.history["step"]
    [5, 10, 15]
    >>> sorted(history.history)
    ['accuracy', 'loss', 'val_accuracy', 'val_loss']
    """

    def __init__(
        self,
        data: Any,
        freq: int | str = 100,
        sample_size: int | None = None,
        seed: int | None = None,
        batch_size: int = 500,
        at_start: bool = False,
        at_end: bool = False,
        filename: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        strict: bool = False,
    ) -> None:
        super().__init__(freq, strict)
        if sample_size is not None:
            check_positive_integer("sample_size", sample_size)
        check_positive_integer("batch_size", batch_size)
        if seed is not None and not (
            isinstance(seed, (int, np.integer))
            and not isinstance(seed, bool)
            and int(seed) >= 0
        ):
            raise ValueError(
                "`seed` must be an integer, at least 0. "
                f"Received: seed={seed!r}"
            )
        if filename is not None:
            check_file(Path(filename), "filename")
        if isinstance(data, Mapping) and not data:
            raise ValueError("`data` must not be empty. Received: data={}")
        self.data: Any = data
        self.sample_size = sample_size
        # The global generators belong to the run, so take a seed elsewhere.
        self.seed: Any = np.random.SeedSequence(seed).entropy
        self.batch_size = batch_size
        self.at_start = at_start
        self.at_end = at_end
        self.filename = filename
        self.verbose = verbose
        self.history: dict[str, list[Any]] = {}
        # True until this callback's `on_epoch_end` has filled the logs.
        self.in_epoch: bool = False
        self._sets: dict[str, Any] = {}
        sets = data if isinstance(data, Mapping) else {"": data}
        for name, value in sets.items():
            value = standardize_held_out(
                f"data[{name!r}]" if name else "data", value
            )
            if sample_size is not None:
                _check_sample_size(sample_size, value)
            self._sets[f"val_{name}_" if name else "val_"] = value

    def provides(self, name: str) -> bool:
        """Returns whether `name` in the logs is a value of this callback."""
        return name.startswith(tuple(self._sets))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self.history = {}
        self.in_epoch = False
        self._epoch_sums: list[Array] | None = None
        # Metrics add up since the epoch began. Adding this offset gives the
        # sums since the last evaluation.
        self._offset: list[Array] | None = None
        if self.at_start:
            self._next_step = 0
        for data in self._sets.values():
            if isinstance(data, tuple):
                _check_for_model(self.model, *data[:2])

    def get_state(self) -> dict[str, Any]:
        return {
            **super().get_state(),
            "history": self.history,
            "offset": self._offset,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.history = state["history"]
        self._offset = state["offset"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.in_epoch = True
        self._epoch_sums = None

    def on_test_begin(self, logs: Logs | None = None) -> None:
        # The validation of `fit` is about to reset the training metrics.
        if self.in_epoch:
            self._epoch_sums = get_values(self.model.metrics_variables)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        before = self._steps_before_epoch
        super().on_epoch_end(epoch, logs)
        self._offset = self._sums_since_evaluation()
        self.in_epoch = False
        if logs is not None and self._last_step() > before:
            for name, values in self.history.items():
                if name.startswith("val_"):
                    logs.setdefault(name, values[-1])

    def on_train_end(self, logs: Logs | None = None) -> None:
        step = self._steps_before_epoch
        if self.at_end and self._last_step() != step:
            self._run_on_interval(step)

    def on_interval(self, step: int, epoch: int) -> None:
        sums = self._sums_since_evaluation()
        new_steps = step - max(self._last_step(), 0)
        with preserve_training_state(self.model):
            held_out = {
                prefix: self._evaluate(self.model, data, step)
                for prefix, data in self._sets.items()
            }
            if new_steps and sums:
                training = metrics_results(self.model, sums)
            else:
                names = next(iter(held_out.values()))
                training = dict.fromkeys(names, float("nan"))
        # Subtract what this evaluation reports from the next sums.
        self._offset = None
        if self.in_epoch:
            self._offset = [-value for value in self._sums_since_epoch_began()]
        self._report(
            {
                "step": step,
                **training,
                **{
                    prefix + name: value
                    for prefix, results in held_out.items()
                    for name, value in results.items()
                },
            }
        )

    def _report(self, row: dict[str, Any]) -> None:
        """Adds an evaluation to the history, the terminal and the files."""
        for key, value in row.items():
            self.history.setdefault(key, []).append(value)
        if not is_main_process():
            return
        values = {key: value for key, value in row.items() if key != "step"}
        for tracker in Tracker.of_fit(self.params):
            tracker.send_scalars(values, row["step"])
        if self.verbose:
            # Keras first draws its bar after the epoch's first steps.
            bar_is_drawn = self.in_epoch and self.made_steps
            has_bar = shows_progress_bar(self) and bar_is_drawn
            print_line(_as_text(row), has_bar)
        if self.filename is not None:
            with (
                atomic_write(self.filename) as temporary,
                temporary.open("w", newline="") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(self.history)
                writer.writerows(zip(*self.history.values(), strict=True))

    def _last_step(self) -> int:
        """Returns the step of the last evaluation, or -1."""
        return int(self.history.get("step", [-1])[-1])

    def _sums_since_epoch_began(self) -> list[Array]:
        if self._epoch_sums is not None:
            return self._epoch_sums
        return get_values(self.model.metrics_variables)

    def _sums_since_evaluation(self) -> list[Array]:
        if not self.in_epoch:
            return self._offset or []
        return _add(self._sums_since_epoch_began(), self._offset)

    def _evaluate(self, model: Any, data: Any, step: int) -> dict[str, Any]:
        sums: list[Array] | None = None
        for batch in self._batches(data, step):
            repeated, times = repeat_for_devices(batch)
            # `test_on_batch` of Keras 3.13 does not do it on JAX.
            model.reset_metrics()
            model.test_on_batch(*repeated)
            batch_sums = [
                (value / times).astype(value.dtype)
                for value in get_values(model.metrics_variables)
            ]
            sums = _add(batch_sums, sums)
        if sums is None:
            raise RuntimeError(
                "HeldOutEvaluation: `data` must yield at least one batch. "
                "Received: none."
            )
        return metrics_results(model, sums)

    def _batches(self, data: Any, step: int) -> Iterator[Any]:
        if not isinstance(data, tuple):
            for batch in to_iterable(data):
                arrays = keras.utils.unpack_x_y_sample_weight(batch)
                if arrays[2] is None:
                    arrays = arrays[:2]
                yield keras.tree.map_structure(to_array, arrays)
            return
        if self.sample_size is not None:
            # Seed with the step, so that earlier evaluations do not matter.
            generator = np.random.default_rng([self.seed, step])
            chosen = generator.choice(
                length(data), self.sample_size, replace=False
            )
            data = keras.tree.map_structure(lambda array: array[chosen], data)
        for start in range(0, length(data), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield keras.tree.map_structure(lambda array: array[part], data)  # noqa: B023


def _check_sample_size(sample_size: int, data: Any) -> None:
    if not isinstance(data, tuple):
        raise ValueError(
            "`sample_size` needs `data` of arrays. Received: "
            f"sample_size={sample_size} and a dataset. Use its `take`, or "
            "give arrays."
        )
    if sample_size > length(data):
        raise ValueError(
            "`sample_size` must be at most the number of samples. Received: "
            f"sample_size={sample_size} and {length(data)} samples."
        )


def _check_for_model(model: Any, x: Any, y: Any) -> None:
    """Checks arrays as the model's `fit` does, before the first step."""
    if hasattr(model, "check_arrays"):
        model.check_arrays({"x": x, "y": y})
    else:
        check_targets(model, y)


def _add(values: list[Array], others: list[Array] | None) -> list[Array]:
    if not others:
        return values
    return [a + b for a, b in zip(values, others, strict=True)]


def _as_text(row: dict[str, Any]) -> str:
    step, *results = row.items()
    return f"{step[0]} {step[1]}: " + ", ".join(
        f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in results
    )
