"""Callbacks that look at a model while it is training, and disturb nothing."""

import contextlib
import csv
import importlib
import itertools
import logging
import math
import os
import random
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt

# Not `from keras_lenet`, which would import the models first.
import keras_lenet.plots as plots
from keras_lenet.datasets import (
    check_images_and_labels,
    is_positive_integer,
)
from keras_lenet.files import replacing
from keras_lenet.optimizers import LevenbergMarquardt, diagonal_curvature
from keras_lenet.validation import check_targets

_numbers = itertools.count()

# How many images of a dataset are drawn at most.
_MOST_IMAGES = 16
# As long as Keras' progress bar gets, with the codes of its colours.
_BAR_WIDTH = 160

Array = npt.NDArray[Any]
Logs = dict[str, Any]


class PeriodicCallback(keras.callbacks.Callback):
    """Calls `look` every `freq` training steps or at the end of every epoch.

    A due step is noticed before the step that follows it, with integer
    arithmetic alone, because any use of the model makes JAX put its state
    back into the model. With `steps_per_execution` above 1, a look comes at
    the first chance at or after a multiple of `freq`.
    """

    # Reading the logs at the end of every batch would make the accelerator
    # wait, so Keras stops running ahead for callbacks that do more there than
    # nothing. This one only counts.
    async_safe = True
    # So several steps may be made in one execution, if they divide `freq`.
    looks_only_at_freq = True
    # All there are, by the order in which they were made. Among them
    # `ResumableTraining` finds those of its `fit`.
    instances: ClassVar[weakref.WeakValueDictionary[int, Any]] = (
        weakref.WeakValueDictionary()
    )

    def __init__(self, freq: int | str, strict: bool = False) -> None:
        super().__init__()
        if freq != "epoch" and not is_positive_integer(freq):
            raise ValueError(
                "`freq` must be a positive number of training steps, or "
                f"'epoch'. Received: freq={freq!r}"
            )
        self.freq = freq if isinstance(freq, str) else int(freq)
        self.strict = strict
        self.instances[next(_numbers)] = self

    @classmethod
    def of_fit(cls, params: Any) -> list[Any]:
        """Returns the callbacks of this class in the `fit` of `params`.

        Keras gives one object of parameters to all callbacks of a `fit`.
        """
        if params is None:
            return []
        return [
            callback
            for _, callback in sorted(cls.instances.items())
            if isinstance(callback, cls) and callback.params is params
        ]

    def look(self, step: int, epoch: int) -> None:
        """Looks at `self.model` after `step` steps, in epoch `epoch`."""
        raise NotImplementedError

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._steps_before_epoch = 0
        self._updates_before = _count_updates(self.model)
        self._next_step: float = math.inf
        if isinstance(self.freq, int):
            self._next_step = self.freq
        self._epoch = 0
        self._warned = False

    def get_state(self) -> dict[str, Any]:
        """Returns what goes on when an interrupted training is resumed."""
        return {
            "steps_before_epoch": self._steps_before_epoch,
            "updates_before": self._updates_before,
            "next_step": self._next_step,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_state` returned, after `on_train_begin`."""
        self._steps_before_epoch = state["steps_before_epoch"]
        self._updates_before = state["updates_before"]
        self._next_step = state["next_step"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        # Keras may call `on_train_batch_end` from several threads, and to
        # append to this is one atomic operation. In an odd order, though, and
        # after an interrupted training with batches of that.
        self._ended: deque[int] = deque([-1], maxlen=100)

    def on_train_batch_begin(
        self, batch: int, logs: Logs | None = None
    ) -> None:
        self._look_if_due(self._steps_before_epoch + batch)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._ended.append(batch)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        model = self.model
        if model.steps_per_execution == 1:
            self._steps_before_epoch += max(self._ended) + 1
        else:
            # The last execution of an epoch may have had fewer steps than the
            # others, which only the optimizer has counted.
            updates = _count_updates(model) - self._updates_before
            per_update = model.optimizer.gradient_accumulation_steps or 1
            self._steps_before_epoch = updates * per_update
        if self.freq == "epoch":
            self._look(self._steps_before_epoch)
        else:
            self._look_if_due(self._steps_before_epoch)

    def _look_if_due(self, step: int) -> None:
        # Batches move by `steps_per_execution` and can jump over a multiple
        # of `freq`, so compare with a threshold, not a remainder.
        if step >= self._next_step:
            self._next_step = math.inf
            if isinstance(self.freq, int):
                self._next_step = (step // self.freq + 1) * self.freq
            self._look(step)

    def _look(self, step: int) -> None:
        """Looks, and does not let an error end the training."""
        try:
            self.look(step, self._epoch)
        except Exception as error:
            if self.strict:
                if _ends_data(error):
                    # Keras would take it for the end of the epoch.
                    raise RuntimeError(f"at step {step}: {error!r}") from error
                raise
            if not self._warned:
                self._warned = True
                warn(f"{type(self).__name__} failed at step {step}", error)


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
            if value is not None and not is_positive_integer(value):
                raise ValueError(
                    f"`{name}` must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
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
                keras.tree.map_structure(_as_array, value)
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
            self._epoch_state = values_of(self.model.metrics_variables)

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
            self._look(step)

    def look(self, step: int, epoch: int) -> None:
        model = self.model
        sums = self._sums()
        new_steps = step - max(self._last_step(), 0)
        held_out: dict[str, Any] = {}
        with _undisturbed(model):
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
        if not is_first_process():
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
        return values_of(self.model.metrics_variables)

    def _sums(self) -> list[Array]:
        """Returns those since the last evaluation."""
        if not self._in_epoch:
            return self._offset or []
        return _add(self._state(), self._offset)

    def _evaluate(self, model: Any, data: Any, step: int) -> dict[str, Any]:
        sums: list[Array] | None = None
        for batch in self._batches(data, step):
            even, times = _for_all_devices(batch)
            # This resets the metrics first.
            model.test_on_batch(*even)
            of_batch = [
                (value / times).astype(value.dtype)
                for value in values_of(model.metrics_variables)
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
            for batch in _as_iterable(data):
                x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
                    batch
                )
                arrays = (
                    (x, y) if sample_weight is None else (x, y, sample_weight)
                )
                yield keras.tree.map_structure(_as_array, arrays)
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
            replacing(filename) as temporary,
            temporary.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(self.history)
            writer.writerows(zip(*self.history.values(), strict=True))


class SamplePredictions(PeriodicCallback):
    """Draws images with their actual and predicted class, inside `fit`.

    Wrong predictions are marked. Like `HeldOutEvaluation`, it disturbs
    nothing, and it keeps to the same steps.

    Args:
        images: Array of shape `(n, height, width, channels)`, 1 channel
            (grey) or 3 (colour), or `(n, height, width)`; uint8 or floats in
            [0, 255], or floats in [0, 1], whichever the model takes. Or a
            dataset that yields batches of images and labels, e.g. of
            `keras.utils.image_dataset_from_directory`, without `labels`. The
            first 16 images of its first batch are drawn.
        labels: Array of integers of shape `(n,)`, the actual classes. A
            dataset may have one-hot labels too.
        freq: Integer or `"epoch"`. How many training steps lie between two
            pictures. Defaults to `"epoch"`.
        filepath: Template of the path to write to, with `{step}`, the number
            of steps made, and `{epoch}`, counted from 1, as fields. The suffix
            is that of any format of Matplotlib. Folders are made; files
            replaced. `None` writes no file and displays the pictures in the
            notebook that runs. Defaults to `"predictions-{step:06d}.png"`.
        class_names: Sequence of strings, the names of the classes from 0 on.
            By default the `class_names` of the dataset, or their numbers.
        strict: Boolean. Whether a picture that cannot be drawn or written ends
            the training. By default training goes on, with one warning.

    Raises:
        ValueError: When an argument is not of the form above, `images` and
            `labels` have different lengths or are empty, a label has no name,
            or `filepath` is `None` and no notebook runs.

    Example:

    >>> from keras_lenet import SamplePredictions
    >>> from keras_lenet.datasets import load_data
    >>> _, (x_test, y_test) = load_data("digits")
    >>> callback = SamplePredictions(
    ...     x_test[:6], y_test[:6], freq=100, filepath="step-{step}.png"
    ... )
    >>> model.fit(x_train, y_train, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        images: Any,
        labels: npt.ArrayLike | None = None,
        freq: int | str = "epoch",
        filepath: str | os.PathLike[str] | None = "predictions-{step:06d}.png",
        class_names: Sequence[str] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(freq, strict)
        if labels is None:
            if class_names is None:
                class_names = getattr(images, "class_names", None)
            images, labels = _first_images(images)
        self.images, self.labels = _checked_for_drawing(
            images, labels, None if class_names is None else len(class_names)
        )
        self.filepath = None if filepath is None else os.fspath(filepath)
        if self.filepath is None:
            if not _in_notebook():
                raise ValueError(
                    "`filepath` must be given where no notebook runs, which "
                    "could display the pictures. Received: filepath=None"
                )
        else:
            _check_template(self.filepath)
        self.class_names = class_names

    def look(self, step: int, epoch: int) -> None:
        model = self.model
        with _undisturbed(model):
            # It may be more: what every device gave for the whole batch.
            images, _ = _for_all_devices(self.images)
            outputs = model.predict_on_batch(images)[: len(self.images)]
        figure = plots.plot_predictions(
            self.images, self.labels, outputs, self.class_names
        )
        if not is_first_process():
            return
        if self.filepath is None:
            importlib.import_module("IPython.display").display(figure)
        else:
            path = Path(self.filepath.format(step=step, epoch=epoch + 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                figure.savefig(temporary, dpi=150)
        # Or it waits for the garbage collector, as its parts know each other.
        figure.clear()


class CurvatureEstimation(PeriodicCallback):
    """Estimates the curvatures that `LevenbergMarquardt` divides by.

    It does so before the training and anew every so often, on a sample of the
    training data each time (https://doi.org/10.1109/5.726791, appendix C).

    Args:
        x: NumPy array of images, shape `(samples, height, width, channels)`.
        y: NumPy array of integer labels, shape `(samples,)`.
        freq: Integer number of training steps, or `"epoch"`: how often.
            Defaults to `"epoch"`.
        sample_size: Integer. How many images each estimate draws. Defaults to
            `500`.
        seed: Integer. Decides which. Defaults to `0`.

    Raises:
        ValueError: When an argument is not of the form above, or, as the
            training begins, the model is not one that `diagonal_curvature`
            takes or is not compiled with `LevenbergMarquardt`.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import CurvatureEstimation
    >>> x, y = np.zeros((9, 28, 28, 1), "uint8"), np.arange(9)
    >>> CurvatureEstimation(x, y, sample_size=5).sample_size
    5
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        freq: int | str = "epoch",
        sample_size: int = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(freq, strict=True)
        self.images = np.asarray(x)
        self.labels = np.asarray(y)
        if not is_positive_integer(sample_size) or not (
            sample_size <= len(self.images) == len(self.labels)
        ):
            raise ValueError(
                "`x` and `y` must have as many samples, and `sample_size` be "
                f"from 1 to that. Received: {len(self.images)} and "
                f"{len(self.labels)}, sample_size={sample_size!r}"
            )
        self.sample_size = int(sample_size)
        self.seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if not isinstance(self.model.optimizer, LevenbergMarquardt):
            raise ValueError(
                f"`{type(self).__name__}` needs a model compiled with "
                "`LevenbergMarquardt`. Received: optimizer="
                f"{self.model.optimizer!r}"
            )
        self.look(0, 0)

    def look(self, step: int, epoch: int) -> None:
        """Estimates the curvatures anew."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        # A function of the step, so that a resumed training goes on with it.
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.choice(
            len(self.images), self.sample_size, replace=False
        )
        found = diagonal_curvature(
            self.model, self.images[chosen], self.labels[chosen]
        )
        for variable, curvature in zip(
            optimizer.curvatures, found, strict=True
        ):
            variable.assign(curvature)


def _check_for_model(model: Any, x: Any, y: Any) -> None:
    """Checks arrays as `fit` of a model does, before the first step."""
    if hasattr(model, "check_arrays"):
        model.check_arrays({"x": x, "y": y})
    else:
        check_targets(model, y)


def check_order(callbacks: Any, validates: bool) -> None:
    """Checks that no callback monitors what only a later one evaluates.

    Args:
        callbacks: As given to `fit`.
        validates: Boolean. Whether `fit` has validation data of its own, so
            that all callbacks get its values.

    Raises:
        ValueError: When one does.
    """
    listed = keras.tree.flatten(callbacks or [])
    for index, callback in enumerate(listed):
        monitor = getattr(callback, "monitor", None)
        if (
            validates
            or not isinstance(monitor, str)
            # `ModelCheckpoint` of every epoch monitors nothing.
            or not getattr(callback, "save_best_only", True)
            or any(_may_give(other, monitor) for other in listed[:index])
        ):
            continue
        for other in listed[index + 1 :]:
            if isinstance(other, HeldOutEvaluation) and other.gives(monitor):
                name = type(callback).__name__
                raise ValueError(
                    f"`HeldOutEvaluation` must come before `{name}` in "
                    f"`callbacks`, which monitors one of its values. Received: "
                    f"callbacks={[type(c).__name__ for c in listed]}, "
                    f"monitor={monitor!r}"
                )


def _may_give(callback: Any, name: str) -> bool:
    """Returns whether a callback may put a value into the logs."""
    if isinstance(callback, HeldOutEvaluation):
        return callback.gives(name)
    # A callback of the user's may.
    return isinstance(callback, keras.callbacks.LambdaCallback) or type(
        callback
    ).__module__.partition(".")[0] not in ("keras", "keras_lenet")


def check_file(path: Path, name: str, suffix: str = "") -> None:
    """Checks that a file can be written before it has to be.

    Args:
        path: Path of the file.
        name: String. The argument that it came by.
        suffix: String. What its name must end in.

    Raises:
        ValueError: When there is no such folder, it cannot be written to, or
            it has a folder of this name.
    """
    if (
        path.is_dir()
        or not os.access(path.parent, os.W_OK | os.X_OK)
        or not path.name.endswith(suffix)
    ):
        ending = f" whose name ends in {suffix}" if suffix else ""
        raise ValueError(
            f"`{name}` must be a file{ending}, in a folder that exists and can "
            f"be written to. Received: {name}={str(path)!r}"
        )


def warn(what: str, error: Exception) -> None:
    """Says, and logs with its traceback, an error that ends no training."""
    logging.getLogger(__name__).exception(what)
    warnings.warn(
        f"{what}: {error!r}. Training goes on, and it is tried again when due; "
        "this is said only once. `strict=True` raises the error.",
        RuntimeWarning,
        stacklevel=3,
    )


def shows_progress_bar(callback: keras.callbacks.Callback) -> bool:
    """Returns whether the `fit` of a callback draws Keras' progress bar."""
    return (callback.params or {}).get("verbose") in (1, "auto")


def print_line(text: str, has_bar: bool) -> None:
    """Prints a line, above Keras' progress bar where there is one.

    Args:
        text: String.
        has_bar: Boolean. Whether the current line has a progress bar.
    """
    if has_bar and sys.stdout.isatty():
        # Make room below the bar, then insert a line, which moves it there.
        text = f"\n\x1b[A\r\x1b[L{text}"
    elif has_bar:
        # A notebook has no cursor: write over the bar, which Keras draws again.
        text = f"\r{text:{_BAR_WIDTH}}"
    print(text, flush=True)


def is_first_process() -> bool:
    """Returns whether this is the one of several processes that writes."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.process_index() == 0)


def _for_all_devices(batch: Any) -> tuple[Any, int]:
    """Repeats a batch until all devices can have as many of its samples.

    Args:
        batch: Array, or tuple of arrays.

    Returns:
        The batch, and how many times it is in there.
    """
    if keras.distribution.distribution() is None:
        return batch, 1
    import jax

    devices = jax.local_device_count()
    times = devices // math.gcd(devices, _length((batch,)))
    return keras.tree.map_structure(
        lambda array: np.concatenate([array] * times), batch
    ), times


def _ends_data(error: Exception) -> bool:
    # TensorFlow's error is known by name, where TensorFlow may be missing.
    return (
        isinstance(error, StopIteration)
        or type(error).__name__ == "OutOfRangeError"
    )


@contextlib.contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Puts the model's metrics and all random state back as they were."""
    variables = [*model.metrics_variables, *model.non_trainable_variables]
    values = values_of(variables)
    try:
        # Building draws the seeds of initial weights from Python's generator,
        # which training would do now.
        with (
            _same_random_state(python=model.built),
            _inference_mode(model),
        ):
            yield
    finally:
        # Metrics that were built by this look have no value to get back.
        model.reset_metrics()
        assign(variables, values)
        if keras.backend.backend() == "jax":
            _attach_jax_state(model)


def _attach_jax_state(model: Any) -> None:
    # Before it asks for the next batch, Keras takes the state out of the
    # model. Where there is no next batch it puts back what the last user of
    # the model left here: from an evaluation that is only a part, and metrics
    # of its own.
    model._jax_state = {
        name: [v.value for v in variables]
        for name, variables in (
            ("trainable_variables", model.trainable_variables),
            ("non_trainable_variables", model.non_trainable_variables),
            ("optimizer_variables", model.optimizer.variables),
            ("metrics_variables", model.metrics_variables),
        )
    }


@contextlib.contextmanager
def _same_random_state(python: bool = True) -> Iterator[None]:
    """Puts the global random states back, that of Python if asked for."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state: Any = contextlib.nullcontext()
    if keras.backend.backend() == "torch":
        import torch

        torch_state = torch.random.fork_rng()
    try:
        with torch_state:
            yield
    finally:
        if python:
            random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def _inference_mode(model: Any) -> Iterator[None]:
    """Lets layers that ask PyTorch for their mode be told inference."""
    if keras.backend.backend() != "torch":
        yield
        return
    # `evaluate` of Keras sets the mode for layers that ask PyTorch for it, and
    # does not set it back; `test_on_batch` does neither.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _count_updates(model: Any) -> int:
    # With a distribution strategy of TensorFlow there is no `int` of it.
    return int(values_of([model.optimizer.iterations])[0])


def values_of(variables: Iterable[Any]) -> list[Array]:
    """Returns what Keras variables hold."""
    # On PyTorch the array would share its memory with the variable.
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assign(variables: Iterable[Any], values: Iterable[Array]) -> None:
    """Lets Keras variables hold other values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _add(values: list[Array], others: list[Array] | None) -> list[Array]:
    if not others:
        return values
    return [a + b for a, b in zip(values, others, strict=True)]


def _results(model: Any, sums: list[Array]) -> dict[str, Any]:
    """Returns what the metrics are when their variables are `sums`."""
    assign(model.metrics_variables, sums)
    results = {}
    for name, value in model.get_metrics_result().items():
        array = keras.ops.convert_to_numpy(value)
        results[name] = array.item() if array.size == 1 else array
    return results


def _as_text(row: dict[str, Any]) -> str:
    """Returns the results of an evaluation as a line of 80 characters."""
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


def _as_array(part: Any) -> Any:
    # `np.asarray` does not take tensors that are on a GPU or have gradients.
    if keras.ops.is_tensor(part):
        return np.asarray(keras.ops.convert_to_numpy(part))
    return None if part is None else np.asarray(part)


def _as_iterable(data: Any) -> Iterable[Any]:
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(data.num_batches))
    return data  # type: ignore[no-any-return]


def _is_dataset(data: Any) -> bool:
    """Returns whether batches can be taken from it again and again."""
    return isinstance(data, (Iterable, keras.utils.PyDataset)) and not (
        isinstance(data, (Iterator, str, bytes)) or hasattr(data, "shape")
    )


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
            _check_numbers(name, _as_array(array))
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
    elif not _is_dataset(data):
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


def _first_images(dataset: Any) -> tuple[Array, Array]:
    """Returns the first images of a dataset, and their classes."""
    if not _is_dataset(dataset):
        raise ValueError(
            "`labels` must be given where `images` is no dataset. Received: "
            f"labels=None, images of type {type(dataset).__name__}."
        )
    with _same_random_state():
        batch = next(iter(_as_iterable(dataset)), None)
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not all(len(getattr(part, "shape", ())) for part in (x, y)):
        parts = keras.tree.flatten(batch)
        raise ValueError(
            "`images` must be a dataset of batches `(images, labels)`. "
            "Received: a first batch of the shapes "
            f"{[tuple(getattr(part, 'shape', ())) for part in parts]}."
        )
    images, labels = _as_array(x)[:_MOST_IMAGES], _as_array(y)[:_MOST_IMAGES]
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)
    if labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels)):
        # `label_mode="binary"` gives floats.
        labels = labels.astype("int64")
    return images, labels


def _checked_for_drawing(
    images: Any, labels: Any, num_classes: int | None
) -> tuple[Array, Array]:
    """Returns what `check_images_and_labels` does, for floats to 255 too."""
    if not isinstance(images, list):
        images = _as_array(images)
    raw = isinstance(images, np.ndarray) and plots.are_raw_floats(images)
    if raw:
        plots.check_pixels(images)
    checked, labels = check_images_and_labels(
        images / 255 if raw else images, labels, num_classes
    )
    if checked.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have 1 or 3 channels. Received: images of "
            f"shape {checked.shape}."
        )
    if raw:
        checked = images.reshape(checked.shape).astype("float32")
    return checked, labels


def _check_template(filepath: str) -> None:
    try:
        filepath.format(step=0, epoch=1)
    except (AttributeError, LookupError, ValueError) as error:
        raise ValueError(
            "`filepath` must be a template with the fields {step} and "
            f"{{epoch}} at most. Received: filepath={filepath!r}"
        ) from error


def _in_notebook() -> bool:
    """Returns whether IPython runs with a kernel, so that it shows images."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


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
