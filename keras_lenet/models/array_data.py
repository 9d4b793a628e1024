"""NumPy arrays as datasets without `tf.data` autotuning."""

from typing import Any

import keras
import numpy as np

from keras_lenet.datasets.pipeline import dataset_from_arrays
from keras_lenet.keras_internals import max_steps_per_epoch

_NAMES = ("x", "y", "sample_weight")


def name_data(data: Any) -> dict[str, Any]:
    """Returns images, labels and weights by name."""
    parts = keras.utils.unpack_x_y_sample_weight(data)
    return dict(zip(_NAMES, parts, strict=True))


def replace_arrays_in_fit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Replaces training and validation arrays with untuned datasets."""
    if arguments.get("validation_split"):
        return arguments
    shuffle = arguments.get("shuffle", True)
    validation = arguments.get("validation_data")
    validation_size = arguments.get("validation_batch_size") or arguments.get(
        "batch_size"
    )
    if isinstance(shuffle, bool) and can_replace(arguments):
        # The dataset shuffles; Keras warns that it cannot.
        arguments = {**_replace(arguments, shuffle), "shuffle": False}
    if isinstance(validation, tuple):
        given = {
            **name_data(validation),
            "batch_size": validation_size,
            "validation_steps": arguments.get("validation_steps"),
        }
        arguments = {**arguments, "validation_batch_size": validation_size}
        if can_replace(given):
            arguments["validation_data"] = _replace(given)["x"]
    return arguments


def replace_arrays(arguments: dict[str, Any]) -> dict[str, Any]:
    """Replaces the arrays of `evaluate` or `predict` with a dataset."""
    return _replace(arguments) if can_replace(arguments) else arguments


def can_replace(arguments: dict[str, Any]) -> bool:
    """Returns whether a dataset gives the same batches as the arrays."""
    x, y, sample_weight = map(arguments.get, _NAMES)
    # Keras splits arrays differently if it is told a number of steps.
    others = ("class_weight", "steps", "steps_per_epoch", "validation_steps")
    if any(map(arguments.get, others)) or max_steps_per_epoch():
        return False
    size = arguments.get("batch_size") or 32
    if not isinstance(size, int) or size < 1:
        return False
    if x is None or (y is None and sample_weight is not None):
        return False
    return all(
        isinstance(array, np.ndarray)
        and array.dtype.kind in "biuf"
        and array.ndim > 0
        and len(array) == len(x) > 0
        for array in _given_arrays(arguments)
    )


def _given_arrays(arguments: dict[str, Any]) -> list[Any]:
    arrays = map(arguments.get, _NAMES)
    return [array for array in arrays if array is not None]


def _replace(
    arguments: dict[str, Any], shuffle: bool = False
) -> dict[str, Any]:
    """Replaces arrays with a dataset that `tf.data` does not autotune.

    Keras enables autotuning, which delays the end of each epoch.
    """
    floatx = keras.config.floatx()
    arrays = tuple(
        array.astype(floatx, copy=False) if array.dtype.kind == "f" else array
        for array in _given_arrays(arguments)
    )
    size = arguments.get("batch_size") or 32
    # `keras.utils.set_random_seed` seeds NumPy's global generator.
    seed = np.random.randint(2**32) if shuffle else 0  # noqa: NPY002
    dataset = dataset_from_arrays(arrays, size, seed, shuffle)
    # The arrays were checked, so the batches need not be.
    dataset.is_checked = True
    removed = (*_NAMES, "batch_size")
    kept = {k: v for k, v in arguments.items() if k not in removed}
    return {"x": dataset, **kept}
