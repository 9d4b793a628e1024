"""The base class of the models, `LeNet5`, and ensembles."""

from keras_lenet.models.ensemble import Ensemble
from keras_lenet.models.lenet5 import LeNet5

__all__ = ["Ensemble", "LeNet5"]
