"""Bounding boxes: a slice of rows and a slice of columns."""

import numpy as np

from keras_lenet.types import Array

Box = tuple[slice, slice]


def bounding_box(mask: Array) -> Box:
    """Returns the bounding box of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def is_inside(box: Box, shape: tuple[int, ...]) -> bool:
    """Returns whether a box does not touch the border of a picture."""
    return all(
        side.start > 0 and side.stop < size
        for side, size in zip(box, shape, strict=True)
    )


def longer_side(box: Box) -> int:
    """Returns the larger one of height and width."""
    return int(max(side.stop - side.start for side in box))


def gap(box: Box, other: Box) -> int:
    """Returns the distance of two boxes, negative if they overlap."""
    gaps = (
        max(a.start, b.start) - min(a.stop, b.stop)
        for a, b in zip(box, other, strict=True)
    )
    return int(max(gaps))


def rectangle_area(mask: Array) -> float:
    """Returns the area of the smallest, rotated rectangle around a mask."""
    angles = np.radians(np.arange(0, 90, 3))
    axes = np.stack([np.cos(angles), np.sin(angles)])
    points = np.argwhere(mask)
    # A pixel is as wide as one.
    along = np.ptp(points @ axes, axis=0) + 1
    across = np.ptp(points[:, ::-1] @ (axes * [[1], [-1]]), axis=0) + 1
    return float((along * across).min())
