"""Finding what may be a digit in a picture of several."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from keras_lenet.pictures.boxes import Box, bounding_box, is_inside
from keras_lenet.pictures.lines import is_solid_rectangle, without_lines
from keras_lenet.pictures.paper import grain, measure_ink, rises
from keras_lenet.types import Array

# Cut pieces that are wider than this share of the row's height.
_NARROWEST = 0.35

# ... into columns of this share of the row's height.
_COLUMN = 0.06

# Join pieces up to this share of the row's height.
_WIDEST = 1.2

# How far digits lean to the right, as the tangent of the angle: the mean of
# MNIST, and the most by which a row may differ and still count as usual.
_USUAL_SLANT, _NO_SLANT = 0.11, 0.1


class Candidate(NamedTuple):
    """What may be a digit: one or more neighbouring pieces of a row.

    Attributes:
        start: Integer. The index of the first piece in its row.
        stop: Integer. The index after the last piece.
        box: A bounding box in the picture.
        ink: Array of shape `(height, width)`, the amount of ink from 0 to 1,
            with digits turned upright.
        cut_from: Integer, the width of the connected ink whose left part was
            cut off, or 0 if nothing was cut off on the left.
        is_apart: Boolean. Whether it has parts that do not touch.
    """

    start: int
    stop: int
    box: Box
    ink: Array
    cut_from: int
    is_apart: bool


class _Piece(NamedTuple):
    """A part of a digit, or a whole one.

    Attributes:
        box: A bounding box in the picture.
        mask: Array of booleans in the box.
        is_first: Boolean. Whether no other piece was cut off on the left.
        is_last: Boolean. Whether no other piece was cut off on the right.
        whole_width: Integer. The width before it was cut.
    """

    box: Box
    mask: Array
    is_first: bool = True
    is_last: bool = True
    whole_width: int = 0


def find_candidates(picture: Array) -> list[list[Candidate]]:
    """Finds what may be a digit.

    Each row is cut wherever two digits could touch.

    Args:
        picture: Array of shape `(height, width, channels)`.

    Returns:
        List of rows from top to bottom, lists of `Candidate` in the order of
        `start` and `stop`. Some path through a row's candidates, each of which
        starts where the one before stops, goes from piece 0 to the last one.
    """
    return _in_candidates(*_find_pieces(picture))


def find_candidates_by_slant(
    picture: Array,
) -> Iterator[tuple[float, list[list[Candidate]]]]:
    """Finds what may be a digit, and again upright if the digits lean.

    Yields:
        The tangent of the angle by which the digits were turned, and the rows,
        as `find_candidates` returns them. Boxes are in the turned picture:
        see `unturned_box`.
    """
    ink, pieces = _find_pieces(picture)
    yield 0.0, _in_candidates(ink, pieces)
    if slant := _slant(pieces):
        yield slant, find_candidates(_turned(picture, slant))


def unturned_box(candidate: Candidate, slant: float, height: int) -> Box:
    """Returns a candidate's box in the picture before it was turned.

    Args:
        candidate: A `Candidate` of the turned picture.
        slant: Float. The tangent of the angle.
        height: Integer. The picture's height.
    """
    if not slant:
        return candidate.box
    rows, columns = np.nonzero(candidate.ink)
    rows = rows + candidate.box[0].start
    columns = columns + candidate.box[1].start
    columns = columns - slant * (rows - height / 2)
    columns = columns - _margin(slant, height)
    left, right = math.floor(columns.min()), math.ceil(columns.max()) + 1
    return candidate.box[0], slice(max(0, left), right)


def count_parts(picture: Array) -> int:
    """Returns the number of parts of similar height, before they are cut."""
    return len(_find_pieces(picture)[1])


def _find_pieces(picture: Array) -> tuple[Array, list[_Piece]]:
    """Returns the ink, and its components that may be digits."""
    noise, signs = grain(picture), (-1, 1)
    best: tuple[float, Array, list[_Piece]] = (0.0, np.zeros((1, 1)), [])
    for rise in rises(picture, signs, noise):
        measured = measure_ink(rise, noise)
        if measured is None:
            continue
        ink, _ = measured
        pieces = _components(without_lines(ink > 0.5))
        # The inside of a 0 is smaller than the 0.
        size = float(sum(_height(piece.box) ** 2 for piece in pieces))
        if size > best[0]:
            best = size, ink, pieces
    return best[1:]


def _in_candidates(ink: Array, pieces: list[_Piece]) -> list[list[Candidate]]:
    rows = [_cut_row(row) for row in _in_rows(pieces)]
    return [list(_candidates(row, ink)) for row in rows]


def _slant(pieces: list[_Piece]) -> float:
    """Returns by how much digits lean more to the right than usual.

    This is the slope of a regression of columns on rows, the tangent of an
    angle, or 0 if it is small. "Usual" is MNIST's mean.
    """
    shared, squares = 0.0, 0.0
    for piece in pieces:
        rows, columns = np.nonzero(piece.mask)
        rows = rows - rows.mean()
        shared -= float(rows @ columns)
        squares += float(rows @ rows)
    slant = shared / squares - _USUAL_SLANT if squares else 0.0
    return slant if abs(slant) > _NO_SLANT else 0.0


def _turned(picture: Array, slant: float) -> Array:
    """Returns a picture whose rows are shifted so that digits are upright."""
    height, width = picture.shape[:2]
    margin = _margin(slant, height)
    wide = np.pad(picture, ((0, 0), (margin, margin), (0, 0)), mode="edge")
    lean = (1, -slant, slant * height / 2, 0, 1, 0)
    channels = [
        Image.fromarray(wide[..., channel]).transform(
            (width + 2 * margin, height),
            Image.Transform.AFFINE,
            lean,
            Image.Resampling.BICUBIC,
        )
        for channel in range(wide.shape[-1])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _margin(slant: float, height: int) -> int:
    """Returns the columns that `_turned` adds on either side."""
    return math.ceil(abs(slant) * height / 2)


def _components(inked: Array) -> list[_Piece]:
    parts, _ = ndimage.label(inked, np.ones((3, 3)))
    pieces = []
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        mask = parts[box] == number
        depth = ndimage.distance_transform_edt(np.pad(mask, 1)).max()
        size = max(mask.shape)
        is_stroke = depth < 0.35 * size or mask.shape[0] > 3 * mask.shape[1]
        is_cell = is_solid_rectangle(mask, 0.93) and size < 3 * min(mask.shape)
        if is_stroke and not is_cell:
            pieces.append(_Piece(box, mask))
    inside = [piece for piece in pieces if is_inside(piece.box, inked.shape)]
    pieces = inside or pieces
    tallest = max((_height(piece.box) for piece in pieces), default=0)
    large = [p for p in pieces if _height(p.box) > 0.4 * tallest]
    for piece in pieces:
        if _height(piece.box) <= 0.4 * tallest:
            _attach(piece, large, tallest)
    return large


def _attach(piece: _Piece, large: list[_Piece], tallest: int) -> None:
    """Joins a small part, such as the bar of a 5, to the nearest large one."""
    if piece.mask.sum() < 0.002 * tallest**2:
        return
    distances = [_distance(piece.box, other.box) for other in large]
    if not distances or min(distances) > 0.25 * tallest:
        return
    index = int(np.argmin(distances))
    large[index] = _joined([large[index], piece])


def _distance(box: Box, other: Box) -> float:
    gaps = [
        max(0, max(a.start, b.start) - min(a.stop, b.stop))
        for a, b in zip(box, other, strict=True)
    ]
    return math.hypot(*gaps)


def _height(box: Box) -> int:
    return int(box[0].stop - box[0].start)


def _box_around(pieces: Sequence[_Piece]) -> Box:
    rows, columns = (
        slice(min(s.start for s in sides), max(s.stop for s in sides))
        for sides in zip(*(piece.box for piece in pieces), strict=True)
    )
    return rows, columns


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    """Returns one piece with the masks of all."""
    box = _box_around(pieces)
    mask = np.zeros([side.stop - side.start for side in box], bool)
    for piece in pieces:
        place = tuple(
            slice(side.start - whole.start, side.stop - whole.start)
            for side, whole in zip(piece.box, box, strict=True)
        )
        mask[place] |= piece.mask
    return _Piece(box, mask)


def _in_rows(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Groups pieces into rows, and sorts these from left to right."""
    rows: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda p: p.box[0].start + p.box[0].stop):
        for row in rows:
            if _shared(piece.box[0], row[-1].box[0]) > 0.4:
                row.append(piece)
                break
        else:
            rows.append([piece])
    return [sorted(row, key=lambda p: p.box[1].start) for row in rows]


def _cut_row(row: list[_Piece]) -> list[_Piece]:
    """Joins pieces above each other, and cuts wide ones."""
    joined = [row[0]]
    for piece in row[1:]:
        beside, above = (
            _shared(a, b)
            for b, a in zip(joined[-1].box, piece.box, strict=True)
        )
        if above > 0.9 and beside < 0.5:
            joined[-1] = _joined([joined[-1], piece])
        else:
            joined.append(piece)
    height = float(np.median([_height(piece.box) for piece in joined]))
    return [part for piece in joined for part in _cut(piece, height)]


def _shared(side: slice, other: slice) -> float:
    """Returns the overlap of two intervals, as a share of the shorter one."""
    shared = min(side.stop, other.stop) - max(side.start, other.start)
    shorter = min(side.stop - side.start, other.stop - other.start)
    return float(shared / shorter)


def _cut(piece: _Piece, height: float) -> list[_Piece]:
    """Cuts a piece into columns of equal width."""
    width = piece.mask.shape[1]
    if width < _NARROWEST * height:
        return [piece]
    count = max(1, round(width / max(2, _COLUMN * height)))
    ends = np.rint(np.linspace(0, width, count + 1)).astype(int).tolist()
    top, left = (side.start for side in piece.box)
    parts = []
    for start, stop in itertools.pairwise(ends):
        mask = piece.mask[:, start:stop]
        if not mask.any():
            continue
        rows, columns = bounding_box(mask)
        box = (
            slice(top + rows.start, top + rows.stop),
            slice(left + start + columns.start, left + start + columns.stop),
        )
        parts.append(
            _Piece(box, mask[rows, columns], start == 0, stop == width, width)
        )
    return parts


def _candidates(row: list[_Piece], ink: Array) -> Iterator[Candidate]:
    """Yields the ranges of pieces that may form a digit.

    Pieces that do not touch each other were not cut from one digit, so they
    are joined only as a whole.
    """
    widest = _WIDEST * max(_height(piece.box) for piece in row)
    for start, first in enumerate(row):
        joined, is_apart = first, False
        for stop, last in enumerate(row[start:], start + 1):
            if last is not first:
                joined = _joined([joined, last])
                is_apart |= last.is_first
            width = joined.mask.shape[1]
            is_whole = first.is_first and last.is_last
            if (
                last is first
                or (is_whole and not is_apart)
                or (width < widest and (is_whole or not is_apart))
            ):
                yield Candidate(
                    start,
                    stop,
                    joined.box,
                    ink[joined.box] * joined.mask,
                    0 if first.is_first else first.whole_width,
                    is_apart,
                )
            if width > widest and (is_apart or not first.is_first):
                break
