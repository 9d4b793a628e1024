"""Keras-native, reusable parts around LeNet-5."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_lenet import datasets, plots, recipes
    from keras_lenet.callbacks import (
        CurvatureEstimation,
        HeldOutEvaluation,
        SamplePredictions,
    )
    from keras_lenet.checkpoints import BestModelCheckpoint, ResumableTraining
    from keras_lenet.distortions import RandomDistortion
    from keras_lenet.layers import PadTo32
    from keras_lenet.models import LeNet5
    from keras_lenet.original import OriginalLeNet5

__version__ = "0.1.0"

__all__ = [
    "BestModelCheckpoint",
    "CurvatureEstimation",
    "HeldOutEvaluation",
    "LeNet5",
    "OriginalLeNet5",
    "PadTo32",
    "RandomDistortion",
    "ResumableTraining",
    "SamplePredictions",
    "datasets",
    "plots",
    "recipes",
]

_MODULES = {
    "BestModelCheckpoint": "checkpoints",
    "CurvatureEstimation": "callbacks",
    "HeldOutEvaluation": "callbacks",
    "LeNet5": "models",
    "OriginalLeNet5": "original",
    "PadTo32": "layers",
    "RandomDistortion": "distortions",
    "ResumableTraining": "checkpoints",
    "SamplePredictions": "callbacks",
}


# `keras.saving.load_model` only finds classes that are registered.
_REGISTERING = ("distortions", "models", "recipes")


def __getattr__(name: str) -> Any:
    # Importing Keras fixes its backend and takes seconds, so it has to wait
    # until the command line has read `--backend` and has something to do.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"keras_lenet.{_MODULES.get(name, name)}")
    if "keras" in sys.modules:
        _register()
    return getattr(module, name) if name in _MODULES else module


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _register() -> None:
    for name in _REGISTERING:
        importlib.import_module(f"keras_lenet.{name}")


if "keras" in sys.modules:
    _register()
