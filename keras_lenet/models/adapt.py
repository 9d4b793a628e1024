"""Models with the weights of another model."""

from typing import Any

import keras

from keras_lenet.layers import spread_channels
from keras_lenet.validation.arguments import standardize_input_shape


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
        config["input_shape"] = standardize_input_shape(kwargs["input_shape"])
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
