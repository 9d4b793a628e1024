"""Kernels, and the output of each layer for an image."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from keras_lenet.plots.figure import (
    SIGNED_COLORS,
    TRAINING_STYLE,
    WRONG_COLOR,
    NotebookFigure,
    class_name,
    escape_tex,
    show_input,
    tile,
)
from keras_lenet.plots.model import (
    check_classifier,
    compute_layers,
    get_layer,
    predict,
    standardize_images,
    to_numpy,
    to_probabilities,
)
from keras_lenet.types import Array

# The most maps that are drawn side by side.
_MAX_COLUMNS = 16

# The 84 units of F6 are a picture of 12 rows of 7 pixels
# (https://doi.org/10.1109/5.726791, figure 3).
_CODE_SHAPE = (12, 7)


def plot_kernels(model: Any, layer_name: str = "c1") -> Figure:
    """Draws the kernels of a convolution.

    There is a row for each input map and a column for each output map. All
    kernels share one scale. A pair of maps that `TableConv2D` does not connect
    has no kernel, and its place stays empty.

    Args:
        model: A Keras model.
        layer_name: String. The name of a built `keras.layers.Conv2D` or
            `keras_lenet.original.TableConv2D`. Defaults to `"c1"`.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If the model has no layer of that name, or the layer is
            another one.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.plots import plot_kernels
    >>> figure = plot_kernels(LeNet5(), "c3")
    >>> figure.axes[0].get_title()
    'c3: 96 kernels of 5x5'
    """
    kernels = _read_kernels(get_layer(model, layer_name, "layer_name"))
    height, width, inputs, outputs = kernels.shape
    pictures = kernels.transpose(2, 3, 0, 1).reshape(-1, height, width)
    limit = float(np.nanmax(np.abs(pictures))) or 1.0
    cell = np.clip(5.4 / outputs, 0.12, 0.7)
    figure = NotebookFigure(
        figsize=(cell * outputs + 1.6, max(1.6, cell * inputs + 0.9)),
        layout="constrained",
    )
    axes = figure.subplots()
    shown = axes.imshow(
        tile(pictures, outputs, _gap(width)),
        # A grey ground tells a missing kernel from weights near 0.
        cmap=colormaps[SIGNED_COLORS].with_extremes(bad="0.75"),
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    _number_tiles(axes.xaxis, outputs, width)
    _number_tiles(axes.yaxis, inputs, height)
    axes.set_xlabel("Output map")
    axes.set_ylabel("Input map")
    axes.spines[:].set_visible(False)
    count = int(np.isfinite(pictures).all(axis=(1, 2)).sum())
    axes.set_title(
        f"{escape_tex(layer_name)}: {count} kernel{'s' * (count > 1)} of "
        f"{height}x{width}"
    )
    figure.colorbar(shown, label="Weight", pad=0.02)
    return figure


def plot_feature_maps(
    model: Any,
    image: npt.ArrayLike,
    layer_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    r"""Draws the outputs of a model's layers for one image.

    There is a row for each layer: pictures for maps, a strip for a vector, and
    bars for the model's output. Each row has its own scale. If a layer of the
    model has `codes` for 84 units, like that of
    `keras_lenet.original.OriginalLeNet5`, the units are drawn as a picture
    beside the nearest code.

    Args:
        model: A functional model or a built `keras.Sequential`. It takes
            images with the channels last, and returns one number per class.
        image: Array of shape `(height, width, channels)`, 1 channel (grey) or
            3 (colour), or `(height, width)`, of the size and the scale that
            the model takes.
        layer_names: Sequence of strings, the layers to draw. Defaults to all
            but those whose output has the same numbers as the layer before,
            such as `Flatten`.
        class_names: Sequence of strings, the names of the classes from 0.
            Defaults to their numbers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If the model has another structure or lacks a layer, or the
            image has another shape or is not finite.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> from keras_lenet.plots import plot_feature_maps
    >>> _, (images, _) = load_data("digits")
    >>> model = LeNet5.from_preset("digits")
    >>> figure = plot_feature_maps(model, images[0], ["c1", "output"])
    >>> [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    ['image\n28x28', 'c1\n6 of 28x28', 'output\n10']
    """
    check_classifier(model)
    pixels = standardize_images(model, np.asarray(image)[np.newaxis], "image")
    layers = _layers_after_input(model)
    if layer_names is not None:
        layers = [get_layer(model, n, "layer_names") for n in layer_names]
    outputs = predict(model, pixels)
    values = [v[0] for v in compute_layers(model, layers, pixels)]
    if layer_names is None:
        layers, values = _without_copies(layers, values)

    codes = _find_codes(model)
    rows = [_image_row(pixels[0])]
    for layer, value in zip(layers, values, strict=True):
        if layer.output is model.outputs[0]:
            rows.append(_output_row(layer.name, value, class_names))
        elif value.ndim == 3 and max(value.shape[:2]) > 1:
            rows.append(_maps_row(layer.name, value))
        elif codes is not None and value.size == codes.shape[1]:
            rows.append(
                _code_row(layer.name, value.ravel(), codes, class_names)
            )
        else:
            rows.append(_vector_row(layer.name, value.ravel()))
    figure = _draw_rows(rows)
    answer = int(outputs[0].argmax())
    share = to_probabilities(model, outputs)[0, answer]
    figure.suptitle(
        f"{escape_tex(model.name)} answers {class_name(answer, class_names)} "
        f"({share:.1%})"
    )
    return figure


def _read_kernels(layer: Any) -> Array:
    """Returns kernels as `(height, width, inputs, outputs)`, NaN if missing."""
    import keras

    kernel: Any = getattr(layer, "kernel", None)
    table: Any = getattr(layer, "table", None)
    is_convolution = isinstance(layer, keras.layers.Conv2D)
    if kernel is None or not (is_convolution or table is not None):
        raise ValueError(
            "`layer_name` must name a built `Conv2D` or `TableConv2D`. "
            f"Received: layer_name={layer.name!r}, a {type(layer).__name__}"
        )
    kernels = to_numpy(kernel)
    if kernels.ndim == 4:
        return kernels
    # `TableConv2D` stores the kernels of each output map's inputs in turn.
    pairs = [
        (source, target)
        for target, sources in enumerate(table)
        for source in sources
    ]
    sources, targets = np.transpose(pairs)
    inputs = layer.input.shape[-1]
    full = np.full((*kernels.shape[:2], inputs, len(table)), np.nan, "float32")
    full[:, :, sources, targets] = kernels
    return full


def _gap(size: int) -> int:
    return max(1, round(size / 14))


def _number_tiles(axis: Axis, count: int, size: int) -> None:
    """Writes the numbers of tiles, of many only some."""
    numbers = np.arange(0, count, math.ceil(count / 32))
    centres = numbers * (size + _gap(size)) + (size - 1) / 2
    axis.set_ticks(centres, list(map(str, numbers)))
    axis.set_tick_params(length=0, labelsize=8)


def _layers_after_input(model: Any) -> list[Any]:
    import keras

    return [
        layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def _without_copies(
    layers: Sequence[Any], values: Sequence[Array]
) -> tuple[list[Any], list[Array]]:
    """Leaves out outputs with the numbers of the layer before."""
    kept = [
        index
        for index, value in enumerate(values)
        if index == 0
        or not np.array_equal(value.ravel(), values[index - 1].ravel())
    ]
    return [layers[i] for i in kept], [values[i] for i in kept]


def _find_codes(model: Any) -> Array | None:
    for layer in model.layers:
        codes: Any = getattr(layer, "codes", None)
        if np.shape(codes)[1:] == (math.prod(_CODE_SHAPE),):
            return np.asarray(codes)
    return None


class _Row(NamedTuple):
    """A layer's part of a figure. `draw` returns what needs a colour bar."""

    label: str
    height: float
    draw: Callable[[Axes], AxesImage | None]


def _draw_rows(rows: Sequence[_Row]) -> Figure:
    heights = [row.height for row in rows]
    figure = NotebookFigure(
        figsize=(7, sum(heights) + 0.12 * len(rows) + 0.4), layout="constrained"
    )
    grid = figure.add_gridspec(
        len(rows), 2, height_ratios=heights, width_ratios=[60, 1]
    )
    for index, row in enumerate(rows):
        axes = figure.add_subplot(grid[index, 0], anchor="W")
        axes.set_ylabel(row.label, rotation=0, ha="right", va="center")
        axes.tick_params(labelsize=8, length=2)
        shown = row.draw(axes)
        if shown is not None:
            ends = shown.get_clim()
            scale = figure.add_subplot(grid[index, 1])
            bar = figure.colorbar(shown, cax=scale, ticks=ends)
            bar.ax.set_yticklabels([f"{end:.3g}" for end in ends], fontsize=8)
            bar.ax.tick_params(length=0)
    return figure


def _image_row(image: Array) -> _Row:
    def draw(axes: Axes) -> None:
        show_input(axes, image)

    return _Row(_label("image", image.shape), 0.7, draw)


def _maps_row(name: str, maps: Array) -> _Row:
    height, width, count = maps.shape
    columns = min(count, _MAX_COLUMNS)
    tiles = tile(maps.transpose(2, 0, 1), columns, _gap(width))
    cell = min(0.7, 5.4 / columns)

    def draw(axes: Axes) -> AxesImage:
        return _show_values(axes, tiles)

    lines = math.ceil(count / columns)
    return _Row(
        _label(name, maps.shape),
        max(0.3, lines * cell * height / width),
        draw,
    )


def _vector_row(name: str, values: Array) -> _Row:
    def draw(axes: Axes) -> AxesImage:
        shown = _show_values(axes, values[np.newaxis])
        axes.set_aspect("auto")
        axes.spines[:].set_visible(True)
        return shown

    return _Row(_label(name, values.shape), 0.3, draw)


def _code_row(
    name: str,
    values: Array,
    codes: Array,
    class_names: Sequence[str] | None,
) -> _Row:
    """Draws 84 units beside the nearest code."""
    nearest = int(((codes - values) ** 2).sum(axis=1).argmin())
    pictures = np.stack([values, codes[nearest]]).reshape(2, *_CODE_SHAPE)

    def draw(axes: Axes) -> AxesImage:
        shown = _show_values(axes, tile(pictures, 2))
        axes.text(
            1.05,
            0.5,
            "Right: the nearest code,\n"
            f"that of {class_name(nearest, class_names)}",
            transform=axes.transAxes,
            va="center",
        )
        return shown

    return _Row(_label(name, values.shape), 1.2, draw)


def _output_row(
    name: str, values: Array, class_names: Sequence[str] | None
) -> _Row:
    def draw(axes: Axes) -> None:
        numbers = range(values.size)
        bars = axes.bar(numbers, values, color=TRAINING_STYLE["color"])
        axes.axhline(0, color="black", linewidth=0.8)
        names = [class_name(number, class_names) for number in numbers]
        rotation = 90 if max(map(len, names)) > 5 else 0
        axes.set_xticks(numbers, names, rotation=rotation)
        axes.set_xlabel("Class")
        axes.spines[["top", "right"]].set_visible(False)
        # The largest output may be 0, and have no bar.
        answer = int(values.argmax())
        bars[answer].set_color(WRONG_COLOR)
        name = axes.get_xticklabels()[answer]
        name.set(color=WRONG_COLOR, fontweight="bold")

    return _Row(_label(name, values.shape), 1.0, draw)


def _show_values(axes: Axes, values: Array) -> AxesImage:
    """Draws numbers without ticks, with a scale that begins or centres at 0."""
    limit = float(np.nanmax(np.abs(values))) or 1.0
    signed = bool(np.nanmin(values) < 0)
    shown = axes.imshow(
        values,
        cmap=SIGNED_COLORS if signed else "gray",
        vmin=-limit if signed else 0,
        vmax=limit,
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return shown


def _label(name: str, shape: tuple[int, ...]) -> str:
    """Returns a layer's name above its size, e.g. `6 of 28x28`."""
    if len(shape) == 1:
        return f"{escape_tex(name)}\n{shape[0]}"
    count = f"{shape[2]} of " if shape[2] > 1 else ""
    return f"{escape_tex(name)}\n{count}{shape[0]}x{shape[1]}"
