"""Validation of arrays of images and labels."""

import numpy as np
import numpy.typing as npt

from keras_lenet.types import Array


def check_images_and_labels(
    images: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int | None = None
) -> tuple[Array, Array]:
    """Returns valid images and labels in a standard form.

    Takes what `image_dataset_from_array` takes. Returns uint8 or float32
    images of shape `(n, height, width, channels)` and int64 labels of shape
    `(n,)`.
    """
    images, labels = _as_array("images", images), _as_array("labels", labels)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise ValueError(
            "`images` must have the shape (n, height, width, channels) or "
            f"(n, height, width). Received: images of shape {images.shape}."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            "`labels` must have the shape (n,). Received: labels of shape "
            f"{labels.shape}. Convert one-hot labels with "
            "`labels.argmax(axis=1)`."
        )
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            "`images` and `labels` must have the same length, at least 1. "
            f"Received: {len(images)} images and {len(labels)} labels."
        )
    _check_images(images)
    check_labels(labels, num_classes)
    if images.dtype != np.uint8:
        images = images.astype("float32")
    return images, labels.astype("int64")


def _as_array(name: str, values: npt.ArrayLike) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be one array. Received: parts of different shapes "
            f"({error}). Make their shapes equal."
        ) from error


def _check_images(images: Array) -> None:
    if 0 in images.shape:
        raise ValueError(
            "`images` must have at least 1x1 pixels and 1 channel. Received: "
            f"images of shape {images.shape}. Resize them, e.g. with "
            "`keras.layers.Resizing(32, 32)`."
        )
    _, first, second, last = images.shape
    if first in (1, 3) and second == last and last > 4:
        raise ValueError(
            "`images` must have the channels last. Received: images of shape "
            f"{images.shape}. Transpose them with "
            "`images.transpose(0, 2, 3, 1)`."
        )
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise ValueError(
            "`images` must be uint8 pixels in [0, 255] or floats in [0, 1]. "
            f"Received: images of dtype {images.dtype}. "
            f"{uint8_advice(images)}"
        )
    # Negated, because NaN compares false.
    wrong = ~((images >= 0) & (images <= 1))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            "`images` of floats must be in [0, 1]. Received: "
            f"{images[index]}, first at index {index}. Pass raw pixels as "
            "uint8 to a model with preprocessing, or divide them by 255 for a "
            "model without."
        )
    if 0 < images.max() <= 1 / 255:
        raise ValueError(
            "`images` of floats must be in [0, 1]. Received: none above 1/255, "
            f"the largest {images.max():.3g}, so they were divided by 255 "
            "twice. Divide them once."
        )


def uint8_advice(images: Array) -> str:
    """Returns advice on how to convert pixels to uint8 without loss."""
    if images.dtype.kind not in "biuf" or images.size == 0:
        return "Pass numbers."
    low, high = images.min(), images.max()
    if 0 <= low and 0 < high <= 1:
        return "Convert them with `np.rint(255 * images).astype('uint8')`."
    if 0 <= low and high <= 255:
        return "Convert them with `np.rint(images).astype('uint8')`."
    return f"Scale them to [0, 255] first; they are from {low} to {high}."


def check_labels(labels: Array, num_classes: int | None) -> None:
    """Checks labels, which the backends handle inconsistently if invalid.

    If `num_classes` is given, labels must be below it.
    """
    if labels.dtype.kind not in "iu":
        # Report the first fraction; whole numbers may be valid labels.
        index = 0
        if labels.dtype.kind == "f":
            index = int((labels != np.floor(labels)).argmax())
        raise ValueError(
            "`labels` must be integers. Received: labels of dtype "
            f"{labels.dtype}, e.g. {labels[index]!r} at index {index}. If they "
            "are whole numbers, convert them with `labels.astype('int64')`."
        )
    wrong = labels < 0
    expected = "not negative"
    if num_classes is not None:
        wrong |= labels >= num_classes
        expected = f"from 0 to {num_classes - 1}"
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(
            f"`labels` must be {expected}. Received: {labels[index]}, first "
            f"at index {index}."
        )
