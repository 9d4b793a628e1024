"""Making strokes look like those of MNIST."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from keras_lenet.pictures.boxes import bounding_box, longer_side
from keras_lenet.pictures.centre import center_by_mass
from keras_lenet.types import Array

# Minimum mean stroke width, in pixels of the 20 that a character is fitted
# into. 75 % of MNIST's training images have wider strokes.
_LEAST_STROKE = 2.0


def fit_strokes(ink: Array, size: tuple[int, int]) -> Array:
    """Fits strokes into 20x20 pixels, and centres them by mass in 28x28.

    Args:
        ink: Array of shape `(height, width)`, the amount of ink from 0 to 1.
        size: Tuple `(height, width)` of the result. The 20 pixels scale with
            the smaller side.

    Returns:
        uint8 array of shape `(*size, 1)`.
    """
    ink = _widened(ink)
    strokes = ink[bounding_box(ink > 0.5)]
    height, width = size
    scale = min(size) * 20 / 28 / max(strokes.shape)
    rows, columns = (max(1, round(side * scale)) for side in strokes.shape)
    image = Image.fromarray(strokes.astype("float32"))
    fitted = image.resize((columns, rows), Image.Resampling.BILINEAR)
    small = np.rint(np.asarray(fitted).clip(0, 1) * 255).astype("uint8")
    side = max(size)
    field = center_by_mass(small[np.newaxis], side)[0]
    top, left = (side - height) // 2, (side - width) // 2
    placed = field[top : top + height, left : left + width]
    return np.asarray(placed[..., np.newaxis])


def has_form_of_mnist(image: Array) -> bool:
    """Returns whether a character has MNIST's size and position.

    Args:
        image: uint8 array of shape `(height, width)`, bright ink on 0.
    """
    inked = image > 0
    if not inked.any() or inked.sum() > inked[2:-2, 2:-2].sum():
        return False
    side = min(image.shape)
    share = longer_side(bounding_box(inked)) / side
    middle = (np.array(image.shape) - 1) / 2
    off = ndimage.center_of_mass(image.astype("float32")) - middle
    return bool(18 / 28 <= share <= 20 / 28 and abs(off).max() <= 1.5)


def _widened(ink: Array) -> Array:
    """Widens strokes that are thinner than MNIST's."""
    written = ink > 0.5
    # The mean distance to a stroke's edge is a quarter of its width.
    width = 4 * ndimage.distance_transform_edt(written)[written].mean() - 2.5
    size = longer_side(bounding_box(written))
    missing = _LEAST_STROKE / 20 * size - width
    if missing <= 0:
        return ink
    reach = math.ceil(missing / 2)
    ink = np.pad(ink, reach)
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    within = distance <= missing / 2 + 0.25
    return np.asarray(ndimage.grey_dilation(ink, footprint=within))
