"""Callbacks that keep what a training has reached, whatever happens."""

import contextlib
import difflib
import hashlib
import importlib
import inspect
import itertools
import json
import math
import os
import platform
import random
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lenet
from keras_lenet.callbacks import (
    Array,
    HeldOutEvaluation,
    Logs,
    PeriodicCallback,
    assign,
    check_file,
    is_first_process,
    print_line,
    shows_progress_bar,
    values_of,
    warn,
)
from keras_lenet.files import (
    BEST_VALUE,
    FileFormatError,
    parsing,
    read_arrays,
    replacing,
    write_arrays,
)


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
        if dataset is not None and not hasattr(dataset, "batch_order"):
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
        self._alone = _count_processes() == 1
        # Between two epochs everybody has noted what became of the first.
        self._may_save = False
        self._due = False
        self._saved_step = -1
        self._finished = False
        # What could not be taken over yet, and how many steps are to pass by.
        self._state: dict[str, Any] | None = None
        self._to_pass = 0
        if self.dataset is not None:
            self.dataset.batch_order.start_at(0)
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
            self._look(self._steps_before_epoch)
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
                self._look(step)
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
            self._look(self._steps_before_epoch)

    def look(self, step: int, epoch: int) -> None:
        self._due = not self._may_save
        if self._due:
            return
        if not self._alone:
            # One that ends leaves the others waiting.
            self._interrupted = any(_of_all_processes(self._asked))
        if not is_first_process():
            return
        model = self.model
        arrays = {
            f"{group}/{index}": _as_numbers(value)
            for group, variables in _variables(model).items()
            for index, value in enumerate(values_of(variables))
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
            "random": _random_state(),
            "history": {"history": history.history, "epoch": history.epoch},
            "callbacks": [_state_of(callback) for callback in self._before],
        }
        write_arrays(self.filepath, arrays, _pack(facts, arrays))
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
                "keras_lenet": keras_lenet.__version__,
                "keras": keras.version(),
                "backend": f"{backend} {version}",
                "machine": platform.machine(),
            },
            "model": [_config_of(layer) for layer in model.layers],
            "compile": model.get_compile_config(),
            "steps_per_epoch": self.params["steps"],
            "callbacks": [
                {type(callback).__name__: getattr(callback, "freq", None)}
                for callback in self._before
            ],
            "data": None,
        }
        if self.dataset is not None:
            order = self.dataset.batch_order
            description["data"] = {
                "batch_size": order.batch_size,
                "seed": order.seed,
                "shuffle": order.shuffle,
                "drop_remainder": order.drop_remainder,
                "arrays": [
                    f"{array.dtype} {array.shape} {_sha256(array)}"
                    for array in self.dataset.arrays
                ],
                "augment": _described(self.dataset.augment),
            }
        return dict(_leaves(description))

    def _resume(self) -> None:
        arrays, facts = read_arrays(self.filepath)
        try:
            state = _unpack(facts, arrays)
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
        groups = _variables(model)
        # Made by the first step of an epoch, in which they are needed.
        state["metrics"] = _of_group(self.filepath, arrays, "metrics", None)
        values = {
            group: _of_group(self.filepath, arrays, group, variables)
            for group, variables in groups.items()
            if group != "metrics"
        }
        for group, of_group in values.items():
            assign(groups[group], of_group)
        super().set_state(state)
        # This one's `freq` may be another than before.
        self._next_step = math.inf
        if isinstance(self.freq, int):
            self._next_step = (step // self.freq + 1) * self.freq
        for callback, saved in zip(
            self._before, state["callbacks"], strict=True
        ):
            _set_state_of(callback, saved)
        if self.dataset is not None:
            self.dataset.batch_order.start_at(state["steps_before_epoch"])
        self._state = state
        self._saved_step = step
        epochs = self.params["epochs"]
        done = epoch >= epochs or (state["finished"] and state["stopped"])
        self._to_pass = 0 if done else to_pass
        model._initial_epoch = max(epoch, epochs) if done else epoch
        if self.verbose and is_first_process():
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
            _set_random_state(state["random"])

    def _pass_by(self, state: dict[str, Any]) -> None:
        """Lets steps that were made before pass without training."""
        model = self.model
        assign(model.metrics_variables, state["metrics"])
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
                _set_random_state(state["random"])
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
                warn(f"BestModelCheckpoint failed in epoch {epoch + 1}", error)

    def _save_if_better(self, value: Any) -> None:
        value = float(value)
        self._check_finite([np.array(value)])
        sign = 1 if self.mode == "min" else -1
        if self.best is not None and not sign * value < sign * self.best:
            return
        model = self.model
        self._check_finite(values_of(model.weights))
        if not is_first_process():
            self.best = value
            return
        found = {"monitor": self.monitor, "mode": self.mode, "best": value}
        with replacing(self.filepath) as temporary:
            with alone():
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


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Lets Keras not wait for other processes when it makes an array."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


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


def _config_of(layer: Any) -> Any:
    try:
        return layer.get_config()
    except NotImplementedError:
        # A layer of the user's, which need not be one that can be saved.
        return type(layer).__name__


def _described(augment: Any) -> Any:
    if augment is None:
        return None
    name = getattr(augment, "__qualname__", type(augment).__qualname__)
    return name, getattr(augment, "get_config", dict)()


def _variables(model: Any) -> dict[str, list[Any]]:
    return {
        "trainable": model.trainable_variables,
        "non_trainable": model.non_trainable_variables,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }


def _build(model: Any, dataset: Any) -> None:
    """Makes the variables that TensorFlow otherwise makes in the first step."""
    if dataset is not None:
        size = dataset.batch_order.batch_size
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
    steps = _of_all_processes(step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"{path}: expected the same file in all processes, on a file "
            f"system that they share. Received: steps {steps}, -1 where there "
            "is no file."
        )


def _count_processes() -> int:
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())


def _of_all_processes(value: int) -> list[int]:
    """Returns what this number is in every process; all have to ask."""
    if _count_processes() == 1:
        return [value]
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.array(value))
    return [int(value) for value in values]


def _random_state() -> dict[str, Any]:
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
    }
    if keras.backend.backend() == "torch":
        import torch

        state["torch"] = torch.get_rng_state().numpy()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if "torch" in state:
        import torch

        torch.set_rng_state(torch.from_numpy(state["torch"]))


def _state_of(callback: Any) -> dict[str, Any]:
    if isinstance(callback, PeriodicCallback):
        return callback.get_state()
    given = inspect.signature(type(callback).__init__).parameters
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in (*given, "params") and _is_plain(value)
    }


def _set_state_of(callback: Any, state: dict[str, Any]) -> None:
    if isinstance(callback, PeriodicCallback):
        callback.set_state(state)
    else:
        vars(callback).update(state)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and _is_plain(part)
            for key, part in value.items()
        )
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(
        value, (bool, int, float, str, np.ndarray, np.generic)
    )


def _pack(value: Any, arrays: dict[str, Array]) -> Any:
    """Returns what JSON can hold, with arrays moved to `arrays`."""
    if isinstance(value, dict):
        return {key: _pack(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [_pack(part, arrays) for part in value]
    if isinstance(value, tuple):
        return {_TUPLE: [_pack(part, arrays) for part in value]}
    if isinstance(value, (np.ndarray, np.generic)):
        name = f"{_ARRAY}/{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {_ARRAY: name}
    return value


def _unpack(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, list):
        return [_unpack(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if _TUPLE in value:
        return tuple(_unpack(part, arrays) for part in value[_TUPLE])
    if _ARRAY in value:
        array = arrays[value[_ARRAY]]
        return array if array.ndim else array[()]
    return {key: _unpack(part, arrays) for key, part in value.items()}


_TUPLE, _ARRAY = "<tuple>", "<array>"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields everything in a description with its path, except names.

    Keras counts up names, so those of a model differ when it is made again.
    """
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield path, value
    else:
        yield path, str(keras.saving.serialize_keras_object(value))
    for key, part in items:
        if key != "name":
            yield from _leaves(part, f"{path}.{key}" if path else str(key))


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


def _sha256(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
