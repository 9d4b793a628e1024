"""Pictures of a training's course and of predictions.

Functions take arrays and return a `matplotlib.figure.Figure`, which shows
itself in a notebook and is written with `figure.savefig("name.png")`. They
never use pyplot, so they can be called from any thread and leave nothing
behind.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Of the palette by Okabe and Ito, which readers with any colour vision can
# tell apart (https://jfly.uni-koeln.de/color/); in grey the lines differ by
# their dashes.
_TRAINING: dict[str, Any] = {"color": "#0072B2", "linestyle": "-"}
_HELD_OUT: list[dict[str, Any]] = [
    {"color": "#D55E00", "linestyle": "--"},
    {"color": "#009E73", "linestyle": ":"},
    {"color": "#CC79A7", "linestyle": "-."},
]
_WRONG = "#D55E00"


def plot_history(history: Mapping[str, Sequence[float]]) -> Figure:
    """Draws the loss and every metric, in training and on held-out data.

    Args:
        history: Mapping of names to numbers over time, all of one length: the
            `history` of Keras' `History` or of `HeldOutEvaluation`. Names
            that start with `val_` are those of held-out data and share a
            panel with the metric they end in. `"step"`, where present, is the
            horizontal axis; otherwise it is the epoch.

    Returns:
        A `Figure` with one panel for each metric.

    Raises:
        ValueError: When there is nothing to draw, or lengths differ.

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
    curves = {name: y for name, y in history.items() if name != "step"}
    lengths = {name: len(y) for name, y in history.items()}
    if not curves or 0 in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(
            "`history` must map names to sequences of one length, at least 1. "
            f"Received: sequences of the lengths {lengths}."
        )
    metrics = [name for name in curves if not name.startswith("val_")]
    # Held-out data may have a metric that training has not.
    for name in curves:
        if name.startswith("val_") and not _metric_of(name, metrics):
            metrics.append(name.removeprefix("val_"))

    columns = min(len(metrics), 2)
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(4.8 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(metrics) :]:
        axes.remove()
    for axes, metric in zip(panels, metrics, strict=False):
        names = [n for n in curves if _metric_of(n, metrics) == metric]
        _plot_metric(axes, metric, {n: curves[n] for n in names}, history)
    return figure


def plot_predictions(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
) -> Figure:
    r"""Draws images in a grid, each with its actual and its predicted class.

    A wrong prediction is marked by a cross and another colour.

    Args:
        images: Array of shape `(n, height, width, channels)`, 1 channel
            (grey) or 3 (colour), or `(n, height, width)`; uint8 in [0, 255]
            or floats in [0, 1].
        labels: Array of integers of shape `(n,)`, the actual classes.
        predictions: Array of integers of shape `(n,)`, the predicted classes,
            or the model's output of shape `(n, num_classes)`, of which the
            largest counts.
        class_names: Sequence of strings, the names of the classes from 0 on.
            By default their numbers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: When lengths differ or shapes are not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_predictions
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 28, 28))
    >>> figure = plot_predictions(images.astype("uint8"), [7, 1], [7, 2])
    >>> [axes.get_title() for axes in figure.axes]
    ['actual 7\npredicted 7', 'actual 1\npredicted 2 ✗']
    """
    pixels, actual = np.asarray(images), np.asarray(labels)
    predicted = np.asarray(predictions)
    if predicted.ndim == 2:
        predicted = predicted.argmax(axis=1)
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have the shape (n, height, width, channels) with 1 "
            "or 3 channels, or (n, height, width). "
            f"Received: images of shape {pixels.shape}."
        )
    count = len(pixels)
    if count == 0 or actual.shape != (count,) or predicted.shape != (count,):
        raise ValueError(
            "`images`, `labels` and `predictions` must have the same length, "
            f"at least 1. Received: {count} images, labels of shape "
            f"{actual.shape} and predictions of shape {predicted.shape}."
        )

    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure = Figure(
        figsize=(1.6 * columns, 2.0 * rows + 0.4), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    white = 255 if pixels.dtype == np.uint8 else 1
    right = actual == predicted
    for index, axes in enumerate(panels[:count]):
        axes.imshow(pixels[index], cmap="gray", vmin=0, vmax=white)
        axes.set_xticks([])
        axes.set_yticks([])
        mark = "" if right[index] else " ✗"
        axes.set_title(
            f"actual {_name(actual[index], class_names)}\n"
            f"predicted {_name(predicted[index], class_names)}{mark}",
            fontsize=9,
            color="black" if right[index] else _WRONG,
            fontweight="normal" if right[index] else "bold",
        )
    figure.suptitle(
        f"{right.sum()} of {count} right"
        + ("" if right.all() else ", wrong ones marked ✗"),
        fontsize=10,
    )
    return figure


def _metric_of(name: str, metrics: Sequence[str]) -> str | None:
    """Returns the metric that a curve belongs to, e.g. of `val_test_loss`."""
    if not name.startswith("val_"):
        return name
    endings = [metric for metric in metrics if name.endswith(f"_{metric}")]
    return max(endings, key=len, default=None)


def _plot_metric(
    axes: Axes,
    metric: str,
    curves: Mapping[str, Sequence[float]],
    history: Mapping[str, Sequence[float]],
) -> None:
    held_out = 0
    for name, y in curves.items():
        if name == metric:
            label, style = "training", _TRAINING
        else:
            of = name.removeprefix("val_").removesuffix(metric).strip("_")
            label = f"held-out, {_plain(of)}" if of else "held-out"
            style = _HELD_OUT[held_out % len(_HELD_OUT)]
            held_out += 1
        x = history.get("step", range(1, len(y) + 1))
        marker = "o" if len(y) == 1 else ""
        axes.plot(x, y, label=label, marker=marker, linewidth=1.4, **style)
    title = _plain(metric.replace("_", " ").capitalize())
    axes.set_title(title)
    axes.set_ylabel(title)
    axes.set_xlabel("Training steps" if "step" in history else "Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    axes.legend()


def _name(label: int, class_names: Sequence[str] | None) -> str:
    if class_names is None or not 0 <= label < len(class_names):
        return str(label)
    return _plain(class_names[label])


def _plain(text: str) -> str:
    # Matplotlib takes text between two dollars for TeX.
    return text.replace("$", r"\$")
