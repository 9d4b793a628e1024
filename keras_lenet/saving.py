"""Loading models of this package, all of one or nothing."""

import inspect
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lenet
from keras_lenet.files import (
    BEST_VALUE,
    FileFormatError,
    check_hdf5,
    check_kind,
    checked_entries,
    parsing,
)
from keras_lenet.layers import spread_channels
from keras_lenet.presets import read_preset
from keras_lenet.validation import checked_input_shape

_MODELS = ("keras_lenet>LeNet5", "keras_lenet>OriginalLeNet5")

# What a file may say of a layer. Shapes of weights are not among it, so no
# file can ask for more memory than it has bytes.
_LAYER_ENTRIES = {
    "activation",
    "activity_regularizer",
    "bias_constraint",
    "bias_initializer",
    "bias_regularizer",
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


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a model from a `.keras` file that anybody may have made.

    `keras.saving.load_model` makes whatever registered class the file asks
    for, of any size. Here nothing but a `LeNet5` or an `OriginalLeNet5` is
    loaded, all of it or nothing: checksums, sizes and links are checked before.

    Args:
        path: Path of the file, as `model.save` writes it.

    Returns:
        The model, not compiled.

    Raises:
        FileFormatError: When it is something else, or damaged, or a weight is
            not finite. It is a `ValueError`.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.saving import load_model
    >>> path = getfixture("tmp_path") / "model.keras"
    >>> LeNet5(num_classes=26).save(path)
    >>> load_model(path).num_classes
    26
    """
    path = Path(path)
    check_kind(path, "a `.keras` file", "a zip archive")
    with path.open("rb") as file, parsing(path, "a `.keras` file"):
        with zipfile.ZipFile(file) as archive:
            entries = checked_entries(path, archive)
            # To read to the end compares the checksum.
            contents = {e.filename: archive.read(e) for e in entries}
        expected = {"config.json", "metadata.json", "model.weights.h5"}
        if set(contents) - {BEST_VALUE} != expected:
            raise FileFormatError(
                path, "the entries", sorted(expected), sorted(contents)
            )
        weights = contents["model.weights.h5"]
        _model_class(path, json.loads(contents["config.json"]), len(weights))
        check_hdf5(path, weights)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        _check_finite(path, model)
    return model


def load_preset(preset: str | os.PathLike[str], model_class: Any = None) -> Any:
    """Loads the model of a preset.

    Args:
        preset: Name of a preset that comes with the package, or path of a
            folder that `save_to_preset` wrote.
        model_class: Class of the model. A subclass of the class that was
            saved gets its weights. Defaults to the class that was saved.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: When there is no such preset, or it has the weights of
            another class.
        FileFormatError: When it is damaged, or something else.

    Example:

    >>> from keras_lenet.saving import load_preset
    >>> load_preset("digits").num_classes
    10
    """
    found = read_preset(preset)
    with parsing(found.path, "a preset"):
        content = found.weights.read_bytes()
        saved_class = _model_class(
            found.path, found.config, len(content), model_class
        )
        check_hdf5(found.weights, content)
    if model_class is None or issubclass(saved_class, model_class):
        model_class = saved_class
    elif not issubclass(model_class, saved_class):
        raise ValueError(
            f"`preset` must be one of a {model_class.__name__}. Received: "
            f"preset={os.fspath(preset)!r}, a {saved_class.__name__}."
        )
    with parsing(found.path, "a preset"):
        model = model_class.from_config(found.config["config"])
        model.load_weights(found.weights)
        _check_finite(found.weights, model)
    return model


def adapt(model: Any, **kwargs: Any) -> Any:
    """Makes a model with the weights of another and other arguments.

    Args:
        model: A `LeNet5` or an `OriginalLeNet5`.
        **kwargs: Arguments of its class; the others are those of `model`.
            With another `num_classes` the `output` layer of a `LeNet5` starts
            again. Between grey and colour images, the weights of the first
            layer are spread over the channels, or summed.

    Returns:
        A model of the same class, not compiled.

    Raises:
        ValueError: If neither the weights nor `input_shape` are for grey
            images, or as the class does.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.saving import adapt
    >>> adapt(LeNet5(), num_classes=26).output_shape
    (None, 26)
    """
    config = {**model.get_config(), **kwargs}
    # An argument wins over what was changed on the layers.
    changes = {
        name: _without_what_arguments_say(name, entries, kwargs)
        for name, entries in config.pop("layer_configs", {}).items()
    }
    if "dtype" in kwargs:
        config["dtype"] = keras.saving.serialize_keras_object(
            keras.dtype_policies.get(kwargs["dtype"])
        )
    if "input_shape" in kwargs:
        config["input_shape"] = checked_input_shape(kwargs["input_shape"])
    if not config["include_preprocessing"]:
        for name in ("pad_to_32", "rescaling"):
            changes.pop(name, None)
    adapted = type(model).from_config({**config, "layer_configs": changes})
    for layer in adapted.layers:
        weights = (
            model.get_layer(layer.name).get_weights() if layer.weights else []
        )
        if layer.name == "c1":
            weights[0] = spread_channels(weights[0], adapted.input_shape[-1])
        shapes = [tuple(weight.shape) for weight in layer.weights]
        # With another number of classes, the last layer starts again.
        if layer.name != "output" or shapes == [w.shape for w in weights]:
            layer.set_weights(weights)
    return adapted


def _without_what_arguments_say(
    name: str, entries: dict[str, Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Returns changes of a layer that no argument of the model overrides."""
    overridden = set()
    if "dtype" in arguments:
        overridden |= {"dtype", "quantization_config"}
    if "trainable" in arguments:
        overridden.add("trainable")
    if "classifier_activation" in arguments and name == "output":
        overridden.add("activation")
    return {
        key: value for key, value in entries.items() if key not in overridden
    }


def _check_finite(path: Path, model: Any) -> None:
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise FileFormatError(
                path, weight.path, "finite", "numbers that are not"
            )


def _model_class(
    path: Path, outer: dict[str, Any], size: int, expected: Any = None
) -> Any:
    """Returns the class of a model that is no larger than its weights."""
    model_class = _named_class(outer["registered_name"], expected)
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


def _named_class(name: str, expected: Any) -> Any:
    """Returns the class of this registered name, if it is of this package.

    Subclasses of users are found where they are registered, or asked for.
    """
    if name in _MODELS:
        # This imports and so registers it, when nothing else has yet.
        return getattr(keras_lenet, name.removeprefix("keras_lenet>"))
    if (
        expected is not None
        and keras.saving.get_registered_name(expected) == name
    ):
        return expected
    found = keras.saving.get_registered_object(name)
    ours = (keras_lenet.LeNet5, keras_lenet.OriginalLeNet5)
    is_ours = isinstance(found, type) and issubclass(found, ours)
    return found if is_ours else None


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
