"""Preparing pictures of characters for a model."""

from keras_lenet.pictures.character import (
    choose_image,
    fit_colour,
    prepare_character,
)
from keras_lenet.pictures.digits import Digit, has_several_parts, read_digits
from keras_lenet.pictures.reading import load_picture

__all__ = [
    "Digit",
    "choose_image",
    "fit_colour",
    "has_several_parts",
    "load_picture",
    "prepare_character",
    "read_digits",
]
