"""Models for other programs and machines."""

from keras_lenet.exporting.export import FORMATS, Comparison, export

__all__ = ["FORMATS", "Comparison", "export"]
