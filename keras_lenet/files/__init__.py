"""Files that are written atomically and read safely."""

from keras_lenet.files.formats import FileFormatError

__all__ = ["FileFormatError"]
