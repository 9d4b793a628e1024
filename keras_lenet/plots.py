"""Pictures of a training's course, of predictions and of their errors.

Functions take arrays and return a `matplotlib.figure.Figure`. A notebook
displays it as the last expression of a cell, or with `display(figure)`;
`figure.savefig("name.png")` writes it. `plt.show()` does not show it. The
functions never use pyplot, so they can be called from any thread and leave
nothing behind.
"""

import io
import itertools
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


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def plot_history(history: Any) -> Figure:
    """Draws the loss and every metric, in training and on held-out data.

    Args:
        history: What `fit` returns, a `HeldOutEvaluation`, or the `history`
            of either: a mapping of names to numbers over time, all of one
            length. Names that start with `val_` are those of held-out data
            and share a panel with the metric they end in. `"step"`, where
            present, is the horizontal axis; otherwise it is the epoch.

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
    epochs = getattr(history, "epoch", None)
    if hasattr(history, "history"):
        history = history.history
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

    # Keras counts epochs from 0 on.
    numbers = range(max(lengths.values())) if epochs is None else epochs
    x = history.get("step", [number + 1 for number in numbers])
    columns = min(len(metrics), 2)
    rows = math.ceil(len(metrics) / columns)
    figure = NotebookFigure(
        figsize=(4.8 * columns, 3.6 * rows), layout="constrained"
    )
    panels = _grid(figure, rows, columns, len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        names = [n for n in curves if _metric_of(n, metrics) == metric]
        _plot_metric(axes, metric, x, {n: curves[n] for n in names})
        axes.set_xlabel("Training steps" if "step" in history else "Epoch")
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
            (grey) or 3 (colour), or `(n, height, width)`; integers or floats
            in [0, 255], or floats in [0, 1].
        labels: Array of integers of shape `(n,)`, the actual classes.
        predictions: Array of integers of shape `(n,)`, the predicted classes,
            or the model's output of shape `(n, num_classes)`, of which the
            largest counts, or `(n, 1)`, where class 1 is above 0.5.
        class_names: Sequence of strings, the names of the classes from 0 on.
            By default their numbers.

    Returns:
        A `Figure`.

    Raises:
        ValueError: When lengths differ, or shapes or pixels are not of the
            form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_predictions
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 28, 28))
    >>> figure = plot_predictions(images.astype("uint8"), [7, 1], [7, 2])
    >>> [axes.get_title() for axes in figure.axes]
    ['actual 7\npredicted 7', 'actual 1\npredicted 2 ✗']
    """
    pixels, actual, predicted = _checked(images, labels, predictions)
    count = len(pixels)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    figure = NotebookFigure(
        figsize=(1.6 * columns, 2.0 * rows + 0.4), layout="constrained"
    )
    right = actual == predicted
    for index, axes in enumerate(_grid(figure, rows, columns, count)):
        _show(axes, pixels[index])
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


def plot_errors(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    max_images: int = 200,
) -> Figure:
    r"""Draws the images that were misclassified, and what for.

    As figure 8 of https://doi.org/10.1109/5.726791 does.

    Args:
        images: Array, as for `plot_predictions`.
        labels: Array of integers of shape `(n,)`, the actual classes.
        predictions: Array, as for `plot_predictions`.
        class_names: Sequence of strings, the names of the classes from 0 on.
            By default their numbers.
        max_images: Integer. How many to draw at most. Defaults to `200`.

    Returns:
        A `Figure`. Above each image stands its actual and its predicted
        class.

    Raises:
        ValueError: When lengths differ, or shapes or pixels are not of the
            form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_errors
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 28, 28))
    >>> figure = plot_errors(images.astype("uint8"), [7, 1, 4], [7, 2, 9])
    >>> [axes.get_title() for axes in figure.axes]
    ['1→2', '4→9']
    """
    pixels, actual, predicted = _checked(images, labels, predictions)
    wrong = np.flatnonzero(actual != predicted)
    drawn = wrong[:max_images]
    columns = max(1, min(10, len(drawn)))
    rows = max(1, math.ceil(len(drawn) / columns))
    figure = NotebookFigure(
        figsize=(max(4, 0.75 * columns), 0.95 * rows + 0.5),
        layout="constrained",
    )
    for index, axes in zip(
        drawn, _grid(figure, rows, columns, len(drawn)), strict=True
    ):
        _show(axes, pixels[index])
        axes.set_title(
            f"{_name(actual[index], class_names)}→"
            f"{_name(predicted[index], class_names)}",
            fontsize=8,
        )
    figure.suptitle(
        f"{len(wrong):,} of {len(pixels):,} wrong: actual→predicted"
        + (f", the first {len(drawn)}" if len(drawn) < len(wrong) else ""),
        fontsize=10,
    )
    return figure


def plot_confusion_matrix(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Draws how often each class was taken for each.

    Colours show the errors only, which the many right predictions would
    outshine.

    Args:
        labels: Array of integers of shape `(n,)`, the actual classes.
        predictions: Array of integers of shape `(n,)`, the predicted classes,
            or the model's output of shape `(n, num_classes)`, of which the
            largest counts, or `(n, 1)`, where class 1 is above 0.5.
        class_names: Sequence of strings, the names of the classes from 0 on.

    Returns:
        A `Figure`.

    Raises:
        ValueError: When shapes are not of the form above.

    Example:

    >>> from keras_lenet.plots import plot_confusion_matrix
    >>> figure = plot_confusion_matrix([0, 1, 1], [0, 1, 0], ["cat", "dog"])
    >>> figure.axes[0].get_ylabel()
    'Actual'
    """
    from sklearn.metrics import confusion_matrix

    actual, predicted = np.asarray(labels), _classes(predictions)
    if actual.ndim != 1 or actual.shape != predicted.shape or not actual.size:
        raise ValueError(
            "`labels` and `predictions` must have the same length, at least 1. "
            f"Received: labels of shape {actual.shape} and predictions of "
            f"shape {predicted.shape}."
        )
    count = len(class_names)
    counts = confusion_matrix(actual, predicted, labels=range(count))
    errors = counts.astype("float64")
    np.fill_diagonal(errors, np.nan)
    most = max(1.0, np.nanmax(errors, initial=0.0))
    size = max(4.5, 0.42 * count)
    figure = NotebookFigure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(errors, cmap="Oranges", vmin=0, vmax=most)
    names = [_plain(name) for name in class_names]
    turned = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(count), names, rotation=turned)
    axes.set_yticks(range(count), names)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("Actual")
    right = int(np.trace(counts))
    axes.set_title(f"{counts.sum() - right:,} of {counts.sum():,} wrong")
    for row, column in zip(*np.nonzero(counts), strict=True):
        # Dark on light and light on dark.
        dark = row != column and counts[row, column] > 0.6 * most
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    figure.colorbar(shown, label="Errors", shrink=0.8)
    return figure


def plot_rejection(
    rejected: npt.ArrayLike,
    error: npt.ArrayLike,
    target: float = 0.001,
    references: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draws the error that is left against the share that is rejected.

    Args:
        rejected: Array of floats of shape `(n,)`, shares of predictions that
            are rejected, ascending, as
            `keras_lenet.calibration.rejection_curve` gives them.
        error: Array of floats of shape `(n,)`, the shares of the others that
            are wrong.
        target: Number. The error for which the share that must be rejected
            is marked. Defaults to `0.001`.
        references: Mapping of names to `(rejected, error)`, points to compare
            with. By default none.

    Returns:
        A `Figure`.

    Raises:
        ValueError: When lengths differ.

    Example:

    >>> from keras_lenet.plots import plot_rejection
    >>> figure = plot_rejection([0, 0.25, 0.5], [0.01, 0.005, 0.001])
    >>> figure.axes[0].get_xlabel()
    'Rejected'
    """
    shares, errors = np.asarray(rejected), np.asarray(error)
    if shares.ndim != 1 or shares.shape != errors.shape or not shares.size:
        raise ValueError(
            "`rejected` and `error` must have the same length, at least 1. "
            f"Received: shapes {shares.shape} and {errors.shape}."
        )
    figure = NotebookFigure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        shares, errors, drawstyle="steps-post", label="LeNet5", **_TRAINING
    )
    reached = np.flatnonzero(errors <= target)
    if reached.size:
        share = shares[reached[0]]
        axes.axhline(target, color="0.5", linewidth=0.8, linestyle=":")
        axes.plot(
            share,
            errors[reached[0]],
            "o",
            color=_TRAINING["color"],
            label=f"at most {target:.2%} error: {share:.2%} rejected",
        )
    for marker, (name, point) in zip(
        itertools.cycle("s^Dv"), (references or {}).items(), strict=False
    ):
        axes.plot(
            *point, marker, color=_WRONG, markerfacecolor="none", label=name
        )
    # What matters is where few are rejected.
    ends = [0.02, *(point[0] for point in (references or {}).values())]
    if reached.size:
        ends.append(shares[reached[0]])
    axes.set_xlim(0, min(1.0, 1.5 * max(ends)))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=2))
    axes.set_xlabel("Rejected")
    axes.set_ylabel("Error of the others")
    axes.set_title("Rejecting what the network is unsure of")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_pictures(
    pictures: Sequence[npt.ArrayLike],
    images: Sequence[npt.ArrayLike | None],
    titles: Sequence[str],
) -> Figure:
    """Draws pictures, each beside what a model saw of it.

    Args:
        pictures: Sequence of arrays of shape `(height, width, channels)`,
            uint8 in [0, 255], 1 or 3 channels, of any sizes.
        images: Sequence of arrays of the same form, what
            `keras_lenet.pictures.prepare_character` made of each; `None`
            where there was no ink.
        titles: Sequence of strings, what stands above each.

    Returns:
        A `Figure`.

    Raises:
        ValueError: When lengths differ.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.plots import plot_pictures
    >>> photo = np.full((40, 60, 3), 200, "uint8")
    >>> figure = plot_pictures([photo], [None], ["blank.png: no ink"])
    >>> figure.axes[0].get_title(loc="left")
    'blank.png: no ink'
    """
    if not len(pictures) == len(images) == len(titles) > 0:
        raise ValueError(
            "`pictures`, `images` and `titles` must have the same length, at "
            f"least 1. Received: {len(pictures)}, {len(images)} and "
            f"{len(titles)}."
        )
    count = len(pictures)
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = NotebookFigure(
        figsize=(3.6 * columns, 2.1 * rows + 0.2), layout="constrained"
    )
    panels = _grid(figure, rows, 2 * columns, 2 * count)
    for index in range(count):
        picture, seen = panels[2 * index : 2 * index + 2]
        _show(picture, np.asarray(pictures[index]))
        picture.set_title(_plain(titles[index]), fontsize=9, loc="left")
        image = images[index]
        if image is None:
            seen.remove()
        else:
            _show(seen, np.asarray(image))
    return figure


def _checked(
    images: npt.ArrayLike, labels: npt.ArrayLike, predictions: npt.ArrayLike
) -> tuple[Any, Any, Any]:
    """Returns pixels, actual and predicted classes in one form."""
    pixels, actual = np.asarray(images), np.asarray(labels)
    predicted = _classes(predictions)
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
    check_pixels(pixels)
    if pixels.dtype.kind in "iu" or are_raw_floats(pixels):
        pixels = np.rint(pixels).astype("uint8")
    return pixels, actual, predicted


def _classes(predictions: npt.ArrayLike) -> Any:
    """Returns the classes that a model's output means."""
    predicted = np.asarray(predictions)
    if predicted.ndim != 2:
        return predicted
    if predicted.shape[1] == 1:
        # As Keras' `BinaryAccuracy` does.
        return (predicted[:, 0] > 0.5).astype("int64")
    return predicted.argmax(axis=1)


def _grid(figure: Figure, rows: int, columns: int, count: int) -> Any:
    """Returns as many panels as there is something to draw."""
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.remove()
    return panels[:count]


def are_raw_floats(pixels: Any) -> bool:
    """Returns whether pixels are floats in [0, 255], not in [0, 1].

    Args:
        pixels: Array.
    """
    return bool(pixels.dtype.kind == "f" and pixels.max(initial=0) > 1)


def check_pixels(pixels: Any) -> None:
    """Checks that pixels can be drawn.

    Args:
        pixels: Array.

    Raises:
        ValueError: When they are neither in [0, 255] nor in [0, 1].
    """
    # NaN compares false.
    if not ((pixels >= 0) & (pixels <= 255)).all():
        raise ValueError(
            "`images` must be in [0, 255], or floats in [0, 1]. Received: "
            f"numbers from {pixels.min()} to {pixels.max()}."
        )


def _show(axes: Axes, pixels: Any) -> None:
    white = 255 if pixels.dtype == np.uint8 else 1
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=white)
    axes.set_xticks([])
    axes.set_yticks([])


def _metric_of(name: str, metrics: Sequence[str]) -> str | None:
    """Returns the metric that a curve belongs to, e.g. of `val_test_loss`."""
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
            label, style = "training", _TRAINING
        else:
            of = name.removeprefix("val_").removesuffix(metric).strip("_")
            label = f"held-out, {_plain(of)}" if of else "held-out"
            style = _HELD_OUT[held_out % len(_HELD_OUT)]
            held_out += 1
        marker = "o" if len(y) == 1 else ""
        axes.plot(x, y, label=label, marker=marker, linewidth=1.4, **style)
    title = _plain(metric.replace("_", " ").capitalize())
    axes.set_title(title)
    axes.set_ylabel(title)
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
