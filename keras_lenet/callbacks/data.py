"""Data that callbacks accept."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lenet.types import Array


def to_array(part: Any) -> Any:
    """Returns an array or tensor as a NumPy array."""
    # `np.asarray` rejects tensors that are on a GPU or require gradients.
    if keras.ops.is_tensor(part):
        return np.asarray(keras.ops.convert_to_numpy(part))
    return None if part is None else np.asarray(part)


def to_iterable(data: Any) -> Iterable[Any]:
    """Returns an iterable over a dataset's batches."""
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(data.num_batches))
    return data  # type: ignore[no-any-return]


def is_dataset(data: Any) -> bool:
    """Returns whether `data` can be iterated over repeatedly."""
    return isinstance(data, (Iterable, keras.utils.PyDataset)) and not (
        isinstance(data, (Iterator, str, bytes)) or hasattr(data, "shape")
    )


def length(arrays: Any) -> int:
    """Returns the number of samples in nested arrays."""
    return len(keras.tree.flatten(arrays)[0])


def standardize_held_out(name: str, data: Any) -> Any:
    """Checks held-out data. Returns a dataset, or a tuple of NumPy arrays."""
    # A list of tuples or lists is a dataset of batches. Any other list is
    # `[x, y]`, as in `validation_data` of `fit`.
    if isinstance(data, list) and not all(
        isinstance(part, (list, tuple)) for part in data
    ):
        data = tuple(data)
    if not isinstance(data, tuple):
        _check_dataset(name, data)
        return data
    # The leaves of a list of numbers have no shape.
    shapes = [
        tuple(getattr(array, "shape", ())) for array in keras.tree.flatten(data)
    ]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(data) not in (2, 3) or len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"`{name}` must be (x, y) or (x, y, sample_weight), arrays of the "
            "same length, at least 1. Received: a tuple of length "
            f"{len(data)}, with shapes {shapes[:3]}."
        )
    data = keras.tree.map_structure(to_array, data)
    for array in keras.tree.flatten(data):
        _check_numbers(name, array)
    return data


def _check_numbers(name: str, array: Array) -> None:
    if array.dtype.kind in "OSUV":
        raise ValueError(
            f"`{name}` must have arrays of numbers. Received: dtype "
            f"{array.dtype}."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"`{name}` must have finite numbers. Received: {array[index]}, "
            f"first at index {index}."
        )


def _check_dataset(name: str, data: Any) -> None:
    message = None
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            message = "be finite. Received: a PyDataset without `num_batches`."
    elif hasattr(data, "shape"):
        message = (
            "be (x, y) or (x, y, sample_weight). Received: one array of shape "
            f"{tuple(data.shape)}."
        )
    elif not is_dataset(data):
        message = (
            "be arrays, or a dataset that can be iterated over repeatedly. "
            f"Received: {name}={data!r}"
        )
    elif any(
        getattr(getattr(spec, "shape", None), "rank", None) == 0
        for spec in keras.tree.flatten(getattr(data, "element_spec", ()))
    ):
        message = (
            "yield batches. Received: a dataset of single samples. Use its "
            "`batch`."
        )
    elif hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        message = (
            "be finite. Received: an infinite dataset. Remove its `repeat()`."
        )
    if message:
        raise ValueError(f"`{name}` must {message}")
