"""How LeNet-5 is calculated where XLA compiles for a CPU.

Keras calculates the network layer by layer and trains it step by step, and
most of the time goes into memory traffic and into starting operations. Here
are another form of the same function and another way to run the same steps.
`LeNet5` uses them where they were measured to be faster: on a CPU, with
TensorFlow (training) and JAX (everything that is compiled). Elsewhere Keras'
own layers run. `benchmarks/README.md` has the figures.
"""

import itertools
import math
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor

# Of more images, what has to be remembered does not fit into the caches.
_MOST_IMAGES = 256


# TensorFlow has no public way to ask whether a function is traced for XLA.
traced_for_xla: ContextVar[bool] = ContextVar("traced_for_xla", default=False)


def on_cpu() -> bool:
    """Returns whether the backend calculates on a CPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    return False


def is_being_compiled(inputs: Tensor) -> bool:
    """Returns whether XLA is going to compile for a CPU what is called."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return traced_for_xla.get()
    if backend == "jax":
        import jax

        return isinstance(inputs, jax.core.Tracer) and on_cpu()
    return False


def supports_fused_forward(model: Any) -> bool:
    """Returns whether a `LeNet5` has the layers that `forward` computes.

    They may have other data types, be quantized, or changed by the user.
    """
    return model.layers_unchanged() and all(
        layer.dtype_policy.name == "float32"
        for layer in map(model.get_layer, ("c1", "c3", "c5", "f6"))
    )


def forward(model: Any, images: Tensor, training: bool = False) -> Tensor:
    """Calculates what a `LeNet5` of float32 does, the batch as the last axis.

    With images along the last axis, the vector units always have something
    to do: Keras' layout has 6 or 16 maps there. Large batches are calculated
    in parts, whose intermediate results fit into the caches.

    Args:
        model: A `LeNet5`.
        images: Tensor of shape `(batch, height, width, channels)`.
        training: Boolean. Whether gradients will be asked for. Then the parts
            are laid out one after the other; else one is calculated in a
            loop, which takes less time to compile. Defaults to `False`.

    Returns:
        Tensor of shape `(batch, num_classes)`, as `model(images)` is.
    """
    # The last layer may do what depends on the whole batch.
    return model.get_layer("output")(_features(model, images, training))


def _features(model: Any, images: Tensor, training: bool) -> Tensor:
    """Returns what the last layer takes, `(batch, 84)`."""
    count = images.shape[0]
    if not isinstance(count, int) or count <= _MOST_IMAGES:
        return _features_of_part(model, images)
    parts = math.ceil(count / _MOST_IMAGES)
    if not training and count % parts == 0:
        parted = ops.reshape(images, (parts, count // parts, *images.shape[1:]))
        features = ops.map(lambda part: _features_of_part(model, part), parted)
        return ops.reshape(features, (count, -1))
    ends = [count * part // parts for part in range(parts + 1)]
    return ops.concatenate(
        [
            _features_of_part(model, images[start:end])
            for start, end in itertools.pairwise(ends)
        ]
    )


def _features_of_part(model: Any, images: Tensor) -> Tensor:
    c1, c3, c5, f6 = map(model.get_layer, ("c1", "c3", "c5", "f6"))
    # As bytes, before there are more of them.
    x = ops.transpose(images, (3, 1, 2, 0))
    if model.include_preprocessing:
        x = model.get_layer("rescaling")(model.get_layer("pad_to_32")(x))
    x = ops.cast(x, "float32")
    x = _convolve_and_pool(x, c1.kernel, c1.bias)
    x = _convolve_and_pool(x, c3.kernel, c3.bias)
    maps, height, width, _ = x.shape
    x = ops.reshape(x, (maps * height * width, -1))
    # `flatten` puts the maps last, which are first here.
    kernel = ops.reshape(c5.kernel, (height * width, maps, -1))
    kernel = ops.reshape(
        ops.transpose(kernel, (1, 0, 2)), (maps * height * width, -1)
    )
    x = _apply_dense(x, kernel, c5.bias)
    x = _apply_dense(x, f6.kernel, f6.bias)
    return ops.transpose(x)


def _convolve_and_pool(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Does 5x5 convolution, ReLU and 2x2 max-pooling in one product.

    The four pixels that are pooled together see 6x6 pixels. One matrix with
    the kernel at its four places in those gives all four, of which the
    largest is taken before bias and ReLU, which do not change the order.

    Args:
        x: Tensor of shape `(channels, size, size, batch)`.
        kernel: Tensor of shape `(5, 5, channels, maps)`.
        bias: Tensor of shape `(maps,)`.

    Returns:
        Tensor of shape `(maps, size // 2 - 2, size // 2 - 2, batch)`.
    """
    channels, size = x.shape[:2]
    maps = kernel.shape[-1]
    pooled = size // 2 - 2
    span = 2 * pooled - 1
    x = ops.stack([x[:, :, j : j + span : 2] for j in range(6)], axis=1)
    x = ops.stack([x[:, :, i : i + span : 2] for i in range(6)], axis=1)
    x = ops.reshape(x, (channels * 36, -1))

    # As a product: gradients of padding and slicing take longer.
    placed = ops.matmul(_PLACES, ops.reshape(kernel, (25, -1)))
    placed = ops.reshape(placed, (36, 4, channels, maps))
    placed = ops.reshape(
        ops.transpose(placed, (2, 0, 1, 3)), (channels * 36, 4 * maps)
    )
    y = ops.reshape(ops.matmul(ops.transpose(placed), x), (4, maps, -1))
    y = _larger(_larger(y[0], y[1]), _larger(y[2], y[3]))
    y = ops.relu(y + ops.expand_dims(bias, 1))
    return ops.reshape(y, (maps, pooled, pooled, -1))


def _place() -> np.ndarray[Any, Any]:
    """Returns which of 5x5 weights stands where in 6x6, at four places."""
    places = np.zeros((6, 6, 2, 2, 5, 5), "float32")
    for down, right, row, column in np.ndindex(2, 2, 5, 5):
        places[down + row, right + column, down, right, row, column] = 1
    return places.reshape(36 * 4, 25)


_PLACES = _place()


def _larger(a: Tensor, b: Tensor) -> Tensor:
    # As in max-pooling, the first of equal numbers gets the whole gradient,
    # and NaN is not lost. `ops.maximum` gives each a half.
    return ops.where(ops.logical_or(a >= b, ops.isnan(a)), a, b)


def _apply_dense(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return ops.relu(
        ops.matmul(ops.transpose(kernel), x) + ops.expand_dims(bias, 1)
    )
