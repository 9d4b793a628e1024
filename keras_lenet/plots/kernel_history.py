"""How kernels change in training, as a picture and as an animation."""

import os
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from keras_lenet.files.atomic import atomic_write
from keras_lenet.plots.figure import (
    SIGNED_COLORS,
    NotebookFigure,
    tile,
    to_pixels,
)
from keras_lenet.types import Array
from keras_lenet.validation.arguments import is_positive_integer

# An odd number of levels, so that 0 is white. With the greys of the text, they
# fill the 256 colours of a GIF.
_LEVELS, _GREYS = 129, 127
_COLORS = (
    matplotlib.colormaps[SIGNED_COLORS]
    .resampled(_LEVELS)
    .with_extremes(bad="0.75")
)

# Draw the first kernels only of layers with more.
_MAX_ROWS = 16
_MAX_TILES = 100

_MAX_FRAMES = 100
_DURATION_MS = 6000
_LAST_FRAME_MS = 1500


def plot_kernel_history(history: Any, max_steps: int = 8) -> Figure:
    """Draws how the kernels of a layer change in training.

    Each row is a kernel, and each column a training step. Kernels over several
    input maps have a row for each input map and output map. The first 16 rows
    are drawn. All share one colour scale, with white for 0.

    Args:
        history: A `KernelHistory`, or its `history`: a mapping with the
            sequences `"step"`, of integers, and `"kernel"`, of arrays of shape
            `(height, width, ...)`.
        max_steps: Integer, at least 2. The maximum number of columns. They are
            spaced evenly over the entries of `history`, with the first and the
            last. Defaults to `8`.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If `history` has no kernels or kernels of several shapes, or
            `max_steps` is invalid.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_kernel_history
    >>> kernels = np.random.default_rng(0).normal(size=(3, 5, 5, 1, 6))
    >>> history = {"step": [0, 100, 200], "kernel": list(kernels)}
    >>> figure = plot_kernel_history(history)
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['0', '100', '200']
    """
    if not is_positive_integer(max_steps) or max_steps < 2:
        raise ValueError(
            "`max_steps` must be an integer, at least 2. "
            f"Received: max_steps={max_steps!r}"
        )
    steps, kernels = _standardize(history, max_steps)
    count = kernels.shape[1]
    rows = kernels[:, :_MAX_ROWS].swapaxes(0, 1)
    figure = NotebookFigure(
        figsize=(0.65 * len(steps) + 1.8, 0.65 * len(rows) + 0.9),
        layout="constrained",
    )
    axes = figure.subplots()
    height, width = kernels.shape[2:]
    mosaic = tile(rows.reshape(-1, height, width), len(steps))
    _show(axes, mosaic, _limit(rows))
    axes.set_xticks(
        np.arange(len(steps)) * (width + 1) + (width - 1) / 2,
        [f"{step:,}" for step in steps],
    )
    axes.set_yticks(
        np.arange(len(rows)) * (height + 1) + (height - 1) / 2,
        [str(number + 1) for number in range(len(rows))],
    )
    axes.tick_params(length=0)
    axes.set_xlabel("Training steps")
    axes.set_ylabel("Kernel")
    if len(rows) < count:
        axes.set_title(f"{len(rows)} of {count:,} kernels", fontsize=10)
    # Keep the bar equally thick whatever the number of rows.
    figure.colorbar(axes.images[0], label="Weight", aspect=3.5 * len(rows))
    return figure


def save_kernel_animation(
    history: Any, filepath: str | os.PathLike[str]
) -> None:
    """Writes an animated GIF of kernels atomically, with at most 100 frames.

    It has the first 100 kernels, and the step above them.
    """
    steps, kernels = _standardize(history, _MAX_FRAMES)
    kernels = kernels[:, :_MAX_TILES]
    frames = _draw_frames(steps, kernels)
    durations = [max(60, min(500, _DURATION_MS // len(frames)))] * len(frames)
    durations[-1] = _LAST_FRAME_MS
    with atomic_write(filepath) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
        )


def _standardize(history: Any, max_steps: int) -> tuple[list[int], Array]:
    """Returns steps, and kernels of shape (steps, kernels, height, width)."""
    history = getattr(history, "history", history)
    steps, kernels = history.get("step", ()), history.get("kernel", ())
    shapes = {np.shape(kernel) for kernel in kernels}
    if (
        len(steps) != len(kernels)
        or len(shapes) != 1
        or len(next(iter(shapes))) < 3
    ):
        raise ValueError(
            "`history` must have as many steps as kernels, at least 1, and "
            "kernels of one shape (height, width, ...). Received: "
            f"{len(steps)} steps, {len(kernels)} kernels of shapes "
            f"{sorted(shapes)}."
        )
    count = len(steps)
    chosen = np.linspace(0, count - 1, min(count, max_steps)).round()
    indices = [int(index) for index in chosen]
    stacked = np.stack([np.asarray(kernels[i], "float32") for i in indices])
    images = stacked.reshape(*stacked.shape[:3], -1)
    return [int(steps[i]) for i in indices], np.moveaxis(images, -1, 1)


def _limit(kernels: Array) -> float:
    """Returns the end of a symmetric colour scale."""
    finite = kernels[np.isfinite(kernels)]
    return float(np.abs(finite).max(initial=0)) or 1.0


def _show(axes: Axes, mosaic: Array, limit: float) -> None:
    axes.imshow(
        mosaic, cmap=_COLORS, vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axes.spines[:].set_visible(False)


def _draw_frames(steps: list[int], kernels: Array) -> list[Any]:
    """Returns an image with a palette for each step."""
    count = kernels.shape[1]
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    mosaics = [tile(of_step, columns) for of_step in kernels]

    cell = max(0.35, min(1.1, 4 / columns))
    figure = NotebookFigure(
        figsize=(max(2.4, cell * columns) + 1.1, cell * rows + 0.6),
        layout="constrained",
    )
    axes = figure.subplots()
    _show(axes, mosaics[0], _limit(kernels))
    axes.set_xticks([])
    axes.set_yticks([])
    figure.colorbar(axes.images[0], label="Weight")
    # The longest title first, as the layout is that of the first drawing.
    title = axes.set_title(f"Step {steps[-1]:,}", fontsize=11)
    to_pixels(figure)
    figure.set_layout_engine("none")

    palette = _palette()
    frames = []
    for step, mosaic in zip(steps, mosaics, strict=True):
        axes.images[0].set_data(mosaic)
        title.set_text(f"Step {step:,}")
        frames.append(_quantize(to_pixels(figure), palette))
    figure.clear()
    return frames


def _quantize(pixels: Array, palette: Array) -> Any:
    """Returns an image of the nearest colours of a palette."""
    # Pillow's `quantize` approximates, which makes white light grey.
    codes = pixels.astype("int32") @ [1 << 16, 1 << 8, 1]
    colors, indices = np.unique(codes, return_inverse=True)
    channels = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], 1)
    distances = ((channels[:, np.newaxis] - palette) ** 2).sum(axis=2)
    nearest = distances.argmin(axis=1).astype("uint8")
    image = Image.fromarray(nearest[indices].reshape(codes.shape))
    image.putpalette([int(value) for value in palette.ravel()])
    return image


def _palette() -> Array:
    """Returns 256 colours, an array of shape (256, 3)."""
    colors = _COLORS(np.arange(_LEVELS), bytes=True)[:, :3]
    greys = np.linspace(0, 255, _GREYS).round()
    return np.concatenate(
        [colors, np.repeat(greys[:, np.newaxis], 3, axis=1)]
    ).astype("int32")
