"""Predictions and figures, for several commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lenet.types import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_size(model: Any) -> tuple[int, int]:
    """Returns the height and width of the model's training images."""
    if not model.include_preprocessing:
        return 28, 28
    _, height, width, _ = model.input_shape
    return height, width


def probabilities(model: Any, images: Array) -> Array:
    """Returns a model's class probabilities for raw pixels."""
    import keras

    from keras_lenet import saving

    if not model.include_preprocessing:
        model = saving.adapt(
            model, include_preprocessing=True, input_shape=images.shape[1:]
        )
    outputs = model.predict(images, batch_size=500, verbose=0)
    if model.classifier_activation is keras.activations.linear:
        outputs = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return np.asarray(outputs)


def write_figures(folder: Path, figures: "dict[str, Figure]") -> None:
    """Writes figures as PNG files."""
    from keras_lenet.plots.figure import save_figure

    for name, figure in figures.items():
        path = folder / f"{name}.png"
        save_figure(figure, path)
        # Keep stdout for the answers, which may be JSON.
        print(f"wrote {path}", file=sys.stderr)
