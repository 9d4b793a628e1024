"""Printed lines and boxes around characters."""

import math

import numpy as np
from scipy import ndimage

from keras_lenet.pictures.boxes import (
    is_inside,
    longer_side,
    rectangle_area,
)
from keras_lenet.types import Array

# In smaller pictures a stroke may be as long and straight as a line.
_LEAST_SIDE = 48

# A line is at least as long as this share of the picture or box.
_LEAST_LENGTH = 0.85


def without_lines(inked: Array) -> Array:
    """Removes printed lines from a mask, and keeps strokes that cross them.

    The mask is returned as it is unless a character inside the picture is left.
    """
    if min(inked.shape) < _LEAST_SIDE:
        return inked
    lines = _lines_across(inked)
    parts, _ = ndimage.label(inked, np.ones((3, 3)))
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        part = parts[box] == number
        if longer_side(box) > 0.25 * min(inked.shape) and _is_frame(part):
            lines[box] |= _lines_across(part)
    if not lines.any():
        return inked
    lines = ndimage.binary_dilation(lines, np.ones((3, 3))) & inked
    rest = inked & ~lines
    kept = rest | (lines & _bridged(rest, _thickness(lines)))
    parts, _ = ndimage.label(kept, np.ones((3, 3)))
    least = 0.2 * min(inked.shape)
    has_character = any(
        longer_side(box) > least and is_inside(box, inked.shape)
        for box in ndimage.find_objects(parts)
    )
    return kept if has_character else inked


def is_solid_rectangle(part: Array, share: float = 0.84) -> bool:
    """Returns whether a mask is a rotated rectangle, perhaps with holes.

    With its holes, it must fill a share of the rectangle around it. An ellipse
    fills 0.79.
    """
    filled = ndimage.binary_fill_holes(part)
    area = float(filled.sum())
    return bool(part.sum() > 0.5 * area > 0.5 * share * rectangle_area(filled))


def _lines_across(inked: Array) -> Array:
    return _horizontal_lines(inked) | _horizontal_lines(inked.T).T


def _is_frame(part: Array) -> bool:
    """Returns whether a component is the outline of an upright rectangle."""
    filled = ndimage.binary_fill_holes(part).mean()
    return bool(filled > 0.9 and part.mean() < 0.5 * filled)


def _horizontal_lines(inked: Array) -> Array:
    """Returns the pixels of straight, almost horizontal lines."""
    height, width = inked.shape
    # Strokes that cross a line are high, and a line is low and long.
    high = ndimage.binary_opening(inked, np.ones((max(4, height // 14), 1)))
    low = ndimage.binary_opening(
        inked & ~high, np.ones((1, max(7, width // 10)))
    )
    parts, _ = ndimage.label(low, np.ones((3, 3)))
    places, lines = np.nonzero(low), np.zeros_like(inked)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        if box[1].stop - box[1].start < 0.15 * width:
            continue
        rows, columns = np.nonzero(parts == number)
        for _ in range(3):
            line = np.polyfit(columns, rows, 1)
            near = abs(places[0] - np.polyval(line, places[1])) <= 2
            if not near.any():
                break
            rows, columns = places[0][near], places[1][near]
        covered = len(np.unique(columns))
        if (
            np.ptp(columns) > _LEAST_LENGTH * width
            and covered > 0.5 * width
            and abs(line[0]) < 0.1
        ):
            thickness = len(columns) / covered
            all_rows, all_columns = np.nonzero(inked)
            off = abs(all_rows - np.polyval(line, all_columns))
            on_line = off <= thickness / 2 + 0.5
            lines[all_rows[on_line], all_columns[on_line]] = True
    return lines


def _thickness(lines: Array) -> float:
    depth = ndimage.distance_transform_edt(np.pad(lines, 1)).max()
    return float(2 * depth + 1)


def _bridged(mask: Array, gap: float) -> Array:
    """Returns the mask with gaps of a width closed."""
    reach = math.ceil(gap)
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    closed = ndimage.binary_closing(
        np.pad(mask, reach), distance <= gap / 2 + 1
    )
    return np.asarray(closed[reach:-reach, reach:-reach])
