"""Finding a character in a picture and making it look like MNIST's."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from scipy import ndimage

from keras_lenet.pictures.centre import center_by_mass
from keras_lenet.types import Array

# Find the character in a picture of at most this size ...
_OVERVIEW = 192

# ... and trace its strokes in a picture of this size.
_CLOSE_UP = 96

# A picture whose grey levels differ by less is blank.
_LEAST_CONTRAST = 16

# Maximum stroke half-width, relative to the character's size.
_THICKEST = 0.2

# Minimum mean stroke width, in pixels of the 20 that a character is fitted
# into. 75 % of MNIST's training images have wider strokes.
_LEAST_STROKE = 2.0


def prepare_character(
    picture: npt.ArrayLike, size: tuple[int, int] = (28, 28)
) -> Array | None:
    """Makes a picture of one character look like MNIST's images.

    Ink may be darker or brighter than the paper, or of another colour. Light
    may be uneven. The character may have any size and position. Whatever
    differs from the paper is fitted into 20x20 pixels, keeping its
    proportions, and centred by mass in 28x28, as MNIST's images were
    (https://doi.org/10.1109/5.726791, section III-A). Strokes thinner than
    MNIST's are widened. A picture that already has the requested size stays as
    it is, except that it is inverted if its border is bright.

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
    if pixels.shape[:2] == size:
        return _as_it_is(pixels)

    overview = _shrink(pixels, _OVERVIEW)
    strokes = _character(overview)
    if strokes is None:
        return None
    # Trace the strokes in a close-up of the character and a margin of paper.
    around = _box(strokes.ink > 0)
    scale = np.array(pixels.shape[:2]) / overview.shape[:2]
    margin = 0.3 * _longer_side(around)
    window = tuple(
        slice(
            max(0, int((side.start - margin) * factor)),
            math.ceil((side.stop + margin) * factor),
        )
        for side, factor in zip(around, scale, strict=True)
    )
    closer = _character(_shrink(pixels[window], _CLOSE_UP), (strokes.sign,))
    if closer is None:
        return None
    ink = _widened(closer.ink / closer.ink.max())
    return _placed(ink[_box(ink > 0.5)], size)


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
    if int(np.ptp(grey)) < _LEAST_CONTRAST:
        return None
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    return np.asarray(grey[..., np.newaxis])


def _shrink(pixels: Array, side: int) -> Array:
    """Returns a picture with at most `side` rows and columns, as float32."""
    shape = pixels.shape[:2]
    factor = math.ceil(max(shape) / side)
    rows, columns = (min(factor, size) for size in shape)
    height, width = shape[0] // rows, shape[1] // columns
    whole = pixels[: height * rows, : width * columns]
    blocks = whole.reshape(height, rows, width, columns, -1)
    return np.asarray(blocks.mean(axis=(1, 3), dtype="float32"))


class _Strokes(NamedTuple):
    """Candidate strokes, with the amount of ink per pixel, from 0 to 1.

    The sign is 1 for ink brighter than the paper, and -1 for darker ink.
    """

    sign: int
    ink: Array
    contrast: float
    weight: float
    is_thin: bool


def _character(
    picture: Array, signs: tuple[int, ...] = (-1, 1)
) -> _Strokes | None:
    """Returns the strokes of the character.

    Ink may be darker or brighter than paper. Paper on a table, or inside a 0,
    stands out too, but it is thick or a sheet.
    """
    # Compare pixels that are 3 apart: grain is larger than a single pixel.
    apart = abs(np.roll(picture, 3, axis=1) - picture)
    noise = 1.05 * float(np.linalg.norm(np.median(apart, axis=(0, 1))))
    rises = _raised(np.concatenate([sign * picture for sign in signs], axis=-1))
    both = [
        _strokes(sign, np.linalg.norm(rise, axis=-1), noise)
        for sign, rise in zip(
            signs, np.split(rises, len(signs), axis=-1), strict=True
        )
    ]
    found = [strokes for strokes in both if strokes is not None]

    def rank(strokes: _Strokes) -> tuple[bool, float]:
        sheet = any(_is_sheet(strokes, others) for others in found)
        return strokes.is_thin and not sheet, strokes.weight

    return max(found, key=rank, default=None)


def _is_sheet(strokes: _Strokes, others: _Strokes) -> bool:
    """Returns whether `strokes` is a rectangle that `others` are written on."""
    if others.contrast < 0.75 * strokes.contrast:
        return False
    inked = strokes.ink > 0.2
    holes = ndimage.binary_fill_holes(inked) & ~inked
    if not holes[others.ink > 0.8].all():
        return False
    # A uniform distribution's variance is a twelfth of its squared length.
    covariance = np.cov(np.argwhere(inked).T)
    area = 12 * math.sqrt(abs(np.linalg.det(covariance)))
    return bool(inked.sum() > 0.85 * area)


def _raised(picture: Array) -> Array:
    """Returns how far each pixel rises above the paper.

    Every path from bright ink to the border descends to the paper. Gradual
    changes of light, shadows, the edge of the sheet and lines across the
    picture reach the border themselves. Paper is therefore the
    highest minimum over all paths to the border (opening by reconstruction:
    Vincent, 1993, https://doi.org/10.1109/83.217222).
    """
    field = _framed(picture)
    paper = np.full_like(field, -np.inf)
    paper[_ring(paper.shape)] = field[_ring(field.shape)]
    while True:
        before = paper.copy()
        for axis in (0, 1):
            _spread(np.swapaxes(paper, 0, axis), np.swapaxes(field, 0, axis))
        if np.array_equal(paper, before):
            return np.asarray(field - paper)[1:-1, 1:-1]


def _spread(paper: Array, field: Array) -> None:
    """Propagates paper levels downwards, then upwards, row by row."""
    count = len(field)
    for rows, step in ((range(1, count), -1), (range(count - 2, -1, -1), 1)):
        for row in rows:
            near = paper[row + step]
            best = np.maximum(near, paper[row])
            best[1:] = np.maximum(best[1:], near[:-1])
            best[:-1] = np.maximum(best[:-1], near[1:])
            paper[row] = np.minimum(best, field[row])


def _ring(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns the indices of the border's pixels, in clockwise order."""
    rows, columns = shape[0] - 1, shape[1] - 1
    down, right = np.arange(rows), np.arange(columns)
    return (
        np.concatenate([0 * right, down, rows + 0 * right, rows - down]),
        np.concatenate([right, columns + 0 * down, columns - right, 0 * down]),
    )


def _framed(picture: Array) -> Array:
    """Frames a picture with paper, because ink may touch the border.

    The frame is the median of nearby pixels on the border.
    """
    field = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    ring = _ring(field.shape)
    window = int(0.3 * len(ring[0])) | 1
    field[ring] = ndimage.median_filter(field[ring], (window, 1), mode="wrap")
    return field


def _strokes(sign: int, rise: Array, noise: float) -> _Strokes | None:
    """Returns the strokes of the most likely character above the paper.

    This is the connected component that consists of strokes and has the most
    ink, together with sizeable components near it, like the bar of a 5.
    Components that touch the border count only if there is nothing else.
    """
    # Remove noise first: it would outweigh a small character.
    candidates = rise[rise > 4 * noise]
    written = candidates[candidates > _otsu(candidates)]
    full = float(np.median(written)) if written.size else 0.0
    if full < max(_LEAST_CONTRAST, 6 * noise):
        return None
    least = max(0.2 * full, min(2.5 * noise, 0.5 * full))
    ink = np.clip((rise - least) / (0.9 * full - least), 0, 1)
    # Dilate the ink to bridge gaps of a pixel in strokes.
    parts, count = ndimage.label(
        ndimage.binary_dilation(ink > 0.2), np.ones((3, 3))
    )
    numbers = np.arange(1, count + 1)
    weights = ndimage.sum(rise * (ink > 0.2), parts, numbers)
    depths = ndimage.distance_transform_edt(ink > 0.2)
    depths = ndimage.maximum(depths, parts, numbers)
    boxes = ndimage.find_objects(parts)
    sizes = np.array([_longer_side(box) for box in boxes])
    # Be strict with large components, which may be the sheet.
    large = sizes > 0.6 * max(ink.shape)
    thin = depths < np.where(large, _THICKEST, 1.5 * _THICKEST) * sizes
    inside = np.array([_is_inside(box, ink.shape) for box in boxes])
    inside &= sizes > 0.06 * max(ink.shape)
    main = np.lexsort([weights, inside, thin])[-1]
    chosen = [
        number
        for number, weight, box in zip(numbers, weights, boxes, strict=True)
        if weight > 0.05 * weights[main]
        and _gap(box, boxes[main]) < 0.3 * sizes[main]
    ]
    ink = np.where(np.isin(parts, chosen), ink, 0)
    return _Strokes(sign, ink, full, float(weights[main]), bool(thin[main]))


def _otsu(values: Array) -> float:
    """Returns the best threshold between two classes (Otsu, 1979).

    https://doi.org/10.1109/TSMC.1979.4310076
    """
    counts, edges = np.histogram(values, 256, (0, values.max(initial=0)))
    middles = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    sums = (counts * middles).cumsum()
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = sums / below - (sums[-1] - sums) / above
    between = np.nan_to_num(below * above * apart**2)
    return float(edges[between.argmax() + 1])


def _is_inside(box: tuple[slice, slice], shape: tuple[int, ...]) -> bool:
    return all(
        side.start > 0 and side.stop < size
        for side, size in zip(box, shape, strict=True)
    )


def _longer_side(box: tuple[slice, slice]) -> int:
    return int(max(side.stop - side.start for side in box))


def _gap(box: tuple[slice, slice], other: tuple[slice, slice]) -> int:
    gaps = (
        max(a.start, b.start) - min(a.stop, b.stop)
        for a, b in zip(box, other, strict=True)
    )
    return int(max(gaps))


def _box(mask: Array) -> tuple[slice, slice]:
    """Returns the bounding box of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _widened(ink: Array) -> Array:
    """Widens strokes that are thinner than MNIST's."""
    written = ink > 0.5
    # The mean distance to a stroke's edge is a quarter of its width.
    width = 4 * ndimage.distance_transform_edt(written)[written].mean() - 2.5
    size = _longer_side(_box(written))
    missing = _LEAST_STROKE / 20 * size - width
    if missing <= 0:
        return ink
    reach = math.ceil(missing / 2)
    ink = np.pad(ink, reach)
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    within = distance <= missing / 2 + 0.25
    return np.asarray(ndimage.grey_dilation(ink, footprint=within))


def _placed(strokes: Array, size: tuple[int, int]) -> Array:
    """Fits strokes into 20x20 pixels, and centres them by mass in 28x28."""
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
