"""Reading several digits in a picture."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from keras_lenet.pictures.boxes import Box
from keras_lenet.pictures.character import check_picture
from keras_lenet.pictures.fitting import fit_strokes
from keras_lenet.pictures.paper import shrink
from keras_lenet.pictures.segments import (
    Candidate,
    count_parts,
    find_candidates_by_slant,
    unturned_box,
)
from keras_lenet.types import Array

# Find digits in a picture of at most this size.
_LARGEST = 768

# A smaller one shows whether there are several parts.
_OVERVIEW = 384

# Enlarge a picture smaller than this, so that cuts are fine.
_SMALLEST = 64

# Probabilities are multiplied by `_LOW` for candidates that are much lower than
# the row, by `exp(-_WIDE * share)` for the share of the row's height by which
# they are wider than high, ...
_LOW, _WIDE = 0.02, 5.0

# ... by `_CUT` for each cut through connected ink that is not wider than a
# digit, relative to the row's height, and for parts that do not touch. Tuned on
# rows of training images.
_CUT, _SINGLE = 0.3, 0.75

# Candidates that go through the network at once.
_BATCH_SIZE = 64


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


def read_digits(picture: npt.ArrayLike, model: Any) -> list[list[Digit]]:
    """Reads rows of digits, which may touch each other.

    Each row is cut wherever two digits could touch. Of all ways to combine the
    pieces, the one with the highest product of probabilities is taken, as in
    https://doi.org/10.1109/5.726791, section VI. Digits that lean are read
    both as they are and turned upright. The model must give low
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
    readings = [
        (*_read(rows, model), slant)
        for slant, rows in find_candidates_by_slant(small)
    ]
    _, paths, slant = max(readings, key=lambda reading: reading[0])
    scale = np.array(pixels.shape[:2]) / small.shape[:2]
    return [
        [
            _digit(unturned_box(candidate, slant, len(small)), outputs, scale)
            for candidate, outputs in path
        ]
        for path in paths
    ]


def _read(
    rows: list[list[Candidate]], model: Any
) -> tuple[float, list[list[tuple[Candidate, Array]]]]:
    """Returns rows of digits, and the logarithm of their probability."""
    # All candidates go through the network at once.
    images = [_image(candidate) for row in rows for candidate in row]
    if not images:
        return -math.inf, []
    outputs = iter(_predict(model, np.stack(images)))
    paths = [_best_path([(c, next(outputs)) for c in row]) for row in rows]
    return sum(score for score, _ in paths), [path for _, path in paths]


def has_several_parts(picture: npt.ArrayLike) -> bool:
    """Returns whether a picture may show several digits.

    Args:
        picture: uint8 array, as for `read_digits`.

    Returns:
        Boolean. Whether there are several parts of similar height.
    """
    return count_parts(_resized(check_picture(picture), _OVERVIEW)) > 1


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


def _predict(model: Any, images: Array) -> Array:
    """Returns a model's outputs, in batches of one size.

    The backend compiles a program for each size.
    """
    missing = -len(images) % _BATCH_SIZE
    padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
    outputs = model.predict(padded, batch_size=_BATCH_SIZE, verbose=0)
    return np.asarray(outputs[: len(images)])


def _image(candidate: Candidate) -> Array:
    """Returns a candidate as a uint8 image of shape `(28, 28, 1)`."""
    return fit_strokes(candidate.ink / candidate.ink.max(), (28, 28))


def _best_path(
    read: list[tuple[Candidate, Array]],
) -> tuple[float, list[tuple[Candidate, Array]]]:
    """Returns the most probable way to combine all pieces (Viterbi)."""
    tallest = max(len(candidate.ink) for candidate, _ in read)
    best: dict[int, tuple[float, list[tuple[Candidate, Array]]]] = {
        0: (0.0, [])
    }
    for pair in read:
        candidate, probabilities = pair
        before, path = best[candidate.start]
        total = before + _score(candidate, probabilities, tallest)
        if candidate.stop not in best or total > best[candidate.stop][0]:
            best[candidate.stop] = total, [*path, pair]
    return best[max(best)]


def _score(candidate: Candidate, probabilities: Array, tallest: int) -> float:
    """Returns the logarithm of how probable it is that this is a digit."""
    score = math.log(max(float(probabilities.max()), 1e-9))
    height, width = candidate.ink.shape
    score -= _WIDE * max(0.0, float(width / tallest - 1))
    if height < 0.55 * tallest:
        score += math.log(_LOW)
    # Digits seldom consist of parts that do not touch.
    if candidate.is_apart or 0 < candidate.cut_from < _SINGLE * tallest:
        score += math.log(_CUT)
    return score


def _digit(box: Box, probabilities: Array, scale: Array) -> Digit:
    rows, columns = box
    corners = [[rows.start, columns.start], [rows.stop, columns.stop]]
    scaled = np.rint(np.array(corners) * scale).astype("int64")
    top, left, bottom, right = scaled.ravel().tolist()
    return Digit(
        int(probabilities.argmax()),
        float(probabilities.max()),
        (top, left, bottom, right),
    )
