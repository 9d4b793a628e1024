"""The recipes of `train`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A training run: the arguments of `compile` and all that `fit` needs.

    Attributes:
        description: String for `--help` and the documentation.
        compile_arguments: Function of the number of steps and the number of
            images per step. Returns the arguments of `compile`.
        model: String. The model that the recipe trains.
        batch_size: Integer. The number of images per step.
        steps: Integer. The number of steps. If `None`, `epochs` decides.
        epochs: Integer. The number of epochs if `steps` is `None`.
        eval_every: Integer. The number of steps between evaluations. If
            `None`, the model is evaluated once per epoch.
        distorts: Boolean. Whether to distort images randomly.
        shuffles: Boolean. Whether each epoch has a different order.
        estimates_curvature: Boolean. Whether the optimizer needs curvatures.
    """

    description: str
    compile_arguments: Callable[[int, int], dict[str, Any]]
    model: str = "lenet5"
    batch_size: int = 100
    steps: int | None = None
    epochs: int = 1
    eval_every: int | None = None
    distorts: bool = False
    shuffles: bool = True
    estimates_curvature: bool = False


def _recipes() -> Any:
    # `recipes` imports Keras, which the command line does later.
    from keras_lenet import recipes

    return recipes


# The first recipe of a model is its default.
RECIPES = {
    "cookbook": Recipe(
        "Adam with Keras' defaults",
        lambda steps, batch_size: {
            "optimizer": "adam",
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
        },
        steps=300,
        eval_every=5,
    ),
    "fast": Recipe(
        "Muon, a one-cycle learning rate, label smoothing, more accurate than "
        "cookbook after the same number of steps",
        lambda steps, batch_size: _recipes().fast(steps),
        steps=300,
        eval_every=5,
    ),
    "accurate": Recipe(
        "randomly distorted images for many epochs, the most accurate",
        lambda steps, batch_size: _recipes().accurate(steps),
        batch_size=250,
        epochs=90,
        distorts=True,
    ),
    "paper": Recipe(
        "the training of the 1998 paper",
        lambda steps, batch_size: _recipes().paper(steps, batch_size),
        model="original",
        batch_size=1,
        epochs=20,
        shuffles=False,
        estimates_curvature=True,
    ),
}

MODEL_NAMES = list(dict.fromkeys(recipe.model for recipe in RECIPES.values()))

# Name of a tracker in `keras_lenet.trackers.TRACKERS`: the module it needs.
TRACKER_PACKAGES = {
    "csv": None,
    "tensorboard": "tensorboardX",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
