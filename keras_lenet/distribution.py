"""Several processes or devices that train one model together."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def is_main_process() -> bool:
    """Returns whether this process writes files, of several that train."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return bool(jax.process_index() == 0)


def repeat_for_devices(batch: Any) -> tuple[Any, int]:
    """Repeats a batch until its length is a multiple of the device count.

    Returns the batch and its number of repetitions.
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
    """Lets Keras create arrays without waiting for other processes."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def device_count() -> int:
    """Returns the number of devices that share each batch."""
    if keras.distribution.distribution() is None:
        return 1
    return len(keras.distribution.list_devices())


def process_count() -> int:
    """Returns the number of processes that train together."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())


def gather_from_processes(value: int) -> list[int]:
    """Returns every process's value. All processes must call this."""
    if process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.array(value))
    return [int(value) for value in values]
