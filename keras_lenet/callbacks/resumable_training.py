"""Resuming an interrupted run exactly."""

import importlib
import itertools
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks.isolation import get_values, set_values
from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.callbacks.run_state import (
    describe_augment,
    describe_layer,
    flatten_description,
    get_callback_state,
    get_random_state,
    hash_array,
    pack,
    set_callback_state,
    set_random_state,
    unpack,
    variable_groups,
)
from keras_lenet.distribution import (
    gather_from_processes,
    is_main_process,
    process_count,
)
from keras_lenet.files.arrays import read_arrays, write_arrays
from keras_lenet.files.atomic import check_file
from keras_lenet.files.formats import FileFormatError, parsing
from keras_lenet.types import Array, Logs
from keras_lenet.version import __version__


class OtherRunError(ValueError):
    """Says that a file has the state of another run.

    Attributes:
        path: Path of the file.
        differences: Dict of what differs, by name, to the value that was
            saved and the value now.
    """

    def __init__(
        self, path: Path, differences: dict[str, tuple[Any, Any]]
    ) -> None:
        lines = [
            f"{name}: {saved!r} saved, {now!r} now"
            for name, (saved, now) in differences.items()
        ]
        super().__init__(
            f"{path}: expected the state of this training. Received: that of "
            f"another, with {'; '.join(lines)}. Give another `filepath`, or "
            "delete the file to start anew."
        )
        self.path = path
        self.differences = differences


class ResumableTraining(PeriodicCallback):
    """Saves a training every few steps, and goes on from there next time.

    Where the file is there when `fit` begins, the training goes on as if it
    had not been interrupted: run the same script again. Weights, optimizer,
    metrics, random state, `History` and what the callbacks of this package
    have seen become, bit for bit, those of a training in one go. It does not
    matter how it ended, by an error, Ctrl-C, or a power cut: the file is
    replaced atomically.

    With the dataset of `image_dataset_from_array`, whose order is a function
    of seed and pass, a training goes on in the middle of an epoch, with no
    batch seen twice and none left out. Steps that were made before pass
    without training, so that progress bars and step counts are right. With
    any other data the state is saved between epochs, and an interrupted epoch
    is made again; data that shuffle by themselves start their order again.

    Put it last in the list of callbacks.

    Args:
        filepath: Path of the `.npz` file to save to and to go on from. Delete
            it to start anew.
        dataset: The `tf.data.Dataset` of `image_dataset_from_array` that
            `fit` trains on, itself or repeated. Nothing else should go
            through it meanwhile. By default the data are unknown.
        callbacks: List of Keras' or your own callbacks in the same `fit` whose
            state belongs to the training, e.g. `EarlyStopping`. Of these all
            attributes that are numbers, strings, arrays and lists or dicts of
            them are saved, except arguments of the constructor. Those of this
            package need not be given.
        freq: Integer or `"epoch"`. How many training steps lie between two
            saves. Defaults to `"epoch"`.
        verbose: 0 or 1. Whether to say where a training goes on, or that it
            is finished. Defaults to `1`.
        strict: Boolean. Whether an error in saving ends the training. By
            default training goes on, with one warning, and the file stays.

    Raises:
        ValueError: When an argument is not of the form above. In `fit`, when
            it is not last in the list, or the file is damaged, or of another
            training: with another model, optimizer, loss, data, batch size,
            seed or version.

    A state with numbers that are not finite never replaces one without. Where
    several processes train together, the first one writes and all read.

    Example:

    >>> from keras_lenet import LeNet5, ResumableTraining, datasets
    >>> (x_train, y_train), _ = datasets.load_data("digits")
    >>> train = datasets.image_dataset_from_array(
    ...     x_train, y_train, shuffle=True, seed=98
    ... )  # doctest: +SKIP
    >>> resumable = ResumableTraining(
    ...     "training.npz", train, freq=100
    ... )  # doctest: +SKIP
    >>> model.fit(
    ...     train, epochs=20, callbacks=[resumable], shuffle=False
    ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        dataset: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        freq: int | str = "epoch",
        verbose: int = 1,
        strict: bool = False,
    ) -> None:
        super().__init__(freq, strict)
        self.filepath = Path(filepath)
        check_file(self.filepath, "filepath", ".npz")
        if dataset is not None and not hasattr(dataset, "sampler"):
            raise ValueError(
                "`dataset` must be what `image_dataset_from_array` returned, "
                f"before any change. Received: dataset={dataset!r}. Leave it "
                "out to resume from the beginning of an epoch."
            )
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.Callback):
                raise ValueError(
                    "`callbacks` must be a list of Keras callbacks. "
                    f"Received: {callback!r}"
                )
        self.dataset = dataset
        self.callbacks = list(callbacks)
        self.verbose = verbose
        self._asked = False

    def interrupt(self) -> None:
        """Asks for the training to be saved and ended after this step.

        `fit` then raises `KeyboardInterrupt`. To be called by handlers of
        signals, e.g. of the one by which a cluster announces its end. Where
        several processes train together, one is enough, and all end at the
        next save that is due.
        """
        self._asked = True

    def set_params(self, params: Any) -> None:
        super().set_params(params)
        # Keras gives them to one callback after the other.
        self._before = [c for c in self._to_save() if c.params is params]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._check_order()
        self._fingerprint = self._describe()
        self._asked = self._interrupted = False
        self._alone = process_count() == 1
        # Between two epochs everybody has noted what became of the first.
        self._may_save = False
        self._due = False
        self._saved_step = -1
        self._finished = False
        # What could not be taken over yet, and how many steps are to pass by.
        self._state: dict[str, Any] | None = None
        self._to_pass = 0
        if self.dataset is not None:
            self.dataset.sampler.start_at(0)
        if self.filepath.exists():
            self._resume()
        _check_that_all_resume(self.filepath, self._saved_step)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        # Or the next `fit` of the model would begin there too.
        self.model._initial_epoch = None
        if self._state is not None:
            self._take_over(self._state)
        elif self._due:
            self._may_save = True
            self._run_on_interval(self._steps_before_epoch)
        self._may_save = self.dataset is not None

    def on_train_batch_begin(
        self, batch: int, logs: Logs | None = None
    ) -> None:
        if self._to_pass:
            return
        super().on_train_batch_begin(batch, logs)
        step = self._steps_before_epoch + batch
        if self._asked and self._alone:
            self._interrupted = True
            if step != self._saved_step:
                self._run_on_interval(step)
        if self._interrupted:
            raise KeyboardInterrupt(f"interrupted after {step} steps")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._may_save = False
        super().on_epoch_end(epoch, logs)
        self._due |= self._asked and self._alone

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.model._initial_epoch = None
        if self._state is not None:
            # There was nothing to train.
            self._take_over(self._state)
        elif not self._finished:
            self._finished = self._may_save = True
            self._epoch += 1
            self._run_on_interval(self._steps_before_epoch)

    def on_interval(self, step: int, epoch: int) -> None:
        self._due = not self._may_save
        if self._due:
            return
        if not self._alone:
            # One that ends leaves the others waiting.
            self._interrupted = any(gather_from_processes(self._asked))
        if not is_main_process():
            return
        model = self.model
        arrays = {
            f"{group}/{index}": _as_numbers(value)
            for group, variables in variable_groups(model).items()
            for index, value in enumerate(get_values(variables))
        }
        for name, value in arrays.items():
            if not np.isfinite(value).all():
                raise FloatingPointError(
                    f"after {step} steps {name} has numbers that are not "
                    f"finite, so {self.filepath} stays as it is"
                )
        history = model.history
        facts = {
            **self.get_state(),
            "fingerprint": self._fingerprint,
            "step": step,
            "epoch": epoch,
            "finished": self._finished,
            "stopped": bool(model.stop_training),
            "random": get_random_state(),
            "history": {"history": history.history, "epoch": history.epoch},
            "callbacks": [
                get_callback_state(callback) for callback in self._before
            ],
        }
        write_arrays(self.filepath, arrays, pack(facts, arrays))
        self._saved_step = step

    def _to_save(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks whose state belongs to the training."""
        ours = [
            callback
            for callback in PeriodicCallback.of_fit(self.params)
            if callback is not self
        ]
        return [*ours, *(c for c in self.callbacks if c not in ours)]

    def _check_order(self) -> None:
        names = [type(c).__name__ for c in self._to_save()]
        before = [type(c).__name__ for c in self._before]
        if names != before:
            raise ValueError(
                "`ResumableTraining` must be the last in the list of callbacks "
                f"given to `fit`, here after {names}. Received: only {before} "
                "before it."
            )

    def _describe(self) -> dict[str, Any]:
        """Returns what must be the same for a training to go on."""
        backend = keras.backend.backend()
        version = importlib.import_module(backend).__version__
        model = self.model
        description: dict[str, Any] = {
            "versions": {
                "keras_lenet": __version__,
                "keras": keras.version(),
                "backend": f"{backend} {version}",
                "machine": platform.machine(),
            },
            "model": [describe_layer(layer) for layer in model.layers],
            "compile": model.get_compile_config(),
            "steps_per_epoch": self.params["steps"],
            "callbacks": [
                {type(callback).__name__: getattr(callback, "freq", None)}
                for callback in self._before
            ],
            "data": None,
        }
        if self.dataset is not None:
            order = self.dataset.sampler
            description["data"] = {
                "batch_size": order.batch_size,
                "seed": order.seed,
                "shuffle": order.shuffle,
                "drop_remainder": order.drop_remainder,
                "arrays": [
                    f"{array.dtype} {array.shape} {hash_array(array)}"
                    for array in self.dataset.arrays
                ],
                "augment": describe_augment(self.dataset.augment),
            }
        return dict(flatten_description(description))

    def _resume(self) -> None:
        arrays, facts = read_arrays(self.filepath)
        try:
            state = unpack(facts, arrays)
            _check_fingerprint(self.filepath, state, self._fingerprint)
            self._restore(state, arrays)
        except (IndexError, KeyError, TypeError) as error:
            raise FileFormatError(
                self.filepath,
                "the state of a training",
                "written by ResumableTraining",
                f"something else ({error!r})",
            ) from error

    def _restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        model = self.model
        step, epoch = state["step"], state["epoch"]
        to_pass = step - state["steps_before_epoch"]
        if to_pass % model.steps_per_execution:
            raise ValueError(
                f"{self.filepath}: expected a training with steps_per_execution"
                f" that divides {to_pass}, the steps made in its epoch. "
                f"Received: steps_per_execution={model.steps_per_execution}."
            )
        _build(model, self.dataset)
        groups = variable_groups(model)
        # Made by the first step of an epoch, in which they are needed.
        state["metrics"] = _of_group(self.filepath, arrays, "metrics", None)
        values = {
            group: _of_group(self.filepath, arrays, group, variables)
            for group, variables in groups.items()
            if group != "metrics"
        }
        for group, of_group in values.items():
            set_values(groups[group], of_group)
        super().set_state(state)
        # This one's `freq` may be another than before.
        self._next_step = math.inf
        if isinstance(self.freq, int):
            self._next_step = (step // self.freq + 1) * self.freq
        for callback, saved in zip(
            self._before, state["callbacks"], strict=True
        ):
            set_callback_state(callback, saved)
        if self.dataset is not None:
            self.dataset.sampler.start_at(state["steps_before_epoch"])
        self._state = state
        self._saved_step = step
        epochs = self.params["epochs"]
        done = epoch >= epochs or (state["finished"] and state["stopped"])
        self._to_pass = 0 if done else to_pass
        model._initial_epoch = max(epoch, epochs) if done else epoch
        if self.verbose and is_main_process():
            what = "finished" if done else f"goes on in epoch {epoch + 1}"
            print(f"{self.filepath}: the training {what}, after {step} steps.")

    def _take_over(self, state: dict[str, Any]) -> None:
        """Does what can only be done when all callbacks have begun."""
        self._state = None
        history = self.model.history
        history.history = state["history"]["history"]
        history.epoch = state["history"]["epoch"]
        if self._to_pass:
            self._pass_by(state)
        else:
            set_random_state(state["random"])

    def _pass_by(self, state: dict[str, Any]) -> None:
        """Lets steps that were made before pass without training."""
        model = self.model
        set_values(model.metrics_variables, state["metrics"])
        logs = {
            name: float(keras.ops.convert_to_numpy(value))
            for name, value in model.get_metrics_result().items()
        }
        train = model.train_function

        def pass_by(*arguments: Any) -> Any:
            # On JAX there is a state too.
            *jax_state, batches = arguments
            passed = itertools.islice(batches, model.steps_per_execution)
            self._to_pass -= sum(1 for _ in passed)
            if self._to_pass <= 0:
                model.train_function = train
                set_random_state(state["random"])
            return (logs, *jax_state) if jax_state else logs

        model.train_function = pass_by


def is_finished(filepath: str | os.PathLike[str]) -> bool:
    """Returns whether a file of `ResumableTraining` is of a finished training.

    Args:
        filepath: Path of the file.

    Raises:
        FileFormatError: When it is something else, or damaged.
    """
    filepath = Path(filepath)
    _, facts = read_arrays(filepath)
    with parsing(filepath, "the state of a training"):
        return bool(facts["finished"])


def _build(model: Any, dataset: Any) -> None:
    """Makes the variables that TensorFlow otherwise makes in the first step."""
    if dataset is not None:
        size = dataset.sampler.batch_size
        batch = keras.tree.map_structure(
            lambda spec: np.zeros(
                (size, *spec.shape[1:]), spec.dtype.as_numpy_dtype
            ),
            dataset.element_spec,
        )
        model._symbolic_build(data_batch=batch)
    if not model.built:
        raise ValueError(
            "`ResumableTraining` without `dataset` can resume a built model "
            "only. Received: a model without weights. Call it on a batch of "
            "images before `fit`."
        )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _of_group(
    path: Path, arrays: dict[str, Array], group: str, variables: Any
) -> list[Array]:
    names = [name for name in arrays if name.startswith(f"{group}/")]
    values = [arrays[f"{group}/{index}"] for index in range(len(names))]
    if variables is not None:
        shapes = [tuple(variable.shape) for variable in variables]
        received = [value.shape for value in values]
        if shapes != received:
            raise FileFormatError(
                path, f"{group} variables", f"of shapes {shapes}", received
            )
    return values


def _as_numbers(value: Array) -> Array:
    # Files of NumPy do not know bfloat16.
    return value.astype("float32") if value.dtype.kind == "V" else value


def _check_that_all_resume(path: Path, step: int) -> None:
    """Checks that all processes go on from the same step, or none would."""
    steps = gather_from_processes(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"{path}: expected the same file in all processes, on a file "
            f"system that they share. Received: steps {steps}, -1 where there "
            "is no file."
        )


def _check_fingerprint(
    path: Path, state: dict[str, Any], now: dict[str, Any]
) -> None:
    saved = state["fingerprint"]
    differences = {
        name: (saved.get(name), now.get(name))
        for name in {**saved, **now}
        if saved.get(name) != now.get(name)
    }
    if differences:
        raise OtherRunError(path, differences)
