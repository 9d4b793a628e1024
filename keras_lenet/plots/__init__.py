"""Pictures of a training's course, of predictions and of their errors.

Functions take arrays and return a `matplotlib.figure.Figure`. A notebook
displays it as the last expression of a cell, or with `display(figure)`;
`figure.savefig("name.png")` writes it. `plt.show()` does not show it. The
functions never use pyplot, so they can be called from any thread and leave
nothing behind.
"""

from keras_lenet.plots.evaluation import (
    plot_confusion_matrix,
    plot_risk_coverage,
)
from keras_lenet.plots.figure import NotebookFigure
from keras_lenet.plots.history import plot_history
from keras_lenet.plots.images import (
    plot_errors,
    plot_pictures,
    plot_predictions,
)

__all__ = [
    "NotebookFigure",
    "plot_confusion_matrix",
    "plot_errors",
    "plot_history",
    "plot_pictures",
    "plot_predictions",
    "plot_risk_coverage",
]
