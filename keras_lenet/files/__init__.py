"""Writing files atomically, and reading untrusted files safely."""

from keras_lenet.files.formats import FileFormatError

__all__ = ["FileFormatError"]
