"""Checks of a saved model's configuration and weights."""

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.files.formats import FileFormatError

# Entries that a file may set on a layer. None of them sizes the weights, so no
# file can request more memory than it has bytes.
_LAYER_ENTRIES = frozenset(
    "activation activity_regularizer bias_constraint bias_initializer "
    "bias_regularizer codes data_format dilation_rate dtype fill_value "
    "kernel_constraint kernel_initializer kernel_regularizer lora_alpha "
    "lora_rank offset padding pool_size quantization_config scale strides "
    "trainable use_bias".split()
)

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
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise FileFormatError(
                path, weight.path, "finite", "infinite or NaN values"
            )


def check_config(
    path: Path,
    serialized: dict[str, Any],
    weight_bytes: int,
    base_class: Any,
    expected_class: Any = None,
) -> Any:
    """Checks that a serialized model is safe to deserialize.

    It must be of a registered subclass of `base_class` or of `expected_class`,
    and must not request more memory than its weights have bytes.

    Returns:
        The class of the model.

    Raises:
        FileFormatError: If the configuration is anything else.
    """
    name = serialized["registered_name"]
    model_class = _find_class(name, base_class, expected_class)
    if model_class is None:
        raise FileFormatError(
            path,
            "the model",
            "a LeNet5 or OriginalLeNet5, as `keras-lenet train` saves it",
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
    if not set(config) <= known:
        raise FileFormatError(
            path, "arguments", f"of {model_class.__name__}", sorted(config)
        )
    activation = config.get("classifier_activation", "")
    if not isinstance(activation, str):
        raise FileFormatError(
            path, "classifier_activation", "as a name", activation
        )
    for entry in _serialized_objects(config.get("dtype")):
        module, class_name = entry.get("module"), entry["class_name"]
        if module != "keras" or "Policy" not in class_name:
            raise FileFormatError(path, "dtype", "as a Keras policy", entry)
    for layer, entries in config.get("layer_configs", {}).items():
        _check_layer_entries(path, layer, entries, weight_bytes)
    shape = config.get("input_shape") or [0]
    # Each channel and each class has at least one weight.
    least = config.get("num_classes", 0) + shape[-1]
    if least > weight_bytes:
        raise FileFormatError(
            path,
            "sizes",
            "that fit its weights",
            f"{least} channels and classes",
        )
    return model_class


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
    field = f"layer_configs of {layer}"
    if not set(entries) <= _LAYER_ENTRIES:
        allowed = f"with only {sorted(_LAYER_ENTRIES)}"
        raise FileFormatError(path, field, allowed, sorted(entries))
    for entry in _serialized_objects(entries):
        name = entry.get("registered_name") or ""
        if entry.get("module") not in _ENTRY_MODULES and not (
            name.startswith("keras_lenet>")
        ):
            raise FileFormatError(
                path, field, "with only objects of Keras", entry
            )
    rank = entries.get("lora_rank") or 0
    if rank > weight_bytes:
        raise FileFormatError(path, "lora_rank", "that fits its weights", rank)


def _serialized_objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every object that a configuration would create."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _serialized_objects(part)
