"""Predictions and figures, for several commands."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lenet.pretrained import is_preset
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


def digit_threshold(name: str) -> float:
    """Returns the probability below which a preset sees no digit, or 0."""
    from keras_lenet import saving

    if not is_preset(name):
        return 0.0
    return float(saving.read_preset(name).card.get("threshold", 0))


def metadata(name: str) -> dict[str, Any]:
    """Returns what an exported preset says of itself."""
    from keras_lenet import saving

    if not is_preset(name):
        return {}
    card = saving.read_preset(name).card
    kept = ("dataset", "test_images", "test_accuracy", "threshold", "license")
    return {"preset": Path(name).name} | {
        key: str(card[key]) for key in kept if key in card
    }


def model_and_pictures(given: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Splits arguments into a model and the paths of pictures."""
    first, *others = given
    # A picture in a file with the name of a preset is `./mnist`.
    if not is_preset(first) and Path(first).suffix != ".keras":
        return "handwritten", given
    if not others:
        raise ValueError(
            f"PICTURE must be given. Received: only the model {first}."
        )
    return first, others


def load_pictures(paths: Sequence[str]) -> list[Array]:
    """Loads pictures from files, all of which must exist."""
    from keras_lenet import pictures

    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    return [pictures.load_picture(path) for path in paths]


def write_figures(folder: Path, figures: "dict[str, Figure]") -> None:
    """Writes figures as PNG files."""
    from keras_lenet.plots.figure import save_figure

    for name, figure in figures.items():
        path = folder / f"{name}.png"
        save_figure(figure, path)
        # Keep stdout for the answers, which may be JSON.
        print(f"wrote {path}", file=sys.stderr)
