"""Preparing pictures of characters for a model."""

from keras_lenet.pictures.character import fit_colour, prepare_character
from keras_lenet.pictures.reading import load_picture

__all__ = ["fit_colour", "load_picture", "prepare_character"]
