"""LeNet-5 in NumPy, for a few images at a time.

A framework takes longer to start its operations than one image takes to
compute. As in `fused_forward`, four positions of a kernel that are pooled
together are one product.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from keras_lenet.layers import padding
from keras_lenet.models.fused_forward import place_kernel
from keras_lenet.types import Array

# The intermediate results of more images do not fit into the caches.
_MAX_PART = 64


def supports(model: Any) -> bool:
    """Returns whether `make_predict` computes what the layers do."""
    return model.classifier_activation in (
        keras.activations.softmax,
        keras.activations.linear,
    )


def make_predict(model: Any) -> Callable[[Array], Array]:
    """Returns a function of images that has a copy of a float32 `LeNet5`.

    Args:
        model: A `LeNet5` whose layers are unchanged.

    Returns:
        Function that takes an array of shape `(batch, height, width, channels)`
        and returns a float32 array of shape `(batch, num_classes)`.
    """
    weights = {
        layer.name: [np.array(w, "float32") for w in layer.get_weights()]
        for layer in model.layers
        if layer.weights
    }
    height, width, channels = model.input_shape[1:]
    (top, _), (left, _) = padding(model.input_shape)[-3:-1]
    inside = slice(top, top + height), slice(left, left + width)
    convolutions = [
        (keras.ops.convert_to_numpy(place_kernel(kernel)), bias)
        for kernel, bias in (weights["c1"], weights["c3"])
    ]
    if model.include_preprocessing:
        kernel, bias = convolutions[0]
        scale = np.float32(model.get_layer("rescaling").scale)
        convolutions[0] = kernel * scale, bias
    is_softmax = model.classifier_activation is keras.activations.softmax

    def predict_part(images: Array) -> Array:
        x: Array = np.zeros((len(images), 32, 32, channels), "float32")
        x[:, inside[0], inside[1]] = images
        for kernel, bias in convolutions:
            x = _convolve_and_pool(x, kernel, bias)
        x = x.reshape(len(x), -1)
        for name in ("c5", "f6"):
            kernel, bias = weights[name]
            x = np.maximum(x @ kernel + bias, 0)
        kernel, bias = weights["output"]
        x = x @ kernel + bias
        if is_softmax:
            x = np.exp(x - x.max(axis=1, keepdims=True))
            x /= x.sum(axis=1, keepdims=True)
        return x

    def predict(images: Array) -> Array:
        if len(images) <= _MAX_PART:
            return predict_part(images)
        starts = range(0, len(images), _MAX_PART)
        return np.concatenate(
            [predict_part(images[i : i + _MAX_PART]) for i in starts]
        )

    return predict


def _convolve_and_pool(x: Array, kernel: Array, bias: Array) -> Array:
    """Computes a 5x5 convolution, 2x2 max-pooling and ReLU."""
    patches = sliding_window_view(x, (6, 6), axis=(1, 2))[:, ::2, ::2]
    count, rows, columns = patches.shape[:3]
    y = patches.reshape(-1, len(kernel)) @ kernel
    y = y.reshape(-1, 4, len(bias))
    y = np.maximum(np.maximum(y[:, 0], y[:, 1]), np.maximum(y[:, 2], y[:, 3]))
    y = np.maximum(y + bias, 0)
    return np.reshape(y, (count, rows, columns, -1))
