"""The base class of the models, and `LeNet5`."""

from keras_lenet.models.lenet5 import LeNet5

__all__ = ["LeNet5"]
