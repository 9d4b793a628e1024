"""Forms of data that callbacks take."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np


def to_array(part: Any) -> Any:
    """Returns an array or a tensor as a NumPy array."""
    # `np.asarray` does not take tensors that are on a GPU or have gradients.
    if keras.ops.is_tensor(part):
        return np.asarray(keras.ops.convert_to_numpy(part))
    return None if part is None else np.asarray(part)


def to_iterable(data: Any) -> Iterable[Any]:
    """Returns an iterable over the batches of a dataset."""
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(data.num_batches))
    return data  # type: ignore[no-any-return]


def is_dataset(data: Any) -> bool:
    """Returns whether batches can be taken from it again and again."""
    return isinstance(data, (Iterable, keras.utils.PyDataset)) and not (
        isinstance(data, (Iterator, str, bytes)) or hasattr(data, "shape")
    )
