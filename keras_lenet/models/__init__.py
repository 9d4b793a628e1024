"""The models, and what they share."""

from keras_lenet.models.lenet5 import LeNet5

__all__ = ["LeNet5"]
