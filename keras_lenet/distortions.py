"""Random distortions of images of characters, for training."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Elastic displacements are drawn at 6x6 points of an image, between which
# they vary smoothly: as strokes bend, not as paper crumples.
_POINTS = 6


class RandomDistortion:
    """Distorts images at random, as handwriting varies.

    Each image is rotated, scaled, sheared, shifted and bent elastically, all
    in one bilinear interpolation, so that no stroke is blurred twice. It is
    what Keras' `RandomRotation`, `RandomZoom`, `RandomShear`,
    `RandomTranslation` and `RandomElasticTransform` do one after the other.
    The 1998 paper trained with distortions of this kind
    (https://doi.org/10.1109/5.726791, section III-C); elastic ones are those
    of https://doi.org/10.1109/ICDAR.2003.1227801, section 2.

    Give it to `keras_lenet.datasets.image_dataset_from_array`.

    Args:
        rotation: Number from 0 on. The largest angle, in degrees.
        scale: Number from 0 on. The largest natural logarithm of the factor
            of the size, which height and width draw apart: `0.1` is ±10 %.
        shear: Number from 0 on. The largest tangent of the angle by which
            what stands upright comes to lean.
        shift: Number from 0 on. The largest shift along each axis, in pixels.
        elastic: Number from 0 on. The standard deviation of the elastic
            displacement along each axis, in pixels.

    All draws but the elastic ones are uniform. The defaults were tuned for
    LeNet-5 on MNIST, on images held out of the training set.

    Call arguments:
        images: Array of shape `(n, height, width, channels)`, uint8 or
            floats, on a background of 0, which is also what comes in from
            outside.
        generator: `np.random.Generator`. Decides the distortions.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        ValueError: When an argument is not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import RandomDistortion
    >>> generator = np.random.default_rng(98)
    >>> images = generator.integers(0, 256, (2, 28, 28, 1), "uint8")
    >>> RandomDistortion(shift=2.0)(images, generator).shape
    (2, 28, 28, 1)
    """

    def __init__(
        self,
        rotation: float = 8.6,
        scale: float = 0.08,
        shear: float = 0.15,
        shift: float = 1.6,
        elastic: float = 0.8,
    ) -> None:
        self.rotation = rotation
        self.scale = scale
        self.shear = shear
        self.shift = shift
        self.elastic = elastic
        for name, value in self.get_config().items():
            if (
                not isinstance(value, (int, float, np.number))
                or not 0 <= value < math.inf
            ):
                raise ValueError(
                    f"`{name}` must be a number from 0 on. "
                    f"Received: {name}={value!r}"
                )

    def __call__(self, images: Array, generator: np.random.Generator) -> Array:
        rows, columns = self._sources(images.shape, generator)
        return _interpolate(images, rows, columns)

    def _sources(
        self, shape: tuple[int, ...], generator: np.random.Generator
    ) -> tuple[Array, Array]:
        """Returns where in an image each pixel of its distortion comes from."""
        count, height, width, _ = shape

        def draw(largest: float) -> Array:
            drawn = generator.uniform(-largest, largest, count)
            return drawn.astype("float32")[:, np.newaxis, np.newaxis]

        angle = draw(math.radians(self.rotation))
        slant = draw(self.shear)
        tall, wide = np.exp(draw(self.scale)), np.exp(draw(self.scale))
        down, right = draw(self.shift), draw(self.shift)
        cos, sin = np.cos(angle), np.sin(angle)
        # Rotation x shear x scale, about the middle of the image; the shear
        # lets what stands upright lean.
        y = np.arange(height, dtype="float32")[:, np.newaxis]
        x = np.arange(width, dtype="float32")
        middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
        y, x = y - np.float32(middle_y), x - np.float32(middle_x)
        rows = (cos - sin * slant) * tall * y - sin * wide * x
        columns = (sin + cos * slant) * tall * y + cos * wide * x
        rows += down + np.float32(middle_y)
        columns += right + np.float32(middle_x)
        if self.elastic:
            points = generator.standard_normal(
                (2, count, _POINTS, _POINTS), dtype="float32"
            )
            points *= np.float32(self.elastic)
            bent = _bumps(height) @ points @ _bumps(width).T
            rows += bent[0]
            columns += bent[1]
        return rows, columns

    def get_config(self) -> dict[str, Any]:
        return {
            "rotation": self.rotation,
            "scale": self.scale,
            "shear": self.shear,
            "shift": self.shift,
            "elastic": self.elastic,
        }


def _bumps(size: int) -> Array:
    """Returns weights of `_POINTS` points for each pixel along an axis.

    They are of Gaussian form and keep the variance of what they mix.
    """
    points = np.linspace(0, size - 1, _POINTS)
    spread = max(size - 1, 1) / (_POINTS - 1)
    distance = (np.arange(size)[:, np.newaxis] - points) / spread
    weights = np.exp(-0.5 * distance**2)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return np.asarray(weights, "float32")


def _interpolate(images: Array, rows: Array, columns: Array) -> Array:
    """Returns what is at `rows` and `columns`, float32 `(n, height, width)`."""
    count, height, width, channels = images.shape
    # Zeros around: one row above, two below, for what is beyond the last row.
    stride = width + 3
    np.clip(rows, -1, height, out=rows)
    np.clip(columns, -1, width, out=columns)
    top, left = np.floor(rows), np.floor(columns)
    rows, columns = rows - top, columns - left
    index = (top * stride + left).astype("int32") + (stride + 1)
    first = np.arange(count, dtype="int32") * ((height + 3) * stride)
    index += first[:, np.newaxis, np.newaxis]
    distorted = np.empty_like(images)
    for channel in range(channels):
        padded = np.zeros((count, height + 3, stride), "float32")
        padded[:, 1 : height + 1, 1 : width + 1] = images[..., channel]
        pixels = padded.ravel()

        def along_row(index: Array, pixels: Array = pixels) -> Array:
            here = pixels.take(index)
            right = pixels.take(index + 1)
            return np.asarray(here + columns * (right - here))

        values = along_row(index)
        values += rows * (along_row(index + stride) - values)
        if images.dtype.kind != "f":
            np.rint(values, out=values)
        distorted[..., channel] = values
    return distorted
