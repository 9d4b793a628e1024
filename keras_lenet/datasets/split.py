"""Splitting data sets into training and test data."""

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
    """Returns a stratified split, the same on every call.

    `test_size` is an integer number of images, or a float fraction of them.
    """
    from sklearn.model_selection import train_test_split

    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=test_size, stratify=labels, random_state=98
    )
    return Split((x_train, y_train), (x_test, y_test))


def split_file(path: Path, images: Array, labels: Array) -> Split:
    """Holds out 20 % of the images of a file or folder for testing."""
    try:
        return split(images, labels, 0.2)
    except ValueError as error:
        raise FileFormatError(
            path,
            "enough images",
            "of every class to hold out 20 % for testing",
            error,
            "Provide training and test images separately.",
        ) from error
