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
    checked_entries,
    parsing,
)
from keras_lenet.presets import read_preset

_MODELS = ("keras_lenet>LeNet5", "keras_lenet>OriginalLeNet5")


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


def load_preset(preset: str | os.PathLike[str]) -> Any:
    """Loads the model of a preset, of whichever class it is.

    Args:
        preset: Name of a preset that comes with the package, or path of a
            folder that `save_to_preset` wrote.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: When there is no such preset.
        FileFormatError: When it is damaged, or something else.

    Example:

    >>> from keras_lenet.saving import load_preset
    >>> load_preset("digits").num_classes
    10
    """
    found = read_preset(preset)
    with parsing(found.path, "a preset"):
        content = found.weights.read_bytes()
        model_class = _model_class(found.path, found.config, len(content))
        check_hdf5(found.weights, content)
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
            anew.

    Returns:
        A model of the same class, not compiled.

    Raises:
        ValueError: When the weights do not fit, since `input_shape` has
            another number of channels, or as the class does.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.saving import adapt
    >>> adapt(LeNet5(), num_classes=26).output_shape
    (None, 26)
    """
    config = {**model.get_config(), "dtype": model.dtype_policy, **kwargs}
    adapted = type(model)(**config)
    for layer in adapted.layers:
        weights = (
            model.get_layer(layer.name).get_weights() if layer.weights else []
        )
        if [array.shape for array in weights] == [
            tuple(weight.shape) for weight in layer.weights
        ]:
            layer.set_weights(weights)
        elif layer.name != "output":
            raise ValueError(
                "`input_shape` must have as many channels as the weights are "
                f"for, {model.input_shape[-1]}. "
                f"Received: input_shape={adapted.input_shape[1:]}"
            )
    return adapted


def _check_finite(path: Path, model: Any) -> None:
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise FileFormatError(
                path, weight.path, "finite", "numbers that are not"
            )


def _model_class(path: Path, outer: dict[str, Any], size: int) -> Any:
    """Returns the class of a model that is no larger than its weights."""
    name = outer["registered_name"]
    if name not in _MODELS:
        raise FileFormatError(
            path,
            "the model",
            "a LeNet5 or OriginalLeNet5, as `keras-lenet train` saves it",
            name,
            "Load other models by `keras.saving.load_model`.",
        )
    # Which imports and so registers it, when nothing else has yet.
    model_class = getattr(keras_lenet, name.removeprefix("keras_lenet>"))
    config = outer["config"]
    known = {*inspect.signature(model_class).parameters, "trainable"}
    if not set(config) <= known:
        raise FileFormatError(
            path, "arguments", f"of {model_class.__name__}", sorted(config)
        )
    activation = config.get("classifier_activation", "")
    if not isinstance(activation, str):
        raise FileFormatError(
            path, "classifier_activation", "by name", activation
        )
    for made in _objects(config["dtype"]):
        if made.get("module") != "keras" or "Policy" not in made["class_name"]:
            raise FileFormatError(path, "dtype", "a policy of Keras", made)
    least = config["num_classes"] + config["input_shape"][-1]
    if least > size:
        raise FileFormatError(
            path, "sizes", "of its weights", f"{least} channels and classes"
        )
    return model_class


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects that a configuration would make."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for part in config.values():
            yield from _objects(part)
