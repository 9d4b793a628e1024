"""The base class of the models, `LeNet5`, and averages of models."""

from keras_lenet.models.ensemble import average_models
from keras_lenet.models.lenet5 import LeNet5

__all__ = ["LeNet5", "average_models"]
