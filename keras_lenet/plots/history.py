"""Learning curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from keras_lenet.plots.figure import (
    HELD_OUT_STYLES,
    TRAINING_STYLE,
    NotebookFigure,
    escape_tex,
    make_panels,
)


def plot_history(history: Any) -> Figure:
    """Draws the loss and all metrics on training and held-out data.

    Args:
        history: The return value of `fit`, a `HeldOutEvaluation`, or the
            `history` of either: a mapping of names to sequences of one length.
            A name that starts with `val_` belongs to held-out data, and shares
            a panel with the metric it ends in. The horizontal axis is `"step"`
            if present, otherwise the epoch.

    Returns:
        A `Figure` with one panel for each metric.

    Raises:
        ValueError: If there is nothing to draw, or lengths differ.

    Example:

    >>> from keras_lenet.plots import plot_history
    >>> figure = plot_history({
    ...     "step": [100, 200, 300],
    ...     "accuracy": [0.71, 0.89, 0.93],
    ...     "val_accuracy": [0.85, 0.91, 0.94],
    ... })
    >>> [axes.get_title() for axes in figure.axes]
    ['Accuracy']
    """
    epochs = getattr(history, "epoch", None)
    if hasattr(history, "history"):
        history = history.history
    curves = {name: y for name, y in history.items() if name != "step"}
    lengths = {name: len(y) for name, y in history.items()}
    if not curves or 0 in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(
            "`history` must map names to sequences of one length, at least 1. "
            f"Received: lengths {lengths}."
        )
    metrics = [name for name in curves if not name.startswith("val_")]
    # Add metrics that only held-out data have.
    for name in curves:
        if name.startswith("val_") and not _metric_of(name, metrics):
            metrics.append(name.removeprefix("val_"))

    # Keras counts epochs from 0.
    numbers = range(max(lengths.values())) if epochs is None else epochs
    x = history.get("step", [number + 1 for number in numbers])
    columns = min(len(metrics), 2)
    rows = math.ceil(len(metrics) / columns)
    figure = NotebookFigure(
        figsize=(4.8 * columns, 3.6 * rows), layout="constrained"
    )
    panels = make_panels(figure, rows, columns, len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        names = [n for n in curves if _metric_of(n, metrics) == metric]
        _plot_metric(axes, metric, x, {n: curves[n] for n in names})
        axes.set_xlabel("Training steps" if "step" in history else "Epoch")
    return figure


def _metric_of(name: str, metrics: Sequence[str]) -> str | None:
    """Returns a curve's metric, e.g. `loss` for `val_test_loss`."""
    if not name.startswith("val_"):
        return name
    endings = [metric for metric in metrics if name.endswith(f"_{metric}")]
    return max(endings, key=len, default=None)


def _plot_metric(
    axes: Axes,
    metric: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
) -> None:
    held_out = 0
    for name, y in curves.items():
        if name == metric:
            label, style = "training", TRAINING_STYLE
        else:
            data = name.removeprefix("val_").removesuffix(metric).strip("_")
            label = f"held-out, {escape_tex(data)}" if data else "held-out"
            style = HELD_OUT_STYLES[held_out % len(HELD_OUT_STYLES)]
            held_out += 1
        marker = "o" if len(y) == 1 else ""
        axes.plot(x, y, label=label, marker=marker, linewidth=1.4, **style)
    title = escape_tex(metric.replace("_", " ").capitalize())
    axes.set_title(title)
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    axes.legend()
