"""Validation of arguments."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def is_positive_integer(value: Any) -> bool:
    """Returns whether a value is an integer above 0; booleans are not."""
    return (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and int(value) > 0
    )


def check_positive_integer(name: str, value: Any) -> None:
    """Raises a `ValueError` unless an argument is a positive integer."""
    if not is_positive_integer(value):
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )


def is_finite_number(value: Any) -> bool:
    """Returns whether a value is a number and neither infinite nor NaN."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    return is_number and bool(-math.inf < value < math.inf)


def standardize_input_shape(input_shape: Any) -> tuple[int, int, int]:
    """Returns `(height, width, channels)` as Python integers.

    Accepts a tuple, list, NumPy array or `tf.TensorShape`.
    """
    try:
        height, width, channels = input_shape
    except (TypeError, ValueError):
        height = width = channels = None
    if not all(map(is_positive_integer, (height, width, channels))):
        raise ValueError(
            "`input_shape` must be (height, width, channels), positive "
            f"integers. Received: input_shape={input_shape!r}"
        )
    return int(height), int(width), int(channels)


def standardize_class_names(
    class_names: Sequence[str] | None, num_classes: int
) -> list[str] | None:
    """Returns the names of all classes as a list of strings, or `None`."""
    if class_names is None:
        return None
    names = [] if isinstance(class_names, str) else list(class_names)
    if len(names) != num_classes or not all(isinstance(n, str) for n in names):
        raise ValueError(
            f"`class_names` must be {num_classes} strings, one for each class. "
            f"Received: class_names={class_names!r}"
        )
    return list(map(str, names))
