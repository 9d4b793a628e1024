"""NumPy arrays as datasets without `tf.data` autotuning."""

from typing import Any

import keras
import numpy as np

from keras_lenet.datasets.pipeline import dataset_from_arrays

_NAMES = ("x", "y", "sample_weight")


def name_data(data: Any) -> dict[str, Any]:
    """Returns images, labels and weights by name."""
    parts = keras.utils.unpack_x_y_sample_weight(data)
    return dict(zip(_NAMES, parts, strict=True))


def replace_arrays_in_fit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Replaces training and validation arrays with untuned datasets."""
    if arguments.get("validation_split"):
        return arguments
    replaced = replace_arrays(arguments, arguments.get("shuffle", True))
    if replaced is not arguments:
        # The dataset shuffles; Keras warns that it cannot.
        replaced["shuffle"] = False
    validation = arguments.get("validation_data")
    if isinstance(validation, tuple):
        size = arguments.get("validation_batch_size") or arguments.get(
            "batch_size"
        )
        given = {**name_data(validation), "batch_size": size}
        dataset = replace_arrays(given)
        replaced = {**replaced, "validation_batch_size": size}
        if dataset is not given:
            replaced["validation_data"] = dataset["x"]
    return replaced


def replace_arrays(
    arguments: dict[str, Any], shuffle: Any = False
) -> dict[str, Any]:
    """Replaces arrays with a dataset that `tf.data` does not autotune.

    Keras enables autotuning, which delays the end of each epoch: epochs of 0.8
    seconds took 1.3, and epochs of 3 seconds took 5.
    """
    x, y, sample_weight = map(arguments.get, _NAMES)
    arrays = [data for data in (x, y, sample_weight) if data is not None]
    size = arguments.get("batch_size") or 32
    # Keras splits arrays differently if it is told a number of steps.
    others = ("class_weight", "steps", "steps_per_epoch", "validation_steps")
    if (
        any(map(arguments.get, others))
        or keras.config.max_steps_per_epoch()
        or not isinstance(size, int)
        or size < 1
        or not isinstance(shuffle, bool)
        or x is None
        or (y is None and sample_weight is not None)
        or not all(
            isinstance(array, np.ndarray)
            and array.dtype.kind in "biuf"
            and array.ndim > 0
            and len(array) == len(x) > 0
            for array in arrays
        )
    ):
        return arguments
    floatx = keras.config.floatx()
    for index, array in enumerate(arrays):
        if array.dtype.kind == "f":
            arrays[index] = array.astype(floatx, copy=False)
    # `keras.utils.set_random_seed` seeds NumPy's global generator.
    seed = np.random.randint(2**32) if shuffle else 0  # noqa: NPY002
    dataset = dataset_from_arrays(tuple(arrays), size, seed, shuffle)
    dataset.is_checked = True
    replaced = (*_NAMES, "batch_size")
    kept = {k: v for k, v in arguments.items() if k not in replaced}
    return {"x": dataset, **kept}
