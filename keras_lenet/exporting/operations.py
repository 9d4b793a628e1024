"""A model as a list of simple operations, for formats that are written here."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lenet.layers import PadTo32, padding
from keras_lenet.original.layers import (
    TableConv2D,
    TrainableSubsampling2D,
    scaled_tanh,
)
from keras_lenet.original.rbf import EuclideanRBF
from keras_lenet.types import Array

# The shape of an operation's values, without the batch and channels last.
Shape = tuple[int, ...]


class Pad(NamedTuple):
    """Adds rows and columns of a value, `(before, after)` for each axis."""

    name: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    value: float
    shape: Shape


class Scale(NamedTuple):
    """Computes `factor * x + offset`."""

    name: str
    factor: float
    offset: float
    shape: Shape


class Convolution(NamedTuple):
    """A convolution without padding. `kernel` is `(rows, columns, in, out)`."""

    name: str
    kernel: Array
    bias: Array
    activation: str
    shape: Shape


class MaxPooling(NamedTuple):
    """Takes the maximum of 2x2 pixels."""

    name: str
    shape: Shape


class Subsampling(NamedTuple):
    """Sums 2x2 pixels, times a coefficient of each map, plus its bias."""

    name: str
    coefficients: Array
    bias: Array
    activation: str
    shape: Shape


class Dense(NamedTuple):
    """Computes `activation(x @ kernel + bias)`."""

    name: str
    kernel: Array
    bias: Array
    activation: str
    shape: Shape


class Distances(NamedTuple):
    """Computes the negative squared distances to the rows of `codes`."""

    name: str
    codes: Array
    shape: Shape


class Softmax(NamedTuple):
    """Turns logits into probabilities."""

    name: str
    shape: Shape


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
        ValueError: If a layer was changed, or the last activation is neither
            softmax nor linear.
    """
    if not model.layers_unchanged():
        raise ValueError(
            "`model` must have the layers of its class for this format. "
            "Received: a model with changed or quantized layers. Use the "
            "format saved_model or litert."
        )
    found = [
        operation
        for operation in map(_operation_of, model.layers)
        if operation is not None
    ]
    if isinstance(found[-1], Dense) and found[-1].activation == "softmax":
        found[-1] = found[-1]._replace(activation="linear")
    elif getattr(found[-1], "activation", "linear") != "linear":
        raise ValueError(
            "`classifier_activation` must be 'softmax' or `None` for this "
            f"format. Received: {model.classifier_activation!r}"
        )
    return (
        found if logits else [*found, Softmax("probabilities", found[-1].shape)]
    )


def _operation_of(layer: Any) -> Operation | None:
    """Returns what a layer computes, or `None` if that is nothing."""
    name, shape = layer.name, tuple(layer.output.shape[1:])
    if isinstance(layer, PadTo32):
        rows, columns = padding(layer.input.shape)[-3:-1]
        return Pad(name, rows, columns, float(layer.fill_value), shape)
    if isinstance(layer, keras.layers.Rescaling):
        # `Distances` are negative already.
        if layer.scale == -1:
            return None
        return Scale(name, float(layer.scale), float(layer.offset), shape)
    if isinstance(layer, EuclideanRBF):
        return Distances(name, layer.codes.astype("float32"), shape)
    if isinstance(layer, keras.layers.MaxPooling2D):
        return MaxPooling(name, shape)
    if isinstance(layer, (keras.layers.InputLayer, keras.layers.Flatten)):
        return None
    kernel, bias = map(keras.ops.convert_to_numpy, layer.weights)
    activation = _name_of(layer.activation)
    if isinstance(layer, TrainableSubsampling2D):
        return Subsampling(name, kernel, bias, activation, shape)
    if isinstance(layer, (keras.layers.Conv2D, TableConv2D)):
        kernel = _full_kernel(layer, kernel)
        return Convolution(name, kernel, bias, activation, shape)
    # In `OriginalLeNet5`, values of 1x1 pixels are flattened after F6.
    return Dense(name, kernel, bias, activation, shape[-1:])


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
