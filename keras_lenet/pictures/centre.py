"""Centring characters by their centre of mass."""

import numpy as np

from keras_lenet.types import Array


def center_by_mass(images: Array, size: int = 28) -> Array:
    """Places characters on square fields, centre of mass in the middle.

    This was the last step of making MNIST's images
    (https://doi.org/10.1109/5.726791, section III-A).

    Args:
        images: Array of shape `(n, height, width)`, bright ink on a
            background of 0.
        size: Integer, at least height and width. Defaults to `28`.

    Returns:
        Array of shape `(n, size, size)` and the dtype of `images`. Characters
        that would leave the field are placed at its border. Images without
        ink are placed in the middle.
    """
    count, height, width = images.shape
    fields = np.zeros((count, size, size), images.dtype)
    for image, field in zip(images, fields, strict=True):
        mass = image.astype("float64")
        # Without ink there is no centre of mass; take that of a full image.
        mass = mass if mass.any() else mass + 1
        row = np.average(np.arange(height), weights=mass.sum(axis=1))
        column = np.average(np.arange(width), weights=mass.sum(axis=0))
        top = np.clip(round((size - 1) / 2 - row), 0, size - height)
        left = np.clip(round((size - 1) / 2 - column), 0, size - width)
        field[top : top + height, left : left + width] = image
    return fields
