"""Plots of learning curves, predictions, errors and networks.

Functions take arrays or a model, and return a `matplotlib.figure.Figure`. A
notebook displays it as the last expression of a cell or with `display(figure)`,
and `figure.savefig("name.png")` writes it. `plt.show()` does not show it, as
the functions do not use pyplot. So they work in any thread, and figures are
freed like other objects.
"""

from keras_lenet.plots.architecture import plot_architecture
from keras_lenet.plots.evaluation import (
    plot_confusion_matrix,
    plot_risk_coverage,
)
from keras_lenet.plots.explanation import (
    plot_embedding,
    plot_occlusion,
    plot_saliency,
)
from keras_lenet.plots.figure import NotebookFigure
from keras_lenet.plots.history import plot_history
from keras_lenet.plots.images import (
    plot_errors,
    plot_pictures,
    plot_predictions,
    plot_readings,
)
from keras_lenet.plots.kernel_history import plot_kernel_history
from keras_lenet.plots.network import plot_feature_maps, plot_kernels

__all__ = [
    "NotebookFigure",
    "plot_architecture",
    "plot_confusion_matrix",
    "plot_embedding",
    "plot_errors",
    "plot_feature_maps",
    "plot_history",
    "plot_kernel_history",
    "plot_kernels",
    "plot_occlusion",
    "plot_pictures",
    "plot_predictions",
    "plot_readings",
    "plot_risk_coverage",
    "plot_saliency",
]
