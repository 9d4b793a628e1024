"""Keras-native, reusable parts around LeNet-5."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from keras_lenet.version import __version__

if TYPE_CHECKING:
    from keras_lenet import datasets, plots, recipes
    from keras_lenet.callbacks import (
        BestModelCheckpoint,
        HeldOutEvaluation,
        KernelHistory,
        ResumableTraining,
        SamplePredictions,
    )
    from keras_lenet.classifier import LeNet5Classifier
    from keras_lenet.datasets.distortion import RandomDistortion
    from keras_lenet.exporting import export
    from keras_lenet.layers import PadTo32
    from keras_lenet.models import LeNet5
    from keras_lenet.original import CurvatureEstimation, OriginalLeNet5
    from keras_lenet.training import train

__all__ = [
    "BestModelCheckpoint",
    "CurvatureEstimation",
    "HeldOutEvaluation",
    "KernelHistory",
    "LeNet5",
    "LeNet5Classifier",
    "OriginalLeNet5",
    "PadTo32",
    "RandomDistortion",
    "ResumableTraining",
    "SamplePredictions",
    "__version__",
    "datasets",
    "export",
    "plots",
    "recipes",
    "train",
]

_MODULES = {
    "BestModelCheckpoint": "callbacks",
    "CurvatureEstimation": "original",
    "HeldOutEvaluation": "callbacks",
    "KernelHistory": "callbacks",
    "LeNet5": "models",
    "LeNet5Classifier": "classifier",
    "OriginalLeNet5": "original",
    "PadTo32": "layers",
    "RandomDistortion": "datasets.distortion",
    "ResumableTraining": "callbacks",
    "SamplePredictions": "callbacks",
    "export": "exporting",
    "train": "training",
}

# Modules that register classes for `keras.saving.load_model`.
_REGISTERING = ("datasets.distortion", "models", "original", "recipes")


def __getattr__(name: str) -> Any:
    # Import Keras late: it takes seconds and fixes the backend, which the
    # command line sets from `--backend`.
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
