"""The forward pass of LeNet-5 where XLA compiles it for a CPU.

Keras computes the network layer by layer and trains it step by step, and spends
most of the time on memory traffic and on starting operations. This module
computes the same function in another form. `LeNet5` uses it where it was
measured to be faster: on a CPU, with TensorFlow (training) and JAX (everything
that is compiled). With PyTorch, `torch_forward` does; elsewhere Keras' own
layers run. `benchmarks/README.md` has the figures.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor

# The intermediate results of larger batches do not fit into the caches.
MAX_PART = 256

# TensorFlow has no public way to ask whether a function is traced for XLA.
_traced_for_xla: ContextVar[bool] = ContextVar("traced_for_xla", default=False)


@contextlib.contextmanager
def tracing_for_xla() -> Iterator[None]:
    """Says that TensorFlow traces a function for XLA."""
    token = _traced_for_xla.set(True)
    try:
        yield
    finally:
        _traced_for_xla.reset(token)


def on_cpu() -> bool:
    """Returns whether the backend computes on a CPU. `False` on PyTorch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    return False


def is_being_compiled(inputs: Tensor) -> bool:
    """Returns whether XLA is compiling the current call for a CPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _traced_for_xla.get()
    if backend == "jax":
        import jax

        return isinstance(inputs, jax.core.Tracer) and on_cpu()
    return False


def supports_fused_forward(model: Any) -> bool:
    """Returns whether `forward` computes what a `LeNet5`'s layers do."""
    return model.layers_unchanged() and all(
        model.get_layer(name).dtype_policy.name == "float32"
        for name in ("c1", "c3", "c5", "f6")
    )


def forward(model: Any, images: Tensor, training: bool = False) -> Tensor:
    """Computes a float32 `LeNet5` with the batch as the last axis.

    A last axis of images keeps the vector units busy; Keras' last axis has 6
    or 16 feature maps. Large batches are split into parts whose intermediate
    results fit into the caches. For `training`, the parts are unrolled;
    otherwise a loop, which compiles faster, computes them.
    """
    # A user's activation may depend on the whole batch.
    return model.get_layer("output")(_features(model, images, training))


def _features(model: Any, images: Tensor, training: bool) -> Tensor:
    """Returns the output of `f6`, of shape `(batch, 84)`."""
    count = images.shape[0]
    if not isinstance(count, int) or count <= MAX_PART:
        return _features_of_part(model, images)
    parts = math.ceil(count / MAX_PART)
    if not training and count % parts == 0:
        split = ops.reshape(images, (parts, count // parts, *images.shape[1:]))
        features = ops.map(lambda part: _features_of_part(model, part), split)
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
    # Transpose before the cast, while a pixel is one byte.
    x = ops.transpose(images, (3, 1, 2, 0))
    if model.include_preprocessing:
        x = model.get_layer("rescaling")(model.get_layer("pad_to_32")(x))
    x = ops.cast(x, "float32")
    x = _convolve_and_pool(x, c1.kernel, c1.bias)
    x = _convolve_and_pool(x, c3.kernel, c3.bias)
    maps, height, width, _ = x.shape
    x = ops.reshape(x, (maps * height * width, -1))
    # `flatten` puts the maps last; here they come first.
    kernel = ops.reshape(c5.kernel, (height * width, maps, -1))
    kernel = ops.reshape(
        ops.transpose(kernel, (1, 0, 2)), (maps * height * width, -1)
    )
    x = _apply_dense(x, kernel, c5.bias)
    x = _apply_dense(x, f6.kernel, f6.bias)
    return ops.transpose(x)


def _convolve_and_pool(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Computes a 5x5 convolution, ReLU and 2x2 max-pooling in one product.

    Four pixels that are pooled together see 6x6 pixels. One matrix with the
    kernel at its four positions in 6x6 computes all four. The maximum is taken
    before bias and ReLU, which preserve the order. The shape of `x` is
    `(channels, size, size, batch)`.
    """
    channels, size = x.shape[:2]
    maps = kernel.shape[-1]
    pooled = size // 2 - 2
    span = 2 * pooled - 1
    x = ops.stack([x[:, :, j : j + span : 2] for j in range(6)], axis=1)
    x = ops.stack([x[:, :, i : i + span : 2] for i in range(6)], axis=1)
    x = ops.reshape(x, (channels * 36, -1))
    placed = ops.transpose(place_kernel(kernel))
    y = ops.reshape(ops.matmul(placed, x), (4, maps, -1))
    # Not `bias` itself: TensorFlow watches variables in another way.
    y = _pool_and_activate(y, ops.expand_dims(bias, 1))
    return ops.reshape(y, (maps, pooled, pooled, -1))


def _kernel_positions() -> np.ndarray[Any, Any]:
    """Returns a 0/1 matrix that puts 5x5 weights at four positions in 6x6."""
    positions = np.zeros((6, 6, 2, 2, 5, 5), "float32")
    for down, right, row, column in np.ndindex(2, 2, 5, 5):
        positions[down + row, right + column, down, right, row, column] = 1
    return positions.reshape(36 * 4, 25)


_POSITIONS = _kernel_positions()


def place_kernel(kernel: Tensor) -> Tensor:
    """Returns a 5x5 kernel at its four positions in 6x6.

    Args:
        kernel: Tensor of shape `(5, 5, channels, maps)`.

    Returns:
        Tensor of shape `(channels * 36, 4 * maps)`.
    """
    channels, maps = kernel.shape[2:]
    # Gradients of a product are faster than those of padding and slicing.
    placed = ops.matmul(_POSITIONS, ops.reshape(kernel, (25, -1)))
    placed = ops.reshape(placed, (36, 4, channels, maps))
    placed = ops.transpose(placed, (2, 0, 1, 3))
    return ops.reshape(placed, (channels * 36, 4 * maps))


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _pool_and_activate(y: Tensor, bias: Tensor) -> Any:
    """Computes the maximum of four values, then bias and ReLU.

    XLA compiles this gradient, which needs only the place of the maximum, in
    less time than those of three maxima and ReLU.
    """
    places = [np.uint8(place) for place in range(5)]
    upper = _larger((y[0], places[0]), (y[1], places[1]))
    lower = _larger((y[2], places[2]), (y[3], places[3]))
    largest, place = _larger(upper, lower)
    activated = ops.relu(largest + bias)
    place = ops.where(activated > 0, place, places[4])

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            ops.where(place == each, upstream, ops.zeros_like(upstream))
            for each in places[:4]
        ]
        passed = ops.where(
            place == places[4], ops.zeros_like(upstream), upstream
        )
        return ops.stack(parts), ops.sum(passed, axis=1, keepdims=True)

    return activated, gradient


def _larger(one: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Returns the larger value and its place.

    As in max-pooling, the first of equal values is the largest, and so is NaN.
    """
    is_first = ops.logical_or(one[0] >= other[0], ops.isnan(one[0]))
    return (
        ops.where(is_first, one[0], other[0]),
        ops.where(is_first, one[1], other[1]),
    )


def _apply_dense(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return ops.relu(
        ops.matmul(ops.transpose(kernel), x) + ops.expand_dims(bias, 1)
    )
