"""A drawing of a network, as in figure 2 of the 1998 paper."""

import dataclasses
import itertools
import math
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from keras_lenet.plots.figure import NotebookFigure

# All lengths are in inches.
_LARGEST_MAP = 1.4
_SMALLEST_MAP = 0.22
_LONGEST_BAR = 2.2
_SHORTEST_BAR = 0.3
_BAR_THICKNESS = 0.1
_BOX = (0.34, 1.7)
_STACK_DEPTH = 0.55
_MAX_DRAWN_MAPS = 16
_GAP = 0.4
_GAP_AFTER_BOX = 1.2
_MIN_PITCH = 1.12

_EDGE = "0.25"
# Tints of the colours of Okabe and Ito, by the way a layer computes. They
# differ in grey, too.
_TINTS = {
    "input": "white",
    "convolution": "#DCEAF5",
    "subsampling": "#F6CDB0",
    "full": "#A9D8C7",
    "other": "white",
}
_LINES = {
    "convolution": "#0072B2",
    "subsampling": "#B34700",
    "full": "0.45",
    "other": "0.45",
}


@dataclasses.dataclass
class _Stage:
    """What is drawn of one layer, or of the input."""

    kind: str
    # (height, width, maps), (units,) or, in a box, anything.
    shape: tuple[int, ...]
    title: str = ""
    operation: str = ""
    weights: int = 0
    # The size of the patch that one output sees, unless it sees everything.
    receptive_field: tuple[int, int] | None = None


@dataclasses.dataclass
class _Drawing:
    """Where a stage is drawn, relative to its centre."""

    width: float
    height: float
    # Height and width of the front map; 0 without maps.
    map_size: tuple[float, float] = (0.0, 0.0)
    thickness: float = 0.0
    x: float = 0.0


class _TextFigure(NotebookFigure):
    """A figure whose text stays text in SVG files."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            super().savefig(*args, **kwargs)


def plot_architecture(model: Any) -> Figure:
    r"""Draws the layers of a network, as in figure 2 of the 1998 paper.

    From left to right, it draws stacks of feature maps, and bars for layers
    without maps. The lines lead from the patch that one output sees to this
    output (https://doi.org/10.1109/5.726791, figure 2). As in the paper, `C` is
    a convolution, which may see whole feature maps, `S` is subsampling, and `F`
    sees all outputs of a layer without maps. The sizes and the numbers of
    weights are those of the model's layers. At most 16 maps of a layer are
    drawn.

    Layers without weights that keep the number of outputs, e.g. `Dropout` and
    `Flatten`, are not drawn, nor are layers without weights before the first
    convolution, e.g. `PadTo32`. A box with its name stands for any other layer.

    `figure.savefig("lenet5.svg")` writes an SVG whose text can be searched and
    edited.

    Args:
        model: A `LeNet5`, an `OriginalLeNet5`, or any built Functional or
            Sequential model that is a chain of layers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If `model` is not a chain of layers with known sizes.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.plots import plot_architecture
    >>> figure = plot_architecture(LeNet5())
    >>> texts = [text.get_text() for text in figure.axes[0].texts]
    >>> "C3: f. maps\n16@10x10" in texts, "61,706" in texts
    (True, True)
    """
    layers = _chain(model)
    stages = _stages(layers, _sizes(model.inputs[0].shape))
    drawings = _place(stages)
    top = max(drawing.height for drawing in drawings) / 2
    left = drawings[0].x - max(drawings[0].width / 2, 0.85) - 0.05
    right = drawings[-1].x + max(drawings[-1].width / 2, 0.5) + 0.05
    low, high = -top - 0.74, top + 0.52
    figure = _TextFigure(
        figsize=(right - left, high - low), layout="constrained"
    )
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0, h_pad=0)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)

    total = sum(stage.weights for stage in stages)
    words, numbers = -top - 0.4, -top - 0.66
    for y, text in ((words, "All weights"), (numbers, f"{total:,}")):
        _write(axes, left + 0.05, y, text, ha="left", fontweight="bold")
    for stage, drawing in zip(stages, drawings, strict=True):
        _draw(axes, stage, drawing)
        if stage.kind != "other":
            _write(axes, drawing.x, top + 0.15, stage.title)
    for (source, target), (before, after) in zip(
        itertools.pairwise(stages), itertools.pairwise(drawings), strict=True
    ):
        _connect(axes, source, before, target, after)
        x = after.x
        if target.kind != "other":
            x = (_right(before) + _left(after)) / 2
            _write(axes, x, words, target.operation)
        _write(axes, x, numbers, f"{target.weights:,}")
    return figure


def _chain(model: Any) -> list[Any]:
    """Returns the layers of a model after its input, in their order."""
    import keras

    if not getattr(model, "inputs", None):
        raise ValueError(
            "`model` must be a built Functional or Sequential model. Received: "
            f"model={model!r}. Start it with a `keras.Input`."
        )
    layers = [
        layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    if isinstance(model, keras.Sequential):
        # A Sequential model is a chain, even of another model's layers.
        return layers
    tensor = model.inputs[0]
    is_chain = len(model.inputs) == len(model.outputs) == 1
    for layer in layers:
        is_chain = is_chain and layer.input is tensor
        tensor = layer.output
    if not is_chain or tensor is not model.outputs[0]:
        raise ValueError(
            "`model` must be a chain, in which each layer sees only the one "
            f"before it. Received: model={model!r}, which has branches, "
            "several inputs or outputs, or shares layers with other models."
        )
    return layers


def _sizes(shape: Any) -> tuple[int, ...]:
    """Returns a shape without the batch axis."""
    # Some layers of Keras return a list, as do layers with several outputs.
    if all(isinstance(size, int) for size in shape[1:]):
        return tuple(shape[1:])
    raise ValueError(
        "`model` must have layers of known sizes, with one output each. "
        f"Received: a layer with shape {shape}. Set the sizes with "
        "`keras.Input(shape)`."
    )


def _stages(layers: list[Any], input_shape: tuple[int, ...]) -> list[_Stage]:
    """Returns the input and the layers to draw."""
    channels_first = any(
        getattr(layer, "data_format", None) == "channels_first"
        for layer in layers
    )
    shape = input_shape
    stages = [_Stage("input", _to_maps(shape, channels_first))]
    for layer in layers:
        output_shape = _sizes(layer.compute_output_shape((None, *shape)))
        before = _to_maps(shape, channels_first)
        after = _to_maps(output_shape, channels_first)
        size_changes = math.prod(shape) != math.prod(output_shape)
        shape = output_shape
        kind = _kind(layer, before, after)
        weights = layer.count_params()
        if not weights and kind == "other":
            if len(stages) == 1:
                # Draw the image that the first drawn layer sees.
                if len(after) > 1:
                    stages[0].shape = after
                continue
            if not size_changes:
                continue
        stage = _Stage(kind, after, weights=weights)
        if kind in ("convolution", "subsampling"):
            stage.receptive_field = _receptive_field(layer, before, after)
        elif kind == "full" and len(after) == 3:
            stage.receptive_field = (1, 1)
        elif kind == "other":
            stage.title = type(layer).__name__
        stage.operation = _operation(layer, stage)
        stages.append(stage)
    _add_titles(stages, _to_maps(input_shape, channels_first))
    return stages


def _to_maps(shape: tuple[int, ...], channels_first: bool) -> tuple[int, ...]:
    """Returns `(height, width, maps)`, or `(units,)` for maps of one pixel."""
    if len(shape) == 3 and channels_first:
        shape = (*shape[1:], shape[0])
    if len(shape) == 3 and shape[:2] == (1, 1):
        shape = shape[2:]
    return shape


def _kind(layer: Any, before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """Returns how a layer is drawn."""
    import keras

    name = type(layer).__name__
    is_smaller = math.prod(after[:2]) <= math.prod(before[:2])
    if len(before) == 3 and (is_smaller or len(after) == 1):
        if "Pooling" in name or "Subsampling" in name:
            return "subsampling"
        if hasattr(layer, "kernel_size"):
            return "convolution" if len(after) == 3 else "full"
    if isinstance(layer, keras.layers.Dense) or "RBF" in name:
        return "full"
    return "other"


def _receptive_field(
    layer: Any, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[int, int] | None:
    """Returns the size of the patch that one output sees, or `None`."""
    if len(after) == 1:
        return None
    size = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if size is None:
        size = before[0] // after[0], before[1] // after[1]
    return int(size[0]), int(size[1])


def _operation(layer: Any, stage: _Stage) -> str:
    """Returns the words below a drawing."""
    if stage.kind == "subsampling":
        return "Subsampling"
    if stage.kind == "convolution":
        return "Convolutions"
    if "RBF" in type(layer).__name__:
        return "Gaussian\nconnections"
    return "" if stage.kind == "other" else "Full\nconnection"


def _add_titles(stages: list[_Stage], input_shape: tuple[int, ...]) -> None:
    """Names the stages as the paper does."""
    stages[0].title = f"INPUT\n{_as_text(input_shape)}"
    if stages[0].shape != input_shape:
        stages[0].title += f" as {_as_text(stages[0].shape)}"
    layers = [stage for stage in stages[1:] if stage.kind != "other"]
    words = "feature maps"
    for index, stage in enumerate(layers, 1):
        # A full connection to feature maps is a convolution as large as these.
        sees_maps = index > 1 and len(layers[index - 2].shape) == 3
        letter = {"convolution": "C", "subsampling": "S"}.get(stage.kind, "F")
        if len(stage.shape) == 1 and sees_maps and stage.kind == "full":
            letter = "C"
        title = f"{letter}{index}: "
        if index == len(layers):
            title = "OUTPUT"
        elif len(stage.shape) == 3:
            title += words
            words = "f. maps"
        else:
            title += "layer"
        stage.title = f"{title}\n{_as_text(stage.shape)}"


def _as_text(shape: tuple[int, ...]) -> str:
    """Returns a size as the paper writes it, e.g. `6@28x28`."""
    if len(shape) == 3 and shape[2] > 1:
        return f"{shape[2]}@{shape[0]}x{shape[1]}"
    return "x".join(map(str, shape[:2] if len(shape) == 3 else shape))


def _place(stages: list[_Stage]) -> list[_Drawing]:
    """Returns the drawings from left to right."""
    maps = [stage.shape[:2] for stage in stages if _has_maps(stage)]
    largest = max((max(size) for size in maps), default=1)
    units = [stage.shape[0] for stage in stages if len(stage.shape) == 1]
    most = max(units, default=1)
    drawings: list[_Drawing] = []
    for stage in stages:
        if _has_maps(stage):
            # Shrink less than in proportion, so that small maps can be seen.
            size = tuple(
                max(_SMALLEST_MAP, _LARGEST_MAP * (n / largest) ** 0.8)
                for n in stage.shape[:2]
            )
            depth = (_drawn_maps(stage) - 1) * _offset(stage)
            drawing = _Drawing(
                size[1] + depth, size[0] + depth, (size[0], size[1])
            )
        elif stage.kind == "other":
            drawing = _Drawing(*_BOX, thickness=_BOX[0])
        else:
            length = _LONGEST_BAR * (stage.shape[0] / most) ** 0.5
            length = max(_SHORTEST_BAR, length)
            width = _bar_lean(length) + _BAR_THICKNESS
            drawing = _Drawing(width, length, thickness=_BAR_THICKNESS)
        if drawings:
            last = drawings[-1]
            gap = _GAP_AFTER_BOX if last.thickness == _BOX[0] else _GAP
            needed = (last.width + drawing.width) / 2 + gap
            drawing.x = last.x + max(_MIN_PITCH, needed)
        drawings.append(drawing)
    return drawings


def _has_maps(stage: _Stage) -> bool:
    return stage.kind != "other" and len(stage.shape) in (2, 3)


def _drawn_maps(stage: _Stage) -> int:
    """Returns the number of maps to draw."""
    maps = stage.shape[2] if len(stage.shape) == 3 else 1
    return 1 if stage.kind == "input" else min(maps, _MAX_DRAWN_MAPS)


def _offset(stage: _Stage) -> float:
    """Returns the distance from each map of a stack to the next."""
    return min(0.09, _STACK_DEPTH / max(1, _drawn_maps(stage) - 1))


def _bar_lean(length: float) -> float:
    """Returns how far a bar's lower end is to the right of its upper end."""
    return 0.16 * length


def _left(drawing: _Drawing) -> float:
    return drawing.x - drawing.width / 2


def _right(drawing: _Drawing) -> float:
    return drawing.x + drawing.width / 2


def _front(drawing: _Drawing) -> tuple[float, float]:
    """Returns the lower left corner of a stack's front map."""
    return _right(drawing) - drawing.map_size[1], -drawing.height / 2


def _draw(axes: Axes, stage: _Stage, drawing: _Drawing) -> None:
    """Draws a stack of maps, a bar or a box."""
    style: dict[str, Any] = {
        "facecolor": _TINTS[stage.kind],
        "edgecolor": _EDGE,
        "linewidth": 0.7,
        "zorder": 2,
    }
    left, top = _left(drawing), drawing.height / 2
    if stage.kind == "other":
        size = drawing.width, drawing.height
        axes.add_patch(
            FancyBboxPatch(
                (left, -top),
                *size,
                boxstyle="round,pad=0,rounding_size=0.08",
                **style,
            )
        )
        _write(axes, drawing.x, 0, stage.title, va="center", rotation=90)
        return
    if not _has_maps(stage):
        upper_left, lower_left = _side(drawing, right=False)
        upper_right, lower_right = _side(drawing, right=True)
        corners = [upper_left, upper_right, lower_right, lower_left]
        axes.add_patch(Polygon(corners, **style))
        return
    height, width = drawing.map_size
    for index in range(_drawn_maps(stage)):
        shift = index * _offset(stage)
        corner = left + shift, top - height - shift
        axes.add_patch(Rectangle(corner, width, height, **style))
    if stage.kind == "input":
        _draw_letter(axes, drawing)


def _draw_letter(axes: Axes, drawing: _Drawing) -> None:
    """Draws the `A` that the network of the paper reads."""
    size = 0.6 * min(drawing.map_size)
    path = TextPath((0, 0), "A", size=size)
    bounds = path.get_extents()
    move = Affine2D().translate(
        drawing.x - (bounds.x0 + bounds.x1) / 2 - 0.08 * size,
        -(bounds.y0 + bounds.y1) / 2,
    )
    axes.add_patch(
        PathPatch(
            move.transform_path(path), color="0.55", linewidth=0, zorder=2
        )
    )


def _connect(
    axes: Axes,
    source: _Stage,
    before: _Drawing,
    target: _Stage,
    after: _Drawing,
) -> None:
    """Draws what one output of `target` sees."""
    color = _LINES[target.kind]
    field = target.receptive_field
    if field is None or not _has_maps(source) or not _has_maps(target):
        _connect_all(axes, before, after, color)
        return
    height, width = before.map_size
    rows, columns = source.shape[:2]
    patch_height = height * min(1.0, field[0] / rows)
    patch_width = width * min(1.0, field[1] / columns)
    left, bottom = _front(before)
    x = left + 0.85 * (width - patch_width)
    y = bottom + 0.2 * (height - patch_height)
    axes.add_patch(
        Rectangle(
            (x, y),
            patch_width,
            patch_height,
            fill=False,
            edgecolor=color,
            linewidth=1.1,
            zorder=4,
        )
    )
    target_left, target_bottom = _front(after)
    end = (
        target_left + 0.22 * after.map_size[1],
        target_bottom + 0.72 * after.map_size[0],
    )
    for corner in (
        (x + patch_width, y + patch_height),
        (x + patch_width, y),
        (x, y + patch_height),
    ):
        axes.plot(*zip(corner, end, strict=True), color=color, lw=0.8, zorder=3)
    axes.plot(*end, "s", color=color, markersize=2.5, zorder=4)


def _connect_all(
    axes: Axes, before: _Drawing, after: _Drawing, color: str
) -> None:
    """Draws a cone from all of one drawing to all of the next."""
    corners = [*_side(before, right=True), *reversed(_side(after, right=False))]
    axes.add_patch(Polygon(corners, facecolor="0.95", linewidth=0, zorder=0))
    upper_start, lower_start, lower_end, upper_end = corners
    for start, end in ((upper_start, upper_end), (lower_start, lower_end)):
        axes.plot(*zip(start, end, strict=True), color=color, lw=0.8, zorder=1)


def _side(drawing: _Drawing, right: bool) -> list[tuple[float, float]]:
    """Returns the upper and the lower end of one side of a drawing."""
    top = drawing.height / 2
    width = drawing.map_size[1] or drawing.thickness
    lean = drawing.width - width
    upper = _left(drawing) + (width if right else 0.0)
    return [(upper, top), (upper + lean, -top)]


def _write(axes: Axes, x: float, y: float, text: str, **kwargs: Any) -> None:
    style: Any = {"ha": "center", "va": "baseline", "fontsize": 10.5} | kwargs
    axes.text(x, y, text, **style)
