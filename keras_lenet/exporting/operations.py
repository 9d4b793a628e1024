"""A model as a list of simple operations, for formats that are written here."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lenet.layers import PadTo32
from keras_lenet.original.layers import (
    TableConv2D,
    TrainableSubsampling2D,
    scaled_tanh,
)
from keras_lenet.original.rbf import EuclideanRBF
from keras_lenet.types import Array


class Pad(NamedTuple):
    """Adds rows and columns of a value, `(before, after)` for each axis."""

    name: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    value: float


class Scale(NamedTuple):
    """Computes `factor * x + offset`."""

    name: str
    factor: float
    offset: float


class Convolution(NamedTuple):
    """A convolution without padding. `kernel` is `(rows, columns, in, out)`."""

    name: str
    kernel: Array
    bias: Array
    activation: str


class MaxPooling(NamedTuple):
    """Takes the maximum of 2x2 pixels."""

    name: str


class Subsampling(NamedTuple):
    """Sums 2x2 pixels, times a coefficient of each map, plus its bias."""

    name: str
    coefficients: Array
    bias: Array
    activation: str


class Dense(NamedTuple):
    """Computes `activation(x @ kernel + bias)`."""

    name: str
    kernel: Array
    bias: Array
    activation: str


class Distances(NamedTuple):
    """Computes the negative squared distances to the rows of `codes`."""

    name: str
    codes: Array


class Softmax(NamedTuple):
    """Turns logits into probabilities."""

    name: str


Operation = (
    Pad
    | Scale
    | Convolution
    | MaxPooling
    | Subsampling
    | Dense
    | Distances
    | Softmax
)


def operations(model: Any, logits: bool = False) -> list[Operation]:
    """Returns what a model computes, from raw pixels to probabilities.

    Args:
        model: A `LeNet5` or `OriginalLeNet5` with float32 layers and with
            preprocessing.
        logits: Boolean. Whether to leave out the softmax at the end.

    Returns:
        List of operations. The last one is `Softmax`, unless `logits=True`.

    Raises:
        ValueError: If a layer was changed, the images are larger than 32x32, or
            the last activation is neither softmax nor linear.
    """
    if not model.layers_unchanged():
        raise ValueError(
            "`model` must have the layers of its class for this format. "
            "Received: a model with changed or quantized layers. Use the "
            "format saved_model or litert."
        )
    if len(model.output_shape) != 2:
        raise ValueError(
            "`model` must return one output for each class. "
            f"Received: a model with outputs of shape {model.output_shape}"
        )
    found: list[Operation] = []
    for layer in model.layers:
        found.extend(_operations_of(layer))
    if isinstance(found[-1], Dense) and found[-1].activation == "softmax":
        found[-1] = found[-1]._replace(activation="linear")
    elif getattr(found[-1], "activation", "linear") != "linear":
        raise ValueError(
            "`classifier_activation` must be 'softmax' or `None` for this "
            f"format. Received: {model.classifier_activation!r}"
        )
    return found if logits else [*found, Softmax("probabilities")]


def _operations_of(layer: Any) -> list[Operation]:
    name = layer.name
    if isinstance(layer, PadTo32):
        _, height, width, _ = layer.input.shape
        rows, columns = (
            ((32 - size) // 2, (33 - size) // 2) for size in (height, width)
        )
        return [Pad(name, rows, columns, float(layer.fill_value))]
    if isinstance(layer, keras.layers.Rescaling):
        # The negative distances of `OriginalLeNet5`.
        if layer.scale == -1:
            return []
        return [Scale(name, float(layer.scale), float(layer.offset))]
    if isinstance(layer, EuclideanRBF):
        return [Distances(name, layer.codes.astype("float32"))]
    if isinstance(layer, keras.layers.MaxPooling2D):
        return [MaxPooling(name)]
    if isinstance(layer, (keras.layers.InputLayer, keras.layers.Flatten)):
        return []
    weights = [np.asarray(keras.ops.convert_to_numpy(w)) for w in layer.weights]
    kernel, bias = weights
    activation = _name_of(layer.activation)
    if isinstance(layer, TrainableSubsampling2D):
        return [Subsampling(name, kernel, bias, activation)]
    if isinstance(layer, (keras.layers.Conv2D, TableConv2D)):
        return [
            Convolution(name, _full_kernel(layer, kernel), bias, activation)
        ]
    return [Dense(name, kernel, bias, activation)]


def _name_of(activation: Any) -> str:
    if activation is scaled_tanh:
        return "scaled_tanh"
    return str(getattr(activation, "__name__", activation))


def _full_kernel(layer: Any, kernel: Array) -> Array:
    """Returns a kernel with zeros where a table does not connect maps."""
    if kernel.ndim == 4:
        return kernel
    channels = layer.input.shape[-1]
    full = np.zeros((*kernel.shape[:2], channels, len(layer.table)), "float32")
    pairs = [(s, t) for t, sources in enumerate(layer.table) for s in sources]
    for index, (source, target) in enumerate(pairs):
        full[:, :, source, target] = kernel[:, :, index]
    return full
