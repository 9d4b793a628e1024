"""What plots ask of a model: its layers, their outputs, its probabilities."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_lenet.types import Array, Tensor

# The images of which the outputs of a layer are computed at once.
_BATCH_SIZE = 256


def get_layer(model: Any, name: str, argument: str) -> Any:
    """Returns a layer, or raises an error that lists the names."""
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        raise ValueError(
            f"`{argument}` must name layers of the model, which has "
            f"{list(layers)}. Received: {name!r}"
        )
    return layers[name]


def check_graph(model: Any) -> None:
    """Checks that a model has one input for images, and one output."""
    inputs = getattr(model, "inputs", None) or []
    outputs = getattr(model, "outputs", None) or []
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            "`model` must be a functional model or a built `keras.Sequential` "
            "with one output, whose only input is images of shape (batch, "
            f"height, width, channels). Received: model={model!r} with inputs "
            f"{inputs} and outputs {outputs}"
        )


def check_classifier(model: Any) -> None:
    """Checks that a model takes images and returns a number per class."""
    check_graph(model)
    shape = tuple(model.outputs[0].shape)
    if len(shape) != 2 or shape[1] == 1:
        raise ValueError(
            "`model` must return one number per class, of shape (batch, "
            "num_classes) with at least 2 classes. Received: "
            f"model={model.name!r} with outputs of shape {shape}"
        )


def standardize_images(
    model: Any, images: npt.ArrayLike, argument: str = "images"
) -> Array:
    """Returns images with a channel axis, checked for a model."""
    expected = tuple(model.inputs[0].shape[1:])
    pixels = np.asarray(images)
    if expected[-1] == 1 and pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    fits = pixels.ndim == 4 and all(
        size in (None, given)
        for size, given in zip(expected, pixels.shape[1:], strict=True)
    )
    if not fits or pixels.size == 0 or pixels.shape[-1] not in (1, 3):
        shape, wanted = pixels.shape, ("n", *expected)
        if argument == "image":
            shape, wanted = shape[1:], wanted[1:]
        raise ValueError(
            f"`{argument}` must have the shape {wanted}, with 1 or 3 channels, "
            f"as the model takes them. Received: {argument} of shape "
            f"{shape}".replace("'", "")
        )
    if pixels.dtype.kind not in "iuf" or not np.isfinite(pixels).all():
        raise ValueError(
            f"`{argument}` must be finite numbers. Received: {argument} of "
            f"dtype {pixels.dtype}"
        )
    return pixels


def predict(model: Any, images: Array) -> Array:
    """Returns a model's outputs for one batch, as float32."""
    # `predict` would leave PyTorch modules in another mode.
    return np.asarray(model.predict_on_batch(images), "float32")


def to_probabilities(model: Any, outputs: Array) -> Array:
    """Returns the outputs if they are probabilities, or their softmax."""
    if are_probabilities(model, outputs):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def are_probabilities(model: Any, outputs: Array) -> bool:
    """Returns whether a model's outputs are probabilities."""
    import keras

    activation = getattr(model.layers[-1], "activation", None)
    return activation is keras.activations.sigmoid or bool(
        outputs.min() >= 0 and np.allclose(outputs.sum(axis=1), 1, atol=0.01)
    )


def make_function(model: Any, outputs: Any) -> Callable[[Any], Any]:
    """Returns a function that computes tensors of a model's graph."""
    import keras

    try:
        # Keras numbers models without a name, which renames later ones.
        part = keras.Model(model.inputs[0], outputs, name="part")
    except ValueError as error:
        parts = [m.name for m in model.layers if isinstance(m, keras.Model)]
        if parts:
            raise ValueError(
                "`model` must not consist of other models. Plot one of them, "
                f"`model.get_layer({parts[0]!r})`. Received: a model of {parts}"
            ) from error
        raise ValueError(
            "`model` must not share layers with a model that was built "
            "before. Copy it with `keras.models.clone_model` and "
            f"`set_weights`. Received: model={model!r}"
        ) from error
    return lambda inputs: part(inputs, training=False)


def compute_layers(
    model: Any, layers: Sequence[Any], images: Array
) -> list[Array]:
    """Returns the outputs of layers, as float32."""
    import keras

    compute = make_function(model, [layer.output for layer in layers])
    batches = (
        compute(images[start : start + _BATCH_SIZE])
        for start in range(0, len(images), _BATCH_SIZE)
    )
    # Keras returns the only tensor of a list without the list.
    parts = zip(*map(keras.tree.flatten, batches), strict=True)
    return [np.concatenate(list(map(to_numpy, part))) for part in parts]


def to_numpy(tensor: Tensor) -> Array:
    """Returns a tensor as float32, which NumPy knows unlike bfloat16."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))
