"""Checks of a saved model's configuration and weights."""

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.files.formats import FileFormatError
from keras_lenet.models.ensemble import Ensemble

# Entries that a file may set on a layer. None of them sizes the weights, so no
# file can request more memory than it has bytes.
_LAYER_ENTRIES = frozenset(
    "activation activity_regularizer bias_constraint bias_initializer "
    "bias_regularizer codes data_format dilation_rate dtype fill_value "
    "kernel_constraint kernel_initializer kernel_regularizer lora_alpha "
    "lora_rank offset padding pool_size quantization_config scale strides "
    "trainable use_bias".split()
)

# Entries of a model in an ensemble. Keras would also compile it, with objects
# that nothing has checked.
_MODEL_ENTRIES = frozenset(
    "build_config class_name config module registered_name".split()
)

# A model of an ensemble has 60,000 weights, of half a byte if they are
# quantized.
_LEAST_BYTES = 30_000

_ENTRY_MODULES = (
    "keras",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.quantizers",
    "keras.regularizers",
)


def check_finite(path: Path, model: Any) -> None:
    """Checks that all weights of a model are finite."""
    for weight in model.weights:
        is_finite = np.isfinite(keras.ops.convert_to_numpy(weight)).all()
        _check(is_finite, path, weight.path, "finite", "infinite or NaN values")


def check_config(
    path: Path,
    serialized: dict[str, Any],
    weight_bytes: int,
    base_class: Any,
    expected_class: Any = None,
) -> Any:
    """Checks that a serialized model is safe to load, and returns its class.

    The class must be a registered subclass of `base_class`, or
    `expected_class`, or an `Ensemble` of such models. The model must not need
    more memory than its weights have.
    """
    name = serialized["registered_name"]
    if name == keras.saving.get_registered_name(Ensemble):
        return _check_ensemble(
            path, serialized["config"], weight_bytes, base_class
        )
    model_class = _find_class(name, base_class, expected_class)
    if model_class is None:
        raise FileFormatError(
            path,
            "the model",
            "a LeNet5, an OriginalLeNet5 or an Ensemble of them",
            name,
            "Load other models with `keras.saving.load_model`, and presets of "
            "a subclass with its own `from_preset`.",
        )
    config = serialized["config"]
    own_classes = itertools.takewhile(
        lambda base: base is not keras.Model, inspect.getmro(model_class)
    )
    known = {"trainable", "layer_configs"}.union(
        *(inspect.signature(base).parameters for base in own_classes)
    )
    expected = f"of {model_class.__name__}"
    _check(set(config) <= known, path, "arguments", expected, sorted(config))
    activation = config.get("classifier_activation", "")
    is_name = isinstance(activation, str)
    _check(is_name, path, "classifier_activation", "as a name", activation)
    for entry in _serialized_objects(config.get("dtype")):
        is_policy = (
            entry.get("module") == "keras" and "Policy" in entry["class_name"]
        )
        _check(is_policy, path, "dtype", "as a Keras policy", entry)
    for layer, entries in config.get("layer_configs", {}).items():
        _check_layer_entries(path, layer, entries, weight_bytes)
    shape = config.get("input_shape") or [0]
    # Each channel and each class has at least one weight.
    least = config.get("num_classes", 0) + shape[-1]
    received = f"{least} channels and classes"
    _check(
        least <= weight_bytes, path, "sizes", "that fit its weights", received
    )
    return model_class


def _check_ensemble(
    path: Path, config: dict[str, Any], weight_bytes: int, base_class: Any
) -> type[Ensemble]:
    """Checks each model of an ensemble."""
    known = {"name", "trainable", "models"}
    given = sorted(config)
    _check(known.issuperset(given), path, "arguments", sorted(known), given)
    models = config["models"]
    received = f"{len(models)} models with {weight_bytes} bytes of weights"
    fits = len(models) * _LEAST_BYTES <= weight_bytes
    _check(fits, path, "sizes", "that fit its weights", received)
    for model in models:
        keys = sorted(model)
        allowed = f"with only {sorted(_MODEL_ENTRIES)}"
        _check(_MODEL_ENTRIES.issuperset(keys), path, "a model", allowed, keys)
        check_config(path, model, weight_bytes // len(models), base_class)
    return Ensemble


def _check(
    holds: bool, path: Path, field: str, expected: Any, received: Any
) -> None:
    if not holds:
        raise FileFormatError(path, field, expected, received)


def _find_class(name: str, base_class: Any, expected_class: Any) -> Any:
    """Returns the class with a registered name, or `None`."""
    if (
        expected_class is not None
        and keras.saving.get_registered_name(expected_class) == name
    ):
        return expected_class
    found = keras.saving.get_registered_object(name)
    is_model = isinstance(found, type) and issubclass(found, base_class)
    return found if is_model else None


def _check_layer_entries(
    path: Path, layer: str, entries: dict[str, Any], weight_bytes: int
) -> None:
    """Checks that a layer's changes create only Keras' and our own objects."""
    field, keys = f"layer_configs of {layer}", sorted(entries)
    allowed = f"with only {sorted(_LAYER_ENTRIES)}"
    _check(_LAYER_ENTRIES.issuperset(keys), path, field, allowed, keys)
    for entry in _serialized_objects(entries):
        name = entry.get("registered_name") or ""
        is_safe = entry.get("module") in _ENTRY_MODULES or name.startswith(
            "keras_lenet>"
        )
        _check(is_safe, path, field, "with only objects of Keras", entry)
    rank = entries.get("lora_rank") or 0
    fits = rank <= weight_bytes
    _check(fits, path, "lora_rank", "that fits its weights", rank)


def _serialized_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every object that a configuration would create."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _serialized_objects(part)
