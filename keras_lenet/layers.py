"""`PadTo32`, and first-layer kernels for grey and colour images."""

from typing import Any

import keras
import numpy as np

from keras_lenet.keras_internals import DataLayer
from keras_lenet.types import Array, Tensor
from keras_lenet.validation.arguments import (
    check_positive_integer,
    is_finite_number,
)

_FIELD = 32


@keras.saving.register_keras_serializable(package="keras_lenet")
class PadTo32(DataLayer):
    """Centres images of up to 32x32 pixels on a 32x32 field.

    LeNet-5 reads a field of 32x32 pixels, larger than the largest character,
    so that the ends of strokes can appear in the centre of the receptive field
    of its highest feature detectors
    (https://doi.org/10.1109/5.726791, section II-B). MNIST's images have
    28x28 pixels. If an odd number of rows or columns is missing, the extra one
    is added at the bottom or the right. Images of 32x32 pass unchanged.

    The layer can be used inside a `tf.data` pipeline on every backend.

    Args:
        fill_value: Number. The value of the added pixels, in the units of the
            images, normally that of their background. Defaults to `0.0`.
        **kwargs: `name` and `dtype`, as for any Keras layer. Images are cast
            to the compute dtype; `dtype="uint8"` keeps pixels as bytes.

    Input shape:
        `(..., height, width, channels)`, height and width known, from 1 to 32.

    Output shape:
        `(..., 32, 32, channels)`.

    Raises:
        ValueError: If `fill_value` is not finite or not a value of the compute
            dtype, if images have no pixels or are larger than 32x32, or if
            their size is unknown or their channels are missing.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import PadTo32
    >>> images = np.ones((2, 28, 28, 1), "uint8")
    >>> padded = PadTo32(dtype="uint8")(images)
    >>> tuple(padded.shape)
    (2, 32, 32, 1)
    """

    def __init__(self, fill_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not is_finite_number(fill_value):
            raise ValueError(
                "`fill_value` must be a finite number. "
                f"Received: fill_value={fill_value!r}"
            )
        if not keras.backend.is_float_dtype(self.compute_dtype):
            limits = np.iinfo(self.compute_dtype)
            if (
                not limits.min <= fill_value <= limits.max
                or int(fill_value) != fill_value
            ):
                raise ValueError(
                    f"`fill_value` must be a value of {self.compute_dtype}. "
                    f"Received: fill_value={fill_value!r}"
                )
        self.fill_value = fill_value

    def __call__(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        # Check here, because Keras fails on shapes of unknown rank, as
        # `tf.numpy_function` returns them, before it calls `call`.
        if hasattr(inputs, "shape"):
            padding(inputs.shape)
        return super().__call__(inputs, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        # Keras casts bytes in a TensorFlow graph, but not eagerly.
        inputs = self.backend.cast(inputs, self.compute_dtype)
        fill_value = self.fill_value
        if not keras.backend.is_float_dtype(self.compute_dtype):
            fill_value = int(fill_value)
        return self.backend.numpy.pad(
            inputs, padding(inputs.shape), constant_values=fill_value
        )

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        padding(input_shape)
        return (*input_shape[:-3], _FIELD, _FIELD, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fill_value": self.fill_value}


def padding(shape: Any) -> list[tuple[int, int]]:
    """Returns the number of pixels to add before and after, for every axis."""
    # TensorFlow's shapes of unknown rank have no length.
    rank = shape.rank if hasattr(shape, "rank") else len(shape)
    size = () if rank is None or rank < 3 else tuple(shape[-3:-1])
    if not size:
        advice = "Add the channels, e.g. with `images[..., np.newaxis]`."
    elif None in size:
        advice = "Set the size with `keras.Input(shape)` or `tf.ensure_shape`."
    elif not all(1 <= pixels <= _FIELD for pixels in size):
        advice = "Resize them first with `keras.layers.Resizing(32, 32)`."
    else:
        missing = [_FIELD - pixels for pixels in size]
        return [
            *[(0, 0)] * (rank - 3),
            *[(pixels // 2, pixels - pixels // 2) for pixels in missing],
            (0, 0),
        ]
    raise ValueError(
        "`PadTo32` expects images of shape (..., height, width, channels), "
        "with a known height and width, at least 1x1 and at most 32x32 "
        f"pixels. Received: inputs of shape {shape}. {advice}"
    )


def spread_channels(kernel: Array, channels: int) -> Array:
    """Adapts the kernel of a first convolution to other image channels.

    From grey to colour, each weight is divided evenly among the channels. From
    colour to grey, weights are summed over the channels. A grey image then
    gives the same sums as before if it is repeated in all channels.

    Args:
        kernel: Array of shape `(height, width, channels, maps)`, as in
            `keras.layers.Conv2D`, or in a `TableConv2D` without a table.
        channels: Integer. The number of channels of the images.

    Returns:
        Array of shape `(height, width, channels, maps)`. The same kernel if it
        has that number of channels already.

    Raises:
        ValueError: If `kernel` does not have four axes, `channels` is not a
            positive integer, or neither of them is for grey images.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.layers import spread_channels
    >>> spread_channels(np.full((5, 5, 1, 6), 3.0), channels=3).shape
    (5, 5, 3, 6)
    """
    kernel = np.asarray(kernel)
    if kernel.ndim != 4:
        raise ValueError(
            "`kernel` must have the shape (height, width, channels, maps). "
            f"Received: kernel of shape {kernel.shape}"
        )
    check_positive_integer("channels", channels)
    if channels == kernel.shape[2]:
        return kernel
    if 1 not in (channels, kernel.shape[2]):
        raise ValueError(
            "`channels` must be 1, or `kernel` be for grey images: the "
            "correspondence of other channels is unknown. "
            f"Received: channels={channels}, kernel of shape {kernel.shape}"
        )
    grey = kernel.sum(axis=2, keepdims=True)
    return np.repeat(grey / channels, channels, axis=2).astype(kernel.dtype)
