"""LeNet-5 and its training as in the 1998 paper."""

from keras_lenet.original.codes import TABLE, codes
from keras_lenet.original.curvature import diagonal_curvature
from keras_lenet.original.curvature_estimation import CurvatureEstimation
from keras_lenet.original.initializer import UniformByFanIn
from keras_lenet.original.layers import (
    TableConv2D,
    TrainableSubsampling2D,
    scaled_tanh,
)
from keras_lenet.original.loss import DistanceLoss
from keras_lenet.original.model import OriginalLeNet5
from keras_lenet.original.optimizer import LevenbergMarquardt
from keras_lenet.original.rbf import EuclideanRBF

__all__ = [
    "TABLE",
    "CurvatureEstimation",
    "DistanceLoss",
    "EuclideanRBF",
    "LevenbergMarquardt",
    "OriginalLeNet5",
    "TableConv2D",
    "TrainableSubsampling2D",
    "UniformByFanIn",
    "codes",
    "diagonal_curvature",
    "scaled_tanh",
]
