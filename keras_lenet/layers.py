"""`PadTo32`, and the weights of layers for grey and for colour images."""

import math
from typing import Any

import keras
import numpy as np

from keras_lenet.keras_internals import DataLayer
from keras_lenet.types import Tensor
from keras_lenet.validation.arguments import check_positive_integer

_FIELD = 32


@keras.saving.register_keras_serializable(package="keras_lenet")
class PadTo32(DataLayer):
    """Centres images of up to 32x32 pixels on a 32x32 field.

    LeNet-5 reads a field of 32x32 pixels, larger than the largest character,
    so that the ends of strokes can appear in the centre of the receptive field
    of its highest feature detectors
    (https://doi.org/10.1109/5.726791, section II-B). MNIST's images have
    28x28. When an odd number of rows or columns is to be added, the extra one
    goes to the bottom or the right. Images of 32x32 pass unchanged.

    The layer can be used inside a `tf.data` pipeline on every backend.

    Args:
        fill_value: Number. What the added pixels are set to, in the units of
            the images, so normally that of their background. Defaults to
            `0.0`.
        **kwargs: `name` and `dtype`, as for any Keras layer. Images are cast
            to the compute dtype; `dtype="uint8"` keeps pixels as bytes.

    Input shape:
        `(..., height, width, channels)`, height and width 1 to 32 and known.

    Output shape:
        `(..., 32, 32, channels)`.

    Raises:
        ValueError: When an image is larger than 32x32, has no pixels, or when
            its size or rank is not known or lacks the channels.

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
        if not isinstance(
            fill_value, (int, float, np.number)
        ) or not math.isfinite(fill_value):
            raise ValueError(
                "`fill_value` must be a finite number. "
                f"Received: fill_value={fill_value!r}"
            )
        if not keras.backend.is_float_dtype(self.compute_dtype):
            limits = np.iinfo(self.compute_dtype)
            if not (
                limits.min <= fill_value <= limits.max
                and fill_value == int(fill_value)
            ):
                raise ValueError(
                    f"`fill_value` must be a value of {self.compute_dtype}. "
                    f"Received: fill_value={fill_value!r}"
                )
        self.fill_value = fill_value

    def __call__(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        # Keras itself fails on shapes of unknown rank, as `tf.numpy_function`
        # leaves them, before it comes to `call`.
        if hasattr(inputs, "shape"):
            _padding(inputs.shape)
        return super().__call__(inputs, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        # Keras casts bytes inside a TensorFlow graph but not eagerly.
        inputs = self.backend.cast(inputs, self.compute_dtype)
        fill_value = self.fill_value
        if not keras.backend.is_float_dtype(self.compute_dtype):
            fill_value = int(fill_value)
        return self.backend.numpy.pad(
            inputs, _padding(inputs.shape), constant_values=fill_value
        )

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        _padding(input_shape)
        return (*input_shape[:-3], _FIELD, _FIELD, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fill_value": self.fill_value}


def _padding(shape: Any) -> list[tuple[int, int]]:
    """Returns how many pixels to add before and after, for every axis."""
    # TensorFlow's shapes of unknown rank have no length.
    rank = shape.rank if hasattr(shape, "rank") else len(shape)
    if rank is None or rank < 3:
        raise ValueError(
            "`PadTo32` expects images of shape (..., height, width, channels). "
            f"Received: inputs of shape {shape}. Grey images need a last axis "
            "of size 1, e.g. `images[..., np.newaxis]`."
        )
    size = tuple(shape[-3:-1])
    if None in size:
        raise ValueError(
            "`PadTo32` needs to know the height and width of the images. "
            f"Received: inputs of shape {tuple(shape)}. Give them, e.g. with "
            "`keras.Input((28, 28, 1))` or `tf.ensure_shape`."
        )
    if not all(1 <= pixels <= _FIELD for pixels in size):
        raise ValueError(
            "`PadTo32` expects images of at least 1x1 and at most 32x32 "
            f"pixels. Received: inputs of shape {tuple(shape)}. Shrink them "
            "first, e.g. with `keras.layers.Resizing(32, 32)`."
        )
    surplus = [_FIELD - pixels for pixels in size]
    return [
        *[(0, 0)] * (rank - 3),
        *[(pixels // 2, pixels - pixels // 2) for pixels in surplus],
        (0, 0),
    ]


def spread_channels(
    kernel: np.ndarray[Any, Any], channels: int
) -> np.ndarray[Any, Any]:
    """Adapts the kernel of a first convolution to other image channels.

    From grey to colour, each weight is divided evenly among the channels; from
    colour to grey, weights are summed over the channels. So a grey image gives
    the same sums as before when it is repeated in all channels.

    Args:
        kernel: Array of shape `(height, width, channels, maps)`, as of
            `keras.layers.Conv2D`, or of a `TableConv2D` without a table.
        channels: Integer. How many channels the images have.

    Returns:
        Array of shape `(height, width, channels, maps)`. A kernel for as many
        channels comes back unchanged.

    Raises:
        ValueError: When the kernel is not of the form above, or neither it
            nor the images are grey.

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
            "`channels` must be 1, or the kernel that of grey images: how "
            "other channels correspond is not known. "
            f"Received: channels={channels}, kernel of shape {kernel.shape}"
        )
    grey = kernel.sum(axis=2, keepdims=True)
    return np.repeat(grey / channels, channels, axis=2).astype(kernel.dtype)
