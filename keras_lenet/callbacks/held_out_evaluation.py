"""Evaluation on held-out data inside `fit`."""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks.data import is_dataset, to_array, to_iterable
from keras_lenet.callbacks.isolation import (
    get_values,
    preserve_training_state,
    set_values,
)
from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.callbacks.terminal import print_line, shows_progress_bar
from keras_lenet.distribution import is_main_process, repeat_for_devices
from keras_lenet.files.atomic import atomic_write, check_file
from keras_lenet.types import Array, Logs
from keras_lenet.validation.arguments import check_positive_integer
from keras_lenet.validation.batches import check_targets


class HeldOutEvaluation(PeriodicCallback):
    """Evaluates on held-out data every few training steps, inside `fit`.

    To evaluate a model in the middle of an epoch by `model.evaluate` resets
    the training metrics that `fit` is averaging, and on PyTorch changes the
    random state and the mode of the layers. This callback puts everything
    back: weights, training metrics, random state and history of a run are
    those of the same run without it.

    At the end of every epoch in which there was an evaluation, the results of
    the last one reach `History` and the callbacks that follow in the list,
    under names that start with `val_`, so that
    `EarlyStopping(monitor="val_loss")` and `ModelCheckpoint` can use them. As
    with Keras' `validation_freq`, the names are missing in other epochs. Where
    `fit` has `validation_data` of its own, its results keep those names.

    `LeNet5.fit` makes several steps in one execution where that divides
    `freq`. Where you compile with `steps_per_execution=k` yourself, the model
    can only be reached every `k` steps, so an evaluation comes at the first
    of those steps at or after every multiple of `freq`, and is recorded with
    the step at which it was made.

    Args:
        data: What to evaluate on: a tuple `(x, y)` or `(x, y, sample_weight)`
            of arrays, or a list of them, as for `validation_data` of `fit`; a
            dataset that yields batches, e.g. a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, a Grain dataset,
            or a list of `(x, y)` tuples; or a dict of names to any of these.
        freq: Integer or `"epoch"`. How many training steps lie between two
            evaluations. Defaults to `100`.
        sample_size: Integer. How many samples to evaluate on, drawn anew for
            every evaluation; only for arrays. By default all.
        seed: Integer. With the step it decides what is drawn. By default it
            is taken from the operating system.
        batch_size: Integer. How many samples of arrays to evaluate at a time.
            Defaults to `500`.
        at_start: Boolean. Whether to evaluate once before the first step too.
            Defaults to `False`.
        at_end: Boolean. Whether to evaluate once after the last step, if that
            is not done anyway. Defaults to `False`.
        filename: Path of a CSV file that gets a line at every evaluation, and
            replaces that of an earlier training. By default none is written.
        verbose: 0 or 1. Whether to print a line at every evaluation. Defaults
            to `0`.
        strict: Boolean. Whether an error in an evaluation ends the training.
            By default training goes on, with one warning.

    Attributes:
        history: Dict of lists with one entry for each evaluation of the last
            training: `"step"`, how many training steps came before; the
            metrics of training by their names, averaged over the steps since
            the evaluation before (NaN where there were none); and those of
            the held-out data as `"val_" + name`, or
            `"val_" + set + "_" + name` where `data` is a dict.

    Raises:
        ValueError: When an argument is not of the form above, arrays differ
            in length or are empty, or there are fewer than `sample_size`
            samples.

    Metrics of several batches and of the steps between two evaluations are
    calculated from sums of the metrics' variables, which is right for metrics
    that add up over samples, as those of Keras do.

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
        for name, value in (
            ("sample_size", sample_size),
            ("batch_size", batch_size),
        ):
            if value is not None:
                check_positive_integer(name, value)
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
        sets = data if isinstance(data, Mapping) else {"": data}
        sets = {name: _as_keras_takes_it(value) for name, value in sets.items()}
        for name, value in sets.items():
            _check_held_out(f"data[{name!r}]" if name else "data", value)
            if sample_size is not None:
                _check_sample_size(sample_size, value)
        self.data = data
        self.sample_size = sample_size
        # Not from the global generator, which belongs to the training.
        self.seed: Any = np.random.SeedSequence(seed).entropy
        self.batch_size = batch_size
        self.at_start = at_start
        self.at_end = at_end
        self.filename = filename
        self.verbose = verbose
        self.history: dict[str, list[Any]] = {}
        self._sets = {
            f"val_{name}_" if name else "val_": (
                keras.tree.map_structure(to_array, value)
                if isinstance(value, tuple)
                else value
            )
            for name, value in sets.items()
        }
        self._in_epoch = False

    def gives(self, name: str) -> bool:
        """Returns whether a value of the logs is from this evaluation."""
        return name.startswith(tuple(self._sets))

    @property
    def comes_later(self) -> bool:
        """Whether its values are not in the logs yet, at the end of an epoch.

        They reach only the callbacks that follow in the list.
        """
        return self._in_epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self.history = {}
        self._in_epoch = False
        self._epoch_state: list[Array] | None = None
        # The metrics' variables plus this are their sums over the steps since
        # the last evaluation.
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
        self._in_epoch = True
        self._epoch_state = None

    def on_test_begin(self, logs: Logs | None = None) -> None:
        # The validation of `fit` is about to reset the training metrics.
        if self._in_epoch:
            self._epoch_state = get_values(self.model.metrics_variables)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        before = self._steps_before_epoch
        super().on_epoch_end(epoch, logs)
        self._offset = self._sums()
        self._in_epoch = False
        if logs is not None and self._last_step() > before:
            for name, values in self.history.items():
                if name.startswith("val_"):
                    logs.setdefault(name, values[-1])

    def on_train_end(self, logs: Logs | None = None) -> None:
        step = self._steps_before_epoch
        if self.at_end and self._last_step() != step:
            self._run_on_interval(step)

    def on_interval(self, step: int, epoch: int) -> None:
        model = self.model
        sums = self._sums()
        new_steps = step - max(self._last_step(), 0)
        held_out: dict[str, Any] = {}
        with preserve_training_state(model):
            for prefix, data in self._sets.items():
                results = self._evaluate(model, data, step)
                held_out |= {prefix + key: y for key, y in results.items()}
            if new_steps and sums:
                training = _results(model, sums)
            else:
                training = dict.fromkeys(results, float("nan"))
        # What has been reported is taken off what comes next.
        self._offset = None
        if self._in_epoch:
            self._offset = [-value for value in self._state()]

        row = {"step": step, **training, **held_out}
        for key, value in row.items():
            self.history.setdefault(key, []).append(value)
        if not is_main_process():
            return
        if self.verbose:
            print_line(
                _as_text(row),
                # Keras draws it when the first steps have been made.
                shows_progress_bar(self)
                and self._in_epoch
                and max(self._ended) >= 0,
            )
        if self.filename is not None:
            self._write(self.filename)

    def _last_step(self) -> int:
        """Returns the step of the last evaluation, or -1."""
        return int(self.history.get("step", [-1])[-1])

    def _state(self) -> list[Array]:
        """Returns the sums of the training metrics since the epoch began."""
        if self._epoch_state is not None:
            return self._epoch_state
        return get_values(self.model.metrics_variables)

    def _sums(self) -> list[Array]:
        """Returns those since the last evaluation."""
        if not self._in_epoch:
            return self._offset or []
        return _add(self._state(), self._offset)

    def _evaluate(self, model: Any, data: Any, step: int) -> dict[str, Any]:
        sums: list[Array] | None = None
        for batch in self._batches(data, step):
            even, times = repeat_for_devices(batch)
            # This resets the metrics first.
            model.test_on_batch(*even)
            of_batch = [
                (value / times).astype(value.dtype)
                for value in get_values(model.metrics_variables)
            ]
            sums = _add(of_batch, sums)
        if sums is None:
            raise RuntimeError(
                "HeldOutEvaluation: `data` must give at least one batch. "
                "Received: none."
            )
        return _results(model, sums)

    def _batches(self, data: Any, step: int) -> Iterator[Any]:
        if not isinstance(data, tuple):
            for batch in to_iterable(data):
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
                    batch
                )
                arrays = (
                    (x, y) if sample_weight is None else (x, y, sample_weight)
                )
                yield keras.tree.map_structure(to_array, arrays)
            return
        count = _length(data)
        order = None
        if self.sample_size is not None:
            # A function of seed and step, so it does not matter how often
            # the generator was used before.
            generator = np.random.default_rng([self.seed, step])
            count = self.sample_size
            order = generator.choice(_length(data), count, replace=False)
        for start in range(0, count, self.batch_size):
            part: Any = slice(start, min(start + self.batch_size, count))
            if order is not None:
                part = order[part]
            yield keras.tree.map_structure(lambda array: array[part], data)  # noqa: B023

    def _write(self, filename: str | os.PathLike[str]) -> None:
        with (
            atomic_write(filename) as temporary,
            temporary.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(self.history)
            writer.writerows(zip(*self.history.values(), strict=True))


def _check_for_model(model: Any, x: Any, y: Any) -> None:
    """Checks arrays as `fit` of a model does, before the first step."""
    if hasattr(model, "check_arrays"):
        model.check_arrays({"x": x, "y": y})
    else:
        check_targets(model, y)


def _add(values: list[Array], others: list[Array] | None) -> list[Array]:
    if not others:
        return values
    return [a + b for a, b in zip(values, others, strict=True)]


def _results(model: Any, sums: list[Array]) -> dict[str, Any]:
    """Returns what the metrics are when their variables are `sums`."""
    set_values(model.metrics_variables, sums)
    results = {}
    for name, value in model.get_metrics_result().items():
        array = keras.ops.convert_to_numpy(value)
        results[name] = array.item() if array.size == 1 else array
    return results


def _as_text(row: dict[str, Any]) -> str:
    """Returns the results of an evaluation as a line for 80 columns."""
    step, *results = row.items()
    return f"{step[0]} {step[1]}: " + ", ".join(
        f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in results
    )


def _as_keras_takes_it(data: Any) -> Any:
    """Returns `[x, y]` as a tuple, as `fit` does with `validation_data`.

    A list of tuples or lists is a dataset of batches.
    """
    if isinstance(data, list) and not all(
        isinstance(part, (list, tuple)) for part in data
    ):
        return tuple(data)
    return data


def _check_held_out(name: str, data: Any) -> None:
    if isinstance(data, tuple):
        # A list of numbers is no array, and has leaves without a shape.
        shapes = [
            tuple(getattr(array, "shape", ()))
            for array in keras.tree.flatten(data)
        ]
        lengths = {shape[0] if shape else 0 for shape in shapes}
        if len(data) not in (2, 3) or len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                f"`{name}` must be (x, y) or (x, y, sample_weight), arrays of "
                f"the same length, at least 1. Received: {len(data)} of the "
                f"shapes {shapes[:3]}."
            )
        for array in keras.tree.flatten(data):
            _check_numbers(name, to_array(array))
    elif isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            raise ValueError(
                f"`{name}` must be finite. Received: a PyDataset without "
                "`num_batches`."
            )
    elif hasattr(data, "shape"):
        raise ValueError(
            f"`{name}` must be (x, y) or (x, y, sample_weight). Received: one "
            f"array of shape {tuple(data.shape)}."
        )
    elif not is_dataset(data):
        raise ValueError(
            f"`{name}` must be arrays, or a dataset that can be gone through "
            f"many times. Received: {name}={data!r}"
        )
    elif any(
        getattr(getattr(spec, "shape", None), "rank", None) == 0
        for spec in keras.tree.flatten(getattr(data, "element_spec", ()))
    ):
        raise ValueError(
            f"`{name}` must yield batches. Received: a dataset of single "
            "samples. Use its `batch`."
        )
    elif hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        raise ValueError(
            f"`{name}` must be finite. Received: an infinite dataset. Leave "
            "out its `repeat()`."
        )


def _check_numbers(name: str, array: Array) -> None:
    if array.dtype.kind in "OSUV":
        raise ValueError(
            f"`{name}` must have arrays of numbers. Received: dtype "
            f"{array.dtype}."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"`{name}` must have finite numbers. Received: {array[index]}, "
            f"first at index {index}."
        )


def _check_sample_size(sample_size: int, data: Any) -> None:
    if not isinstance(data, tuple):
        raise ValueError(
            "`sample_size` needs `data` of arrays. Received: "
            f"sample_size={sample_size} and a dataset, which cannot be "
            "sampled. Use its `take`, or give arrays."
        )
    if sample_size > _length(data):
        raise ValueError(
            "`sample_size` must be at most the number of samples. Received: "
            f"sample_size={sample_size} and {_length(data)} samples."
        )


def _length(data: tuple[Any, ...]) -> int:
    return len(keras.tree.flatten(data)[0])
