"""Recipes by name, and `train`, which runs a recipe from data to files."""

from keras_lenet.training.registry import (
    MODEL_NAMES,
    RECIPES,
    TRACKER_PACKAGES,
    Recipe,
)
from keras_lenet.training.run import (
    TrainingInterrupted,
    TrainingResult,
    train,
)

__all__ = [
    "MODEL_NAMES",
    "RECIPES",
    "TRACKER_PACKAGES",
    "Recipe",
    "TrainingInterrupted",
    "TrainingResult",
    "train",
]
