"""Checks of the configuration of a saved model."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.files.formats import FileFormatError

# What a file may say of a layer. Shapes of weights are not among it, so no
# file can ask for more memory than it has bytes.
_LAYER_ENTRIES = {
    "activation",
    "activity_regularizer",
    "bias_constraint",
    "bias_initializer",
    "bias_regularizer",
    "codes",
    "data_format",
    "dilation_rate",
    "dtype",
    "fill_value",
    "kernel_constraint",
    "kernel_initializer",
    "kernel_regularizer",
    "lora_alpha",
    "lora_rank",
    "offset",
    "padding",
    "pool_size",
    "quantization_config",
    "scale",
    "strides",
    "trainable",
    "use_bias",
}


_MODULES_OF_ENTRIES = (
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
                path, weight.path, "finite", "numbers that are not"
            )


def check_config(
    path: Path,
    outer: dict[str, Any],
    size: int,
    base_class: Any,
    expected_class: Any = None,
) -> Any:
    """Checks that the configuration of a saved model is safe to deserialize.

    Args:
        path: Path of the file, for errors.
        outer: Dict. The serialized model.
        size: Integer. The number of bytes of its weights. The configuration
            must not ask for more memory.
        base_class: Class that the model must derive from.
        expected_class: Class that the model may have, registered or not.

    Returns:
        The class of the model.

    Raises:
        FileFormatError: If anything else is in the configuration.
    """
    model_class = _find_class(
        outer["registered_name"], base_class, expected_class
    )
    if model_class is None:
        raise FileFormatError(
            path,
            "the model",
            "a LeNet5 or OriginalLeNet5, as `keras-lenet train` saves it",
            outer["registered_name"],
            "Load other models by `keras.saving.load_model`, and presets of "
            "a subclass by its own `from_preset`.",
        )
    config = outer["config"]
    known = {
        name
        for base in model_class.__mro__[
            : model_class.__mro__.index(keras.Model)
        ]
        for name in inspect.signature(base).parameters
    }
    if not set(config) <= {*known, "trainable", "layer_configs"}:
        raise FileFormatError(
            path, "arguments", f"of {model_class.__name__}", sorted(config)
        )
    activation = config.get("classifier_activation", "")
    if not isinstance(activation, str):
        raise FileFormatError(
            path, "classifier_activation", "by name", activation
        )
    for made in _objects(config.get("dtype")):
        if made.get("module") != "keras" or "Policy" not in made["class_name"]:
            raise FileFormatError(path, "dtype", "a policy of Keras", made)
    for name, entries in config.get("layer_configs", {}).items():
        _check_layer_entries(path, name, entries, size)
    shape = config.get("input_shape") or [0]
    least = config.get("num_classes", 0) + shape[-1]
    if least > size:
        raise FileFormatError(
            path, "sizes", "of its weights", f"{least} channels and classes"
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
    if isinstance(found, type) and issubclass(found, base_class):
        return found
    return None


def _check_layer_entries(
    path: Path, layer: str, entries: dict[str, Any], size: int
) -> None:
    """Checks that changes of a layer make nothing but what Keras brings."""
    if not set(entries) <= _LAYER_ENTRIES:
        raise FileFormatError(
            path,
            f"layer_configs of {layer}",
            f"of {sorted(_LAYER_ENTRIES)}",
            sorted(entries),
        )
    for made in _objects(entries):
        name = made.get("registered_name") or ""
        if made.get("module") not in _MODULES_OF_ENTRIES and not (
            name.startswith("keras_lenet>")
        ):
            raise FileFormatError(
                path, f"layer_configs of {layer}", "objects of Keras", made
            )
    rank = entries.get("lora_rank") or 0
    if rank > size:
        raise FileFormatError(path, "lora_rank", "of its weights", rank)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects that a configuration would make."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _objects(part)
