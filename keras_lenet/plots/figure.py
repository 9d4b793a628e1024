"""Figure, colours, checks and panels that all plots share."""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from keras_lenet.files.atomic import atomic_write
from keras_lenet.types import Array

# The palette of Okabe and Ito is distinct for any colour vision
# (https://jfly.uni-koeln.de/color/). In greyscale, dashes tell lines apart.
TRAINING_STYLE: dict[str, Any] = {"color": "#0072B2", "linestyle": "-"}
HELD_OUT_STYLES: list[dict[str, Any]] = [
    {"color": "#D55E00", "linestyle": "--"},
    {"color": "#009E73", "linestyle": ":"},
    {"color": "#CC79A7", "linestyle": "-."},
]
WRONG_COLOR = "#D55E00"
# Orange and purple are distinct for any colour vision. White is 0.
SIGNED_COLORS = "PuOr_r"


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure atomically, in the format of the path's suffix."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


def to_pixels(figure: Figure, path: Path | None = None) -> Array:
    """Returns a figure as a uint8 array of shape `(height, width, 3)`.

    `path` is the file to which `save_figure` has written it, if any.
    """
    if path is not None and path.suffix == ".png":
        # Reading takes a tenth of the time of drawing.
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def check_predictions(
    images: npt.ArrayLike, labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> tuple[Any, Any, Any]:
    """Returns checked pixels, actual classes and predicted classes."""
    pixels, actual = np.asarray(images), np.asarray(labels)
    predicted = to_classes(predictions)
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have shape (n, height, width, channels) with 1 or "
            "3 channels, or (n, height, width). "
            f"Received: images of shape {pixels.shape}."
        )
    count = len(pixels)
    if count == 0 or actual.shape != (count,) or predicted.shape != (count,):
        raise ValueError(
            "`images`, `labels` and `predictions` must have the same length, "
            f"at least 1. Received: {count} images, labels of shape "
            f"{actual.shape} and predictions of shape {predicted.shape}."
        )
    check_pixels(pixels)
    if pixels.dtype.kind in "iu" or are_raw_floats(pixels):
        pixels = np.rint(pixels).astype("uint8")
    return pixels, actual, predicted


def to_classes(predictions: npt.ArrayLike) -> Any:
    """Returns the classes of a model's output, or of classes themselves."""
    predicted = np.asarray(predictions)
    if predicted.ndim != 2:
        return predicted
    if predicted.shape[1] == 1:
        # Use the threshold of Keras' `BinaryAccuracy`.
        return (predicted[:, 0] > 0.5).astype("int64")
    return predicted.argmax(axis=1)


def make_panels(figure: Figure, rows: int, columns: int, count: int) -> Any:
    """Returns `count` panels of a grid, and removes the others."""
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return panels[:count]


def tile(pictures: Array, columns: int, gap: int = 1) -> Array:
    """Returns pictures of one size as one array, with NaN between them."""
    count, height, width = pictures.shape
    rows = math.ceil(count / columns)
    tiles = np.full((rows * columns, height + gap, width + gap), np.nan)
    tiles[:count, :height, :width] = pictures
    tiles = tiles.reshape(rows, columns, height + gap, width + gap)
    joined = tiles.swapaxes(1, 2).reshape(rows * (height + gap), -1)
    return joined[:-gap, :-gap]


def are_raw_floats(pixels: Any) -> bool:
    """Returns whether pixels are floats in [0, 255], not in [0, 1]."""
    return bool(pixels.dtype.kind == "f" and pixels.max(initial=0) > 1)


def check_pixels(pixels: Any) -> None:
    """Raises a `ValueError` unless pixels are in [0, 255]."""
    # NaN fails this comparison, too.
    if not ((pixels >= 0) & (pixels <= 255)).all():
        raise ValueError(
            "`images` must be in [0, 255], or floats in [0, 1]. Received: "
            f"numbers from {pixels.min()} to {pixels.max()}."
        )


def show_image(axes: Axes, pixels: Any) -> None:
    """Draws an image without ticks."""
    vmax = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=vmax)
    axes.set_xticks([])
    axes.set_yticks([])


def show_input(axes: Axes, image: Array) -> None:
    """Draws an image of any scale without ticks."""
    low, high = image.min(), image.max()
    if low >= 0 and high <= 255 and (image.dtype.kind in "iu" or high > 1):
        image = np.rint(image).astype("uint8")
    elif low < 0 or high > 1:
        image = (image - low) / (high - low)
    show_image(axes, image)


def class_name(label: int, class_names: Sequence[str] | None) -> str:
    """Returns the name of a class, or its number."""
    if class_names is None or not 0 <= label < len(class_names):
        return str(label)
    return escape_tex(class_names[label])


def escape_tex(text: str) -> str:
    """Escapes dollars, between which Matplotlib expects TeX."""
    return text.replace("$", r"\$")
