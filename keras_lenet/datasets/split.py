"""Splitting images into training and test."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from keras_lenet.files.formats import FileFormatError
from keras_lenet.types import Array


class Split(NamedTuple):
    """Images and labels for training and test."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    class_names: Sequence[str] | None = None


def split(images: Array, labels: Array, test_size: float) -> Split:
    """Sets images for test apart, of every class the same share.

    Args:
        images: Array of shape `(n, ...)`.
        labels: Array of integers of shape `(n,)`.
        test_size: Integer, how many, or float, which share.

    Returns:
        A `Split`, which is the same every time.

    Raises:
        ValueError: When a class has too few images.
    """
    from sklearn.model_selection import train_test_split

    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=test_size, stratify=labels, random_state=98
    )
    return Split((x_train, y_train), (x_test, y_test))


def split_file(path: Path, images: Array, labels: Array) -> Split:
    """Sets a fifth of the images of a file apart for test."""
    try:
        return split(images, labels, 0.2)
    except ValueError as error:
        raise FileFormatError(
            path,
            "enough images",
            "of every class to set a fifth of them apart for test",
            error,
            "Give images for training and test apart.",
        ) from error
