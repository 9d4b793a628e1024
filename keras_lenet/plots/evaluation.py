"""Confusion matrix and risk-coverage curve."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from keras_lenet.plots.figure import (
    TRAINING_STYLE,
    WRONG_COLOR,
    NotebookFigure,
    class_name,
    to_classes,
)


def plot_confusion_matrix(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Draws the number of predictions for each actual and predicted class.

    Colours show errors only, as the many right predictions would outshine them.

    Args:
        labels: Array of integers of shape `(n,)`, the actual classes.
        predictions: Array of predicted classes or outputs, as for
            `plot_predictions`.
        class_names: Sequence of strings, the names of the classes from 0. A
            class without a name has its number.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If `labels` and `predictions` have different lengths, are
            empty, or have a class that is not an integer from 0.

    Example:

    >>> from keras_lenet.plots import plot_confusion_matrix
    >>> figure = plot_confusion_matrix([0, 1, 1], [0, 1, 0], ["cat", "dog"])
    >>> figure.axes[0].get_ylabel()
    'Actual'
    """
    from sklearn.metrics import confusion_matrix

    actual, predicted = np.asarray(labels), to_classes(predictions)
    if actual.ndim != 1 or actual.shape != predicted.shape or not actual.size:
        raise ValueError(
            "`labels` and `predictions` must have the same length, at least 1. "
            f"Received: labels of shape {actual.shape} and predictions of "
            f"shape {predicted.shape}."
        )
    for name, classes in (("labels", actual), ("predictions", predicted)):
        if classes.dtype.kind not in "iu" or classes.min() < 0:
            raise ValueError(
                f"`{name}` must have integers from 0 as classes. Received: "
                f"{name} of dtype {classes.dtype}, at least {classes.min()}."
            )
    # scikit-learn would leave out classes that have no name.
    count = 1 + max(len(class_names) - 1, actual.max(), predicted.max())
    counts = confusion_matrix(actual, predicted, labels=range(count))
    errors = counts.astype("float64")
    np.fill_diagonal(errors, np.nan)
    max_error = max(1.0, np.nanmax(errors, initial=0.0))
    size = max(4.5, 0.42 * count)
    figure = NotebookFigure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(errors, cmap="Oranges", vmin=0, vmax=max_error)
    names = [class_name(index, class_names) for index in range(count)]
    rotation = 90 if max(map(len, names)) > 2 else 0
    axes.set_xticks(range(count), names, rotation=rotation)
    axes.set_yticks(range(count), names)
    axes.set_xlabel("Predicted")
    axes.set_ylabel("Actual")
    wrong = counts.sum() - int(np.trace(counts))
    axes.set_title(f"{wrong:,} of {counts.sum():,} wrong")
    for row, column in zip(*np.nonzero(counts), strict=True):
        is_dark = row != column and counts[row, column] > 0.6 * max_error
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if is_dark else "black",
        )
    whole = MaxNLocator(integer=True)
    figure.colorbar(image, label="Errors", shrink=0.8, ticks=whole)
    return figure


def plot_risk_coverage(
    rejected: npt.ArrayLike,
    error: npt.ArrayLike,
    target: float = 0.001,
    references: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draws the remaining error against the share of rejected predictions.

    Args:
        rejected: Array of floats of shape `(n,)`, ascending shares of rejected
            predictions, as `keras_lenet.calibration.risk_coverage_curve`
            returns them.
        error: Array of floats of shape `(n,)`, the share of wrong predictions
            among the others.
        target: Number. The plot marks the share to reject to reach this error.
            Defaults to `0.001`.
        references: Mapping of names to points `(rejected, error)` to compare
            with. Defaults to `None`.

    Returns:
        A `Figure`.

    Raises:
        ValueError: If `rejected` and `error` have different lengths, or are
            empty.

    Example:

    >>> from keras_lenet.plots import plot_risk_coverage
    >>> figure = plot_risk_coverage([0, 0.25, 0.5], [0.01, 0.005, 0.001])
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
        shares, errors, drawstyle="steps-post", label="LeNet5", **TRAINING_STYLE
    )
    reached = np.flatnonzero(errors <= target)
    if reached.size:
        share = shares[reached[0]]
        axes.axhline(target, color="0.5", linewidth=0.8, linestyle=":")
        axes.plot(
            share,
            errors[reached[0]],
            "o",
            color=TRAINING_STYLE["color"],
            label=f"at most {target:.2%} error: {share:.2%} rejected",
        )
    for marker, (name, point) in zip(
        itertools.cycle("s^Dv"), (references or {}).items(), strict=False
    ):
        axes.plot(
            *point,
            marker,
            color=WRONG_COLOR,
            markerfacecolor="none",
            label=name,
        )
    # Zoom in on small shares, but show all marked points.
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
