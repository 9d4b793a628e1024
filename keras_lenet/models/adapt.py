"""Copies of models with other arguments."""

from typing import Any

import keras

from keras_lenet.layers import spread_channels
from keras_lenet.models.ensemble import Ensemble
from keras_lenet.validation.arguments import standardize_input_shape

# Entries of a layer's configuration that an argument of the model overrides.
_OVERRIDDEN = {
    "dtype": ("dtype", "quantization_config"),
    "trainable": ("trainable",),
}


def adapt(model: Any, **kwargs: Any) -> Any:
    """Returns a copy of a model with other arguments and the same weights.

    Args:
        model: A `LeNet5`, an `OriginalLeNet5`, or an `Ensemble` of them, each
            of which is adapted.
        **kwargs: Arguments of the model's class. Default to those of `model`.
            If `num_classes` changes, the `output` layer of a `LeNet5` gets new
            weights, and the names of the classes are dropped. Between grey and
            colour images, the first layer's weights are spread over the
            channels, or summed.

    Returns:
        A model of the same class, not compiled.

    Raises:
        ValueError: If the number of channels changes and neither number is 1,
            or the class rejects an argument.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.saving import adapt
    >>> adapt(LeNet5(), num_classes=26).output_shape
    (None, 26)
    """
    if isinstance(model, Ensemble):
        name = kwargs.pop("name", model.name)
        return Ensemble([adapt(each, **kwargs) for each in model.models], name)
    config = {**model.get_config(), **kwargs}
    if config["num_classes"] != model.num_classes:
        config = {**config, "class_names": None, **kwargs}
    changes = {
        name: _without_overridden(name, entries, kwargs)
        for name, entries in config.pop("layer_configs", {}).items()
    }
    if "dtype" in kwargs:
        config["dtype"] = keras.saving.serialize_keras_object(
            keras.dtype_policies.get(kwargs["dtype"])
        )
    if "input_shape" in kwargs:
        config["input_shape"] = standardize_input_shape(kwargs["input_shape"])
    if not config["include_preprocessing"]:
        for name in ("pad_to_32", "rescaling"):
            changes.pop(name, None)
    adapted = type(model).from_config({**config, "layer_configs": changes})
    for layer in adapted.layers:
        if not layer.weights:
            continue
        weights = _weights_for(layer, model.get_layer(layer.name))
        if layer.name == "c1":
            weights[0] = spread_channels(weights[0], adapted.input_shape[-1])
        shapes = [tuple(weight.shape) for weight in layer.weights]
        # The output layer keeps its new weights if `num_classes` changed.
        if layer.name != "output" or shapes == [w.shape for w in weights]:
            layer.set_weights(weights)
    return adapted


def _weights_for(layer: Any, source: Any) -> list[Any]:
    """Returns the weights of `source` in the order of a layer like it."""
    names = [weight.name for weight in layer.weights]
    values = {
        weight.name: value
        for weight, value in zip(
            source.weights, source.get_weights(), strict=True
        )
    }
    # A convolution keeps its bias, unused, if `use_bias` is set to `False`. A
    # dense layer goes on using it.
    if "bias" not in names and (
        isinstance(source, keras.layers.Conv2D)
        or getattr(source, "bias", None) is None
    ):
        values.pop("bias", None)
    # Keras orders the weights of a layer that is built for float8 differently
    # from those of a layer that is quantized later.
    if values.keys() == set(names):
        return [values[name] for name in names]
    return source.get_weights()  # type: ignore[no-any-return]


def _without_overridden(
    layer: str, entries: dict[str, Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Returns a layer's changes without those that an argument overrides."""
    overridden = {
        key for name in arguments for key in _OVERRIDDEN.get(name, ())
    }
    if "classifier_activation" in arguments and layer == "output":
        overridden.add("activation")
    return {k: v for k, v in entries.items() if k not in overridden}
