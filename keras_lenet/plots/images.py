"""Images with their actual and predicted classes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from keras_lenet.plots.figure import (
    WRONG_COLOR,
    NotebookFigure,
    check_predictions,
    class_name,
    escape_tex,
    make_panels,
    show_image,
)


def plot_predictions(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
) -> Figure:
    r"""Draws a grid of images with their actual and predicted classes.

    A cross and another colour mark wrong predictions.

    Args:
        images: Array of shape `(n, height, width, channels)`, 1 channel
            (grey) or 3 (colour), or `(n, height, width)`; integers or floats
            in [0, 255], or floats in [0, 1].
        labels: Array of integers of shape `(n,)`, the actual classes.
        predictions: Array of integers of shape `(n,)`, the predicted classes.
            Or a model's output of shape `(n, num_classes)`, where the largest
            wins, or `(n, 1)`, where class 1 is above 0.5.
        class_names: Sequence of strings, the names of the classes from 0.
            Defaults to their numbers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If lengths differ, or `images` have another shape or range.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_predictions
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 28, 28))
    >>> figure = plot_predictions(images.astype("uint8"), [7, 1], [7, 2])
    >>> [axes.get_title() for axes in figure.axes]
    ['actual 7\npredicted 7', 'actual 1\npredicted 2 ✗']
    """
    pixels, actual, predicted = check_predictions(images, labels, predictions)
    count = len(pixels)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure = NotebookFigure(
        figsize=(1.6 * columns, 2.0 * rows + 0.4), layout="constrained"
    )
    right = actual == predicted
    for index, axes in enumerate(make_panels(figure, rows, columns, count)):
        show_image(axes, pixels[index])
        mark = "" if right[index] else " ✗"
        axes.set_title(
            f"actual {class_name(actual[index], class_names)}\n"
            f"predicted {class_name(predicted[index], class_names)}{mark}",
            fontsize=9,
            color="black" if right[index] else WRONG_COLOR,
            fontweight="normal" if right[index] else "bold",
        )
    figure.suptitle(
        f"{right.sum()} of {count} right"
        + ("" if right.all() else ", wrong ones marked ✗"),
        fontsize=10,
    )
    return figure


def plot_errors(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    max_images: int = 200,
) -> Figure:
    r"""Draws misclassified images with their actual and predicted classes.

    It is like figure 8 of https://doi.org/10.1109/5.726791.

    Args:
        images: Array, as for `plot_predictions`.
        labels: Array, as for `plot_predictions`.
        predictions: Array, as for `plot_predictions`.
        class_names: Sequence of strings, as for `plot_predictions`.
        max_images: Integer. The maximum number of images. Defaults to `200`.

    Returns:
        A `Figure`.

    Raises:
        ValueError: As for `plot_predictions`.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_errors
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 28, 28))
    >>> figure = plot_errors(images.astype("uint8"), [7, 1, 4], [7, 2, 9])
    >>> [axes.get_title() for axes in figure.axes]
    ['1→2', '4→9']
    """
    pixels, actual, predicted = check_predictions(images, labels, predictions)
    wrong = np.flatnonzero(actual != predicted)
    drawn = wrong[:max_images]
    columns = max(1, min(10, len(drawn)))
    rows = max(1, math.ceil(len(drawn) / columns))
    figure = NotebookFigure(
        figsize=(max(4, 0.75 * columns), 0.95 * rows + 0.5),
        layout="constrained",
    )
    for index, axes in zip(
        drawn, make_panels(figure, rows, columns, len(drawn)), strict=True
    ):
        show_image(axes, pixels[index])
        axes.set_title(
            f"{class_name(actual[index], class_names)}→"
            f"{class_name(predicted[index], class_names)}",
            fontsize=8,
        )
    figure.suptitle(
        f"{len(wrong):,} of {len(pixels):,} wrong: actual→predicted"
        + (f", the first {len(drawn)}" if len(drawn) < len(wrong) else ""),
        fontsize=10,
    )
    return figure


def plot_pictures(
    pictures: Sequence[npt.ArrayLike],
    images: Sequence[npt.ArrayLike | None],
    titles: Sequence[str],
) -> Figure:
    """Draws pictures beside the images that a model gets of them.

    Args:
        pictures: Sequence of uint8 arrays of shape `(height, width, channels)`
            with 1 or 3 channels, of any sizes.
        images: Sequence of such arrays, e.g. the outputs of
            `keras_lenet.pictures.prepare_character`; `None` for a picture
            without ink.
        titles: Sequence of strings, the titles of the pictures.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If lengths differ, or there are no pictures.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_pictures
    >>> photo = np.full((40, 60, 3), 200, "uint8")
    >>> figure = plot_pictures([photo], [None], ["blank.png: no ink"])
    >>> figure.axes[0].get_title(loc="left")
    'blank.png: no ink'
    """
    _check_lengths(pictures=pictures, images=images, titles=titles)
    count = len(pictures)
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = NotebookFigure(
        figsize=(3.6 * columns, 2.1 * rows + 0.2), layout="constrained"
    )
    panels = make_panels(figure, rows, 2 * columns, 2 * count)
    for left, right, picture, image, title in zip(
        panels[::2], panels[1::2], pictures, images, titles, strict=True
    ):
        show_image(left, np.asarray(picture))
        left.set_title(escape_tex(title), fontsize=9, loc="left")
        if image is None:
            right.remove()
        else:
            show_image(right, np.asarray(image))
    return figure


def plot_readings(
    pictures: Sequence[npt.ArrayLike],
    readings: Sequence[Sequence[Any]],
    titles: Sequence[str],
) -> Figure:
    """Draws pictures with a box around each digit, and its class.

    Args:
        pictures: Sequence of uint8 arrays of shape `(height, width, channels)`
            with 1 or 3 channels, of any sizes.
        readings: Sequence of the digits of each picture, as
            `keras_lenet.pictures.read_digits` returns them in rows.
        titles: Sequence of strings, the titles of the pictures.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If lengths differ, or there are no pictures.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.pictures import Digit
    >>> from keras_lenet.plots import plot_readings
    >>> page = np.full((40, 60, 3), 200, "uint8")
    >>> digit = Digit(7, 0.98, (5, 10, 30, 25))
    >>> figure = plot_readings([page], [[digit]], ["page.png: 7"])
    >>> figure.axes[0].texts[0].get_text()
    '7'
    """
    _check_lengths(pictures=pictures, readings=readings, titles=titles)
    count = len(pictures)
    columns = min(2, count)
    rows = math.ceil(count / columns)
    figure = NotebookFigure(
        figsize=(4.8 * columns, 2.6 * rows + 0.2), layout="constrained"
    )
    panels = make_panels(figure, rows, columns, count)
    for axes, picture, digits, title in zip(
        panels, pictures, readings, titles, strict=True
    ):
        show_image(axes, np.asarray(picture))
        axes.set_title(escape_tex(title), fontsize=9, loc="left")
        for digit in digits:
            top, left, bottom, right = digit.box
            axes.add_patch(
                Rectangle(
                    (left - 0.5, top - 0.5),
                    right - left,
                    bottom - top,
                    fill=False,
                    color=WRONG_COLOR,
                )
            )
            axes.text(
                left, top, str(digit.label), color=WRONG_COLOR, va="bottom"
            )
    return figure


def _check_lengths(**sequences: Sequence[Any]) -> None:
    """Checks that three arguments have the same length."""
    first, second, third = (len(sequence) for sequence in sequences.values())
    if not first == second == third > 0:
        names = "`{}`, `{}` and `{}`".format(*sequences)
        raise ValueError(
            f"{names} must have the same length, at least 1. "
            f"Received: {first}, {second} and {third}."
        )
