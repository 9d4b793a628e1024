"""Models in whose place the programs of other models are compiled."""

import functools
import json
import threading
import warnings
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from keras_lenet.callbacks.isolation import preserve_random_state
from keras_lenet.keras_internals import updates_as_configured
from keras_lenet.types import Tensor

# The most twins that are kept.
_MAX_TWINS = 8

# Keras picks the function for these names by the shape of the labels.
_NAMES_BY_SHAPE = {"accuracy", "acc", "crossentropy", "ce"}

# Losses that are means over the rows of a batch.
_MEAN_LOSSES = {
    "SparseCategoricalCrossentropy",
    "CategoricalCrossentropy",
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
}

# 1 for each row that counts, 0 for the others, of the batch that is traced.
_counts: ContextVar[Tensor | None] = ContextVar("counts", default=None)


class Twin:
    """A model that is built and compiled as others are, and its programs.

    Attributes:
        model: The model. Its weights have no meaning.
        programs: Dict of compiled programs by name.
        lock: To be held by a program that changes the model's variables.
        may_pad: Boolean. Whether the steps can leave out the last rows of a
            batch. Set by `finish`.
        is_finished: Boolean. Whether `finish` was called.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.programs: dict[str, Any] = {}
        self.lock: threading.Lock = threading.Lock()
        self.may_pad: bool = False
        self.is_finished: bool = False

    def finish(self) -> None:
        """Prepares a model that others share, when its metrics are built."""
        self.is_finished = True
        loss, *others = self.model.metrics
        metrics = [
            m for each in others for m in getattr(each, "metrics", [each])
        ]
        self.may_pad = (
            _is_mean(self.model.loss)
            # Rows that count for nothing need one loss each.
            and len(self.model.output_shape) == 2
            and not self.model.get_compile_config()["weighted_metrics"]
            and all(
                isinstance(metric, keras.metrics.MeanMetricWrapper)
                for metric in metrics
            )
        )
        if self.may_pad:
            _wrap_update(loss, _count_loss)
            for metric in metrics:
                _wrap_update(metric, _count_rows)

    def train_step(self, batch: Any, rows: Tensor, *state: Any) -> Any:
        """Calls `train_step` for the first rows of a batch."""
        return self._step(self.model.train_step, batch, rows, state)

    def test_step(self, batch: Any, rows: Tensor, *state: Any) -> Any:
        """Calls `test_step` for the first rows of a batch."""
        return self._step(self.model.test_step, batch, rows, state)

    def _step(self, step: Any, batch: Any, rows: Tensor, state: Any) -> Any:
        if not self.may_pad or not is_pair(batch):
            return step(*state, batch)
        x, y = batch
        size = y.shape[0]
        counts = ops.cast(ops.arange(size, dtype="int32") < rows, "float32")
        weights = counts * (size / ops.cast(rows, "float32"))
        token = _counts.set(counts)
        try:
            return step(*state, (x, y, weights))
        finally:
            _counts.reset(token)


def is_pair(batch: Any) -> bool:
    """Returns whether a batch is an array of images and one of labels."""
    return len(batch) == 2 and all(hasattr(part, "shape") for part in batch)


def _wrap_update(metric: Any, update: Any) -> None:
    metric.update_state = functools.partial(update, metric.update_state)


def _is_mean(loss: Any) -> bool:
    """Returns whether a loss is a mean over the rows of a batch."""
    if isinstance(loss, keras.losses.Loss):
        config = loss.get_config()
        if (
            config["reduction"] != "sum_over_batch_size"
            or config.get("ignore_class") is not None
        ):
            return False
        loss = type(loss).__name__
    return isinstance(loss, str) and loss in _MEAN_LOSSES


def _count_loss(update_state: Any, loss: Tensor, sample_weight: Any) -> Any:
    """Updates the mean loss, weighted by the number of rows."""
    counts = _counts.get()
    if counts is not None:
        sample_weight = ops.sum(counts)
    return update_state(loss, sample_weight=sample_weight)


def _count_rows(
    update_state: Any, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None
) -> Any:
    """Updates a metric with the rows that count."""
    counts = _counts.get()
    if counts is not None:
        sample_weight = counts
    return update_state(y_true, y_pred, sample_weight=sample_weight)


_twins: dict[str, Twin] = {}


def find_twin(model: Any) -> Twin:
    """Returns the twin of a compiled model.

    Models that are built and compiled alike share a twin. A model that may
    depend on something that its configuration does not tell, such as a user's
    loss, is its own twin.
    """
    with warnings.catch_warnings():
        # Keras warns of functions that it would not load again.
        warnings.simplefilter("ignore")
        key = _configuration(model)
    if key is None:
        return Twin(model)
    twin = _twins.pop(key, None) or Twin(_copy(model))
    # Forget the one that was used least recently.
    _twins[key] = twin
    if len(_twins) > _MAX_TWINS:
        del _twins[next(iter(_twins))]
    return twin


def _configuration(model: Any) -> str | None:
    """Returns a text of all that decides a model's programs, or `None`."""
    if (
        not type(model).__module__.startswith("keras_lenet.")
        or not model.layers_unchanged()
    ):
        return None
    built = {**model.get_config(), "name": None}
    # Before Keras 3.11, the configuration is `None` without `compile`.
    compiled = model.get_compile_config() or {}
    compiled["steps_per_execution"] = None
    layers = [
        (layer.trainable, list(map(_settings, layer.variables)))
        for layer in model.layers
    ]
    objects = [model, *model.metrics]
    if model.compiled:
        objects += [model.optimizer, *keras.tree.flatten(model.loss)]
    if (
        not _has_known_names(compiled)
        or not _is_known([built, compiled, layers])
        or any(map(has_own_methods, objects))
    ):
        return None
    if model.compiled:
        optimizer = (compiled["optimizer"] or {}).get("config", {})
        if "learning_rate" not in optimizer or not updates_as_configured(
            model.optimizer, model.trainable_variables
        ):
            return None
        # A number is the value of a variable, and Keras counts up the names.
        optimizer["name"] = None
        if isinstance(optimizer["learning_rate"], float):
            optimizer["learning_rate"] = None
    try:
        return json.dumps(
            [
                type(model).__qualname__,
                built,
                compiled,
                layers,
                keras.config.floatx(),
                keras.config.epsilon(),
            ],
            sort_keys=True,
        )
    except TypeError:
        return None


def _settings(variable: Any) -> list[Any]:
    """Returns what training asks a variable itself, not its layer."""
    serialize = keras.saving.serialize_keras_object
    return [
        variable.trainable,
        serialize(variable.regularizer),
        serialize(variable.constraint),
    ]


def _is_known(config: Any) -> bool:
    """Returns whether a configuration has objects of Keras' or ours only."""
    if isinstance(config, dict):
        if "class_name" in config:
            module = str(config.get("module")).split(".")[0]
            # A function is saved as its name, which may be any function's.
            if module not in ("keras", "keras_lenet"):
                return False
        elif "value" in config:
            # The code of a lambda.
            return False
        return all(map(_is_known, config.values()))
    if isinstance(config, (list, tuple)):
        return all(map(_is_known, config))
    return True


def _has_known_names(compiled: dict[str, Any]) -> bool:
    """Returns whether names of losses and metrics are those of Keras.

    A custom object may be registered under any name.
    """
    named = [(name, keras.losses.get) for name in _names(compiled.get("loss"))]
    for key in ("metrics", "weighted_metrics"):
        names = set(_names(compiled.get(key))) - _NAMES_BY_SHAPE
        named += [(name, keras.metrics.get) for name in names]
    try:
        found = [get(name) for name, get in named]
    except ValueError:
        return False
    return all(each.__module__.startswith("keras.") for each in found)


def _names(config: Any) -> list[str]:
    """Returns the strings of `compile` outside the objects' configurations."""
    if isinstance(config, str):
        return [config]
    if isinstance(config, dict):
        config = [] if "class_name" in config else list(config.values())
    if isinstance(config, (list, tuple)):
        return [name for part in config for name in _names(part)]
    return []


def has_own_methods(thing: Any) -> bool:
    """Returns whether a method was replaced on an object itself."""
    return any(
        callable(value)
        and callable(getattr(type(thing), name, None))
        # Keras itself wraps these.
        and name not in ("build", "quantize")
        for name, value in getattr(thing, "__dict__", {}).items()
    )


def _copy(model: Any) -> Any:
    with preserve_random_state():
        twin = type(model).from_config(model.get_config())
        if model.compiled:
            twin.compile_from_config(model.get_compile_config())
    for layer, original in zip(twin.layers, model.layers, strict=True):
        layer.trainable = original.trainable
        for variable, given in zip(
            layer.variables, original.variables, strict=True
        ):
            variable.trainable = given.trainable
            variable.regularizer = given.regularizer
            variable.constraint = given.constraint
    return twin
