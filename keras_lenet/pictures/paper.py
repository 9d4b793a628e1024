"""Telling ink from paper."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from keras_lenet.types import Array

# A picture whose grey levels differ by less is blank.
LEAST_CONTRAST = 16

# From this factor on, Pillow shrinks: to whole grey levels, but faster.
_FAST_FACTOR = 4

# How far grain rises above the paper, in its standard deviations.
_MOST_GRAIN = 4

# Contrasts are raised at most by this factor: what is darker than such a shadow
# is a table.
_MOST_GAIN = 4

# The paper at the border is this share of the way from ink to paper: in a tight
# crop, ink covers much of the border.
_BORDER_QUANTILE = 25


def shrink(pixels: Array, side: int) -> Array:
    """Returns a picture with at most `side` rows and columns, as float32."""
    shape = pixels.shape[:2]
    factor = math.ceil(max(shape) / side)
    rows, columns = (min(factor, size) for size in shape)
    height, width = shape[0] // rows, shape[1] // columns
    whole = pixels[: height * rows, : width * columns]
    # Pillow would weight colours with a fourth channel, as with alpha.
    if factor >= _FAST_FACTOR and whole.shape[-1] in (1, 3):
        image = Image.fromarray(
            whole.squeeze(-1) if whole.shape[-1] == 1 else whole
        )
        reduced = np.asarray(image.reduce((columns, rows)), "float32")
        return reduced.reshape(height, width, -1)
    blocks = whole.reshape(height, rows, width, columns, -1)
    return np.asarray(blocks.mean(axis=(1, 3), dtype="float32"))


def grain(picture: Array) -> float:
    """Estimates the standard deviation of the paper's grain.

    Grain is larger than a pixel of a large photograph, so it compares pixels
    some way apart. Along one of the axes at least, few pixels differ because
    of ink, and the lower quartile shows the grain alone.
    """
    step = max(1, round(max(picture.shape[:2]) / 64))
    along = (
        abs(picture[:, step:] - picture[:, :-step]),
        abs(picture[step:] - picture[:-step]),
    )
    quartiles = (
        np.quantile(part, 0.25, axis=(0, 1)) for part in along if part.size
    )
    # The lower quartile of differences of normal numbers, 0.45 deviations.
    return 2.22 * float(min(map(np.linalg.norm, quartiles), default=0.0))


def rises(picture: Array, signs: tuple[int, ...], noise: float) -> list[Array]:
    """Returns how far pixels rise above the paper, for each sign.

    Sign 1 is for ink brighter than the paper, -1 for darker ink. What rises
    above the paper's grain, of a standard deviation of `noise`, and is darker,
    rises in a shadow as far as in the light, up to a factor.

    Every path from bright ink to the border descends to the paper. Gradual
    changes of light, shadows, the edge of the sheet and lines across the
    picture reach the border themselves. Paper is therefore the
    highest minimum over all paths to the border (opening by reconstruction).
    As in Vincent's hybrid algorithm (1993,
    https://doi.org/10.1109/83.217222), sweeps over the picture come first,
    and then the pixels that changed raise their neighbours.
    """
    field = _framed(np.concatenate([sign * picture for sign in signs], axis=-1))
    paper = np.full(field.shape, -np.inf, field.dtype)
    ring = _ring(field.shape)
    paper[ring] = field[ring]
    for axis in (0, 1):
        _sweep(np.swapaxes(paper, 0, axis), np.swapaxes(field, 0, axis))
    _spread(paper, field)
    levels = np.split(paper[1:-1, 1:-1], len(signs), axis=-1)
    above = np.split((field - paper)[1:-1, 1:-1], len(signs), axis=-1)
    found = [np.linalg.norm(part, axis=-1) for part in above]
    return [
        np.where(rise > _MOST_GRAIN * noise, rise * _gain(-level), rise)
        if sign < 0
        else rise
        for sign, rise, level in zip(signs, found, levels, strict=True)
    ]


def _gain(paper: Array) -> Array:
    """Returns the factor by which a shadow makes contrasts smaller.

    Ink absorbs a share of the light that falls on it, so where paper is half
    as bright, its contrast is half as large.
    """
    light = paper.mean(axis=-1)
    brightest = np.quantile(light, 0.95)
    return np.asarray(np.clip(brightest / np.maximum(light, 1), 1, _MOST_GAIN))


def measure_ink(rise: Array, noise: float) -> tuple[Array, float] | None:
    """Returns the amount of ink, and its contrast, or `None` for no ink."""
    # Remove noise first: it would outweigh a small character.
    candidates = rise[rise > _MOST_GRAIN * noise]
    written = candidates[candidates > _otsu(candidates)]
    full = float(np.median(written)) if written.size else 0.0
    if full < max(LEAST_CONTRAST, 6 * noise):
        return None
    least = max(0.2 * full, min(2.5 * noise, 0.5 * full))
    return np.clip((rise - least) / (0.9 * full - least), 0, 1), full


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


def _sweep(paper: Array, field: Array) -> None:
    """Propagates paper levels downwards, then upwards, row by row."""
    count = len(field)
    for rows, step in ((range(1, count), -1), (range(count - 2, -1, -1), 1)):
        for row in rows:
            near = paper[row + step]
            best = np.maximum(near, paper[row])
            best[1:] = np.maximum(best[1:], near[:-1])
            best[:-1] = np.maximum(best[:-1], near[1:])
            paper[row] = np.minimum(best, field[row])


def _spread(paper: Array, field: Array) -> None:
    """Propagates paper levels along the winding paths that sweeps left."""
    level, limit = paper.reshape(-1), field.reshape(-1)
    indices = np.arange(paper.size).reshape(paper.shape)
    # These lead to the eight neighbours of a pixel, and to the pixel itself.
    steps = (indices[:3, :3, 0] - indices[1, 1, 0]).reshape(-1, 1)
    # The first round takes all pixels. Their neighbours' indices would fill
    # the memory, and a filter needs none.
    best = np.minimum(ndimage.maximum_filter(paper, (3, 3, 1)), field)
    changed = np.flatnonzero(best > paper)
    level[changed] = best.reshape(-1)[changed]
    while changed.size:
        near = changed + steps
        best = np.minimum(level[changed], limit[near])
        raised = best > level[near]
        np.maximum.at(level, near[raised], best[raised])
        changed = np.unique(near[raised])


def _ring(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns the indices of the border's pixels, in clockwise order."""
    rows, columns = shape[0] - 1, shape[1] - 1
    down, right = np.arange(rows), np.arange(columns)
    return (
        np.concatenate([0 * right, down, rows + 0 * right, rows - down]),
        np.concatenate([right, columns + 0 * down, columns - right, 0 * down]),
    )


def _framed(picture: Array) -> Array:
    """Frames a picture with paper, because ink may touch the border."""
    field = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    ring = _ring(field.shape)
    window = int(0.3 * len(ring[0])) | 1
    field[ring] = ndimage.percentile_filter(
        field[ring], _BORDER_QUANTILE, (window, 1), mode="wrap"
    )
    return field
