"""Reading several digits in a picture."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from keras_lenet.pictures.boxes import Box, bounding_box, is_inside
from keras_lenet.pictures.character import check_picture
from keras_lenet.pictures.fitting import fit_strokes
from keras_lenet.pictures.lines import is_solid_rectangle, without_lines
from keras_lenet.pictures.paper import grain, measure_ink, rises, shrink
from keras_lenet.types import Array

# Find digits in a picture of at most this size.
_LARGEST = 768

# A smaller one shows whether there are several parts.
_OVERVIEW = 384

# Enlarge a picture smaller than this, so that cuts are fine.
_SMALLEST = 64

# Probabilities are multiplied by `_LOW` for pieces that are much lower than the
# row or much wider than high, ...
_LOW, _WIDE = 0.02, 1.6

# ... and by `_CUT` for each cut through connected ink that is not wider than a
# digit, relative to the row's height. Tuned on rows of training images.
_CUT, _SINGLE = 0.3, 0.75


class Digit(NamedTuple):
    """A digit in a picture.

    Attributes:
        label: Integer. The class.
        probability: Float from 0 to 1.
        box: Tuple of integers `(top, left, bottom, right)`, in pixels of the
            picture.
    """

    label: int
    probability: float
    box: tuple[int, int, int, int]


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


def read_digits(picture: npt.ArrayLike, model: Any) -> list[list[Digit]]:
    """Reads rows of digits, which may touch each other.

    Each row is cut wherever two digits could touch. Of all ways to combine the
    pieces, the one with the highest product of probabilities is taken, as in
    https://doi.org/10.1109/5.726791, section VI. The model must give low
    probabilities to pictures that are not exactly one digit, as the preset
    `"handwritten"` does.

    Args:
        picture: uint8 array of shape `(height, width)` or
            `(height, width, channels)`, in [0, 255].
        model: A `LeNet5` for images of shape `(28, 28, 1)` that returns
            probabilities.

    Returns:
        List of rows from top to bottom, lists of `Digit` from left to right.

    Raises:
        ValueError: If `picture` has another shape or dtype.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.pictures import read_digits
    >>> read_digits(np.full((40, 90), 255, "uint8"), LeNet5())
    []
    """
    pixels = check_picture(picture)
    small = _resized(pixels, _LARGEST)
    ink, pieces = _find_pieces(small)
    rows = [_cut_row(row, ink) for row in _in_rows(pieces)]
    # All candidates go through the network at once.
    candidates = [_candidates(row) for row in rows]
    images = [
        _image(row[start:stop], ink)
        for row, spans in zip(rows, candidates, strict=True)
        for start, stop in spans
    ]
    if not images:
        return []
    outputs = iter(model.predict(np.stack(images), batch_size=500, verbose=0))
    scale = np.array(pixels.shape[:2]) / small.shape[:2]
    return [
        _best_path(row, {span: next(outputs) for span in spans}, scale)
        for row, spans in zip(rows, candidates, strict=True)
    ]


def has_several_parts(picture: npt.ArrayLike) -> bool:
    """Returns whether a picture may show several digits.

    Args:
        picture: uint8 array, as for `read_digits`.

    Returns:
        Boolean. Whether there are several parts of similar height.
    """
    _, pieces = _find_pieces(_resized(check_picture(picture), _OVERVIEW))
    return len(pieces) > 1


def _resized(pixels: Array, largest: int) -> Array:
    small = shrink(pixels, largest)
    factor = math.ceil(_SMALLEST / min(small.shape[:2]))
    if factor == 1 or factor * max(small.shape[:2]) > largest:
        return small
    height, width = small.shape[:2]
    channels = [
        Image.fromarray(small[..., channel]).resize(
            (factor * width, factor * height), Image.Resampling.BICUBIC
        )
        for channel in range(small.shape[-1])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _find_pieces(picture: Array) -> tuple[Array, list[_Piece]]:
    """Returns the ink, and its components that may be digits."""
    noise, signs = grain(picture), (-1, 1)
    best: tuple[float, Array, list[_Piece]] = (0.0, np.zeros((1, 1)), [])
    for rise in rises(picture, signs):
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


def _cut_row(row: list[_Piece], ink: Array) -> list[_Piece]:
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
    return [part for piece in joined for part in _cut(piece, ink, height)]


def _shared(side: slice, other: slice) -> float:
    """Returns the overlap of two intervals, as a share of the shorter one."""
    shared = min(side.stop, other.stop) - max(side.start, other.start)
    shorter = min(side.stop - side.start, other.stop - other.start)
    return float(shared / shorter)


def _cut(piece: _Piece, ink: Array, height: float) -> list[_Piece]:
    """Cuts a piece at the columns with the least ink."""
    width = piece.mask.shape[1]
    if width < 0.6 * height:
        return [piece]
    least = max(2, round(0.08 * height))
    density = (ink[piece.box] * piece.mask).sum(axis=0)
    smooth = ndimage.gaussian_filter1d(density, 0.02 * height)
    is_lowest = smooth <= ndimage.minimum_filter1d(smooth, 2 * least + 1)
    cuts = [0]
    for column in np.flatnonzero(is_lowest):
        if cuts[-1] + least <= column <= width - least:
            cuts.append(int(column))
    top, left = piece.box[0].start, piece.box[1].start
    parts = []
    for start, stop in itertools.pairwise([*cuts, width]):
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


def _candidates(row: list[_Piece]) -> list[tuple[int, int]]:
    """Returns the ranges of pieces that may form a digit.

    Pieces that do not touch each other were not cut from one digit, so they
    are joined only as a whole.
    """
    height = max(_height(piece.box) for piece in row)
    spans = []
    for start in range(len(row)):
        for stop in range(start + 1, len(row) + 1):
            pieces = row[start:stop]
            width = pieces[-1].box[1].stop - pieces[0].box[1].start
            touch = not any(piece.is_first for piece in pieces[1:])
            is_whole = pieces[0].is_first and pieces[-1].is_last
            if (
                len(pieces) == 1
                or (touch and is_whole)
                or ((touch or is_whole) and width < 1.4 * height)
            ):
                spans.append((start, stop))
    return spans


def _image(pieces: list[_Piece], ink: Array) -> Array:
    whole = _joined(pieces)
    strokes = ink[whole.box] * whole.mask
    return fit_strokes(strokes / strokes.max(), (28, 28))


def _best_path(
    row: list[_Piece], outputs: dict[tuple[int, int], Array], scale: Array
) -> list[Digit]:
    """Returns the most probable way to combine all pieces (Viterbi)."""
    tallest = max(_height(piece.box) for piece in row)

    def score(start: int, stop: int) -> float:
        probability = max(float(outputs[start, stop].max()), 1e-9)
        box = _box_around(row[start:stop])
        height, width = _height(box), box[1].stop - box[1].start
        if height < 0.55 * tallest or width > _WIDE * tallest:
            probability *= _LOW
        first = row[start]
        if not first.is_first and first.whole_width < _SINGLE * tallest:
            probability *= _CUT
        # Digits seldom consist of parts that do not touch.
        if any(piece.is_first for piece in row[start + 1 : stop]):
            probability *= _CUT
        return math.log(probability)

    best: list[tuple[float, list[tuple[int, int]]]] = [(0.0, [])]
    for stop in range(1, len(row) + 1):
        ways = [
            (
                best[start][0] + score(start, stop),
                [*best[start][1], (start, stop)],
            )
            for start, end in outputs
            if end == stop
        ]
        best.append(max(ways))
    digits = []
    for start, stop in best[-1][1]:
        output = outputs[start, stop]
        rows, columns = _box_around(row[start:stop])
        box = (
            np.array([[rows.start, columns.start], [rows.stop, columns.stop]])
            * scale
        )
        top, left, bottom, right = np.rint(box).astype("int64").ravel().tolist()
        digits.append(
            Digit(
                int(output.argmax()),
                float(output.max()),
                (top, left, bottom, right),
            )
        )
    return digits
