"""Finding a character in a picture and making it look like MNIST's."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from scipy import ndimage

from keras_lenet.pictures.boxes import (
    bounding_box,
    gap,
    is_inside,
    longer_side,
)
from keras_lenet.pictures.fitting import fit_strokes, has_form_of_mnist
from keras_lenet.pictures.lines import is_solid_rectangle, without_lines
from keras_lenet.pictures.paper import (
    LEAST_CONTRAST,
    grain,
    measure_ink,
    rises,
    shrink,
)
from keras_lenet.types import Array

# Find the character in a picture of at most this size ...
_OVERVIEW = 192

# ... and trace its strokes in a picture of this size.
_CLOSE_UP = 96

# Below this probability, other ways to prepare a picture are tried.
_DOUBTFUL = 0.5

# Maximum stroke half-width, relative to the character's size.
_THICKEST = 0.2


def prepare_character(
    picture: npt.ArrayLike, size: tuple[int, int] = (28, 28)
) -> Array | None:
    """Makes a picture of one character look like MNIST's images.

    Ink may be darker or brighter than the paper, or of another colour. Light
    may be uneven. The character may have any size and position. Whatever
    differs from the paper is fitted into 20x20 pixels, keeping its
    proportions, and centred by mass in 28x28, as MNIST's images were
    (https://doi.org/10.1109/5.726791, section III-A). Strokes thinner than
    MNIST's are widened. Printed lines and boxes are removed. A picture of the
    requested size whose character has MNIST's size and position stays as it
    is, except that it is inverted if its border is bright.

    Args:
        picture: Array of shape `(height, width)` or
            `(height, width, channels)`, uint8 in [0, 255].
        size: Tuple `(height, width)` of the result. Defaults to `(28, 28)`.
            With other sizes the 20 pixels scale with the smaller side.

    Returns:
        uint8 array of shape `(*size, 1)`, bright ink on 0, or `None` if there
        is no ink.

    Raises:
        ValueError: If `picture` has another shape or dtype.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.pictures import prepare_character
    >>> paper = np.full((300, 400), 200, "uint8")
    >>> prepare_character(paper) is None
    True
    >>> paper[50:150, 300:310] = 40
    >>> image = prepare_character(paper)
    >>> image.shape, image[14, 13].item(), image[14, 10].item()
    ((28, 28, 1), 255, 0)
    """
    return next(_candidates(check_picture(picture), size), None)


def choose_image(
    picture: npt.ArrayLike, model: Any, threshold: float
) -> Array | None:
    """Prepares a picture of one character, if need be in several ways.

    What is ink and what is paper can be ambiguous, e.g. if a thick character
    fills the picture. Then the model, which must give low probabilities to
    pictures of no digit, decides.

    Args:
        picture: Array, as for `prepare_character`.
        model: A `LeNet5` for grey images that returns probabilities.
        threshold: Float. The probability that the model gives to almost all
            digits at least. Another image than that of `prepare_character` must
            reach it.

    Returns:
        uint8 array of shape `(height, width, 1)`, or `None` without ink.

    Raises:
        ValueError: If `picture` has another shape or dtype.
    """
    images = list(_candidates(check_picture(picture), model.input_shape[1:3]))
    if not images:
        return None
    if _probability(model, images[0]) < _DOUBTFUL:
        for image in images[1:]:
            if _probability(model, image) >= threshold:
                return image
    return images[0]


def _probability(model: Any, image: Array) -> float:
    return float(np.max(model.predict_on_batch(image[np.newaxis])))


def _candidates(pixels: Array, size: tuple[int, int]) -> Iterator[Array]:
    """Yields prepared characters, the most likely one first."""
    if pixels.shape[:2] == size:
        image = _as_it_is(pixels)
        if image is None:
            return
        if has_form_of_mnist(image[..., 0]):
            yield image
            return
    overview = shrink(pixels, _OVERVIEW)
    for strokes in _characters(overview):
        close_up = _close_up(pixels, overview.shape[:2], strokes)
        yield fit_strokes(close_up, size)


def check_picture(picture: npt.ArrayLike) -> Array:
    """Returns a picture as an array of shape `(height, width, channels)`."""
    pixels = np.asarray(picture)
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (2, 3)
        or 0 in pixels.shape
    ):
        raise ValueError(
            "`picture` must be uint8 of shape (height, width) or (height, "
            f"width, channels). Received: {pixels.dtype} of shape "
            f"{pixels.shape}."
        )
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    return pixels


def fit_colour(picture: Array, size: tuple[int, int]) -> Array:
    """Resizes a picture, cropping it to the proportions of `size`.

    Args:
        picture: uint8 array of shape `(height, width, 3)`.
        size: Tuple `(height, width)` of the result.

    Returns:
        uint8 array of shape `(*size, 3)`.
    """
    image = Image.fromarray(picture)
    return np.asarray(
        ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    )


def _as_it_is(pixels: Array) -> Array | None:
    grey = np.rint(pixels.mean(axis=-1)).astype("uint8")
    if int(np.ptp(grey)) < LEAST_CONTRAST:
        return None
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    return np.asarray(grey[..., np.newaxis])


class _Strokes(NamedTuple):
    """The strokes of a character in a picture.

    Attributes:
        sign: 1 for ink brighter than the paper, and -1 for darker ink.
        ink: Array of shape `(height, width)`, the amount of ink from 0 to 1.
        contrast: Float. How far ink rises above the paper, in grey levels.
        weight: Float. The amount of ink.
        is_thin: Boolean. Whether it consists of strokes.
        lines: Array of booleans, the printed lines that were removed.
    """

    sign: int
    ink: Array
    contrast: float
    weight: float
    is_thin: bool
    lines: Array


def _characters(picture: Array) -> list[_Strokes]:
    """Returns the strokes that may be the character, the most likely first.

    Ink may be darker or brighter than paper. Paper on a table, or inside a 0,
    stands out too, but it is thick, a sheet or surrounded by strokes.
    """
    noise, signs = grain(picture), (-1, 1)
    both = [
        _strokes(sign, rise, noise)
        for sign, rise in zip(signs, rises(picture, signs, noise), strict=True)
    ]
    found = [strokes for strokes in both if strokes is not None]

    def rank(strokes: _Strokes) -> tuple[bool, bool, float]:
        is_paper = any(
            _is_sheet(strokes, others) or _is_counter(strokes, others)
            for others in found
            if others is not strokes
        )
        is_ink = strokes.is_thin and not is_paper
        return is_ink, bool(strokes.lines.any()), strokes.weight

    return sorted(found, key=rank, reverse=True)


def _is_counter(strokes: _Strokes, others: _Strokes) -> bool:
    """Returns whether `strokes` is the paper inside another character."""
    if not others.is_thin or _is_sheet(others, strokes):
        return False
    return bool(_holes(others.ink)[strokes.ink > 0.8].all())


def _is_sheet(strokes: _Strokes, others: _Strokes) -> bool:
    """Returns whether `strokes` is a rectangle that `others` are written on."""
    if others.contrast < 0.4 * strokes.contrast:
        return False
    inked = strokes.ink > 0.2
    filled = ndimage.binary_fill_holes(inked)
    written = others.ink > 0.8
    return bool(
        filled[written].sum() > 0.95 * written.sum()
    ) and is_solid_rectangle(inked)


def _holes(ink: Array) -> Array:
    inked = ink > 0.2
    return np.asarray(ndimage.binary_fill_holes(inked) & ~inked)


def _strokes(sign: int, rise: Array, noise: float) -> _Strokes | None:
    """Returns the strokes of the most likely character above the paper.

    This is the connected component that consists of strokes and has the most
    ink, together with sizeable components near it, like the bar of a 5.
    Components that touch the border count only if there is nothing else.
    """
    measured = measure_ink(rise, noise)
    if measured is None:
        return None
    ink, full = measured
    inked = without_lines(ink > 0.2)
    lines = (ink > 0.2) & ~inked
    # Dilate the ink to bridge gaps of a pixel in strokes.
    parts, count = ndimage.label(
        ndimage.binary_dilation(inked), np.ones((3, 3))
    )
    numbers = np.arange(1, count + 1)
    weights = ndimage.sum(rise * inked, parts, numbers)
    depths = ndimage.distance_transform_edt(inked)
    depths = ndimage.maximum(depths, parts, numbers)
    boxes = ndimage.find_objects(parts)
    sizes = np.array([longer_side(box) for box in boxes])
    # Be strict with large components, which may be the sheet.
    large = sizes > 0.6 * max(ink.shape)
    thin = depths < np.where(large, _THICKEST, 1.5 * _THICKEST) * sizes
    inside = np.array([is_inside(box, ink.shape) for box in boxes])
    main = np.lexsort(
        [weights, inside & (sizes > 0.06 * max(ink.shape)), thin]
    )[-1]
    chosen = [
        number
        for number, weight, box, within in zip(
            numbers, weights, boxes, inside, strict=True
        )
        if weight > 0.05 * weights[main]
        and gap(box, boxes[main]) < 0.3 * sizes[main]
        # A part that runs out of the picture belongs to no part inside it.
        and within >= inside[main]
    ]
    ink = np.where(np.isin(parts, chosen) & (inked | (ink <= 0.2)), ink, 0)
    return _Strokes(
        sign, ink, full, float(weights[main]), bool(thin[main]), lines
    )


def _close_up(
    pixels: Array, shape: tuple[int, int], strokes: _Strokes
) -> Array:
    """Traces strokes that were found in an overview of a shape."""
    around = bounding_box(strokes.ink > 0)
    margin = 0.3 * longer_side(around)
    top, left = (max(0.0, side.start - margin) for side in around)
    bottom, right = (
        min(size, side.stop + margin)
        for side, size in zip(around, shape, strict=True)
    )
    rows, columns = np.array(pixels.shape[:2]) / shape
    window = pixels[
        int(top * rows) : math.ceil(bottom * rows),
        int(left * columns) : math.ceil(right * columns),
    ]
    picture = shrink(window, _CLOSE_UP)
    noise = grain(picture)
    (rise,) = rises(picture, (strokes.sign,), noise)
    measured = measure_ink(rise, noise)
    if measured is not None:
        # Keep what belongs to the strokes of the overview.
        mask = ndimage.binary_dilation(strokes.ink > 0, np.ones((3, 3)))
        mask = Image.fromarray((mask & ~strokes.lines).astype("uint8")).resize(
            rise.shape[::-1],
            Image.Resampling.NEAREST,
            box=(left, top, right, bottom),
        )
        ink = measured[0] * np.asarray(mask)
        if (ink > 0.5).any():
            return np.asarray(ink / ink.max())
    return np.asarray(strokes.ink / strokes.ink.max())
