"""Loading data sets, and feeding them to a model in batches."""

from keras_lenet.datasets.load import ImageData, load_data
from keras_lenet.datasets.pipeline import (
    grain_dataset_from_array,
    image_dataset_from_array,
)
from keras_lenet.datasets.registry import DATASETS, DatasetInfo

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "ImageData",
    "grain_dataset_from_array",
    "image_dataset_from_array",
    "load_data",
]
