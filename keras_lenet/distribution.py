"""Several processes or devices that train one model together."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def is_main_process() -> bool:
    """Returns whether this is the one of several processes that writes."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.process_index() == 0)


def repeat_for_devices(batch: Any) -> tuple[Any, int]:
    """Repeats a batch until all devices can have as many of its samples.

    Args:
        batch: Array, or tuple of arrays.

    Returns:
        The batch, and how many times it is in there.
    """
    if keras.distribution.distribution() is None:
        return batch, 1
    import jax

    devices = jax.local_device_count()
    count = len(keras.tree.flatten(batch)[0])
    times = devices // math.gcd(devices, count)
    return keras.tree.map_structure(
        lambda array: np.concatenate([array] * times), batch
    ), times


@contextlib.contextmanager
def without_distribution() -> Iterator[None]:
    """Lets Keras not wait for other processes when it makes an array."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def device_count() -> int:
    """Returns how many devices share each batch."""
    if keras.distribution.distribution() is None:
        return 1
    return len(keras.distribution.list_devices())


def process_count() -> int:
    """Returns how many processes train together."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())


def gather_from_processes(value: int) -> list[int]:
    """Returns what this number is in every process; all have to ask."""
    if process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.array(value))
    return [int(value) for value in values]
