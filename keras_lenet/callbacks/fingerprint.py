"""What must be the same to resume a run."""

import hashlib
import importlib
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lenet.version import __version__


def describe_run(
    model: Any,
    steps_per_epoch: int | None,
    callbacks: Iterable[keras.callbacks.Callback],
    dataset: Any,
) -> dict[str, Any]:
    """Returns the values that a resumed run must share, by their paths."""
    backend = keras.backend.backend()
    description: dict[str, Any] = {
        "versions": {
            "keras_lenet": __version__,
            "keras": keras.version(),
            "backend": f"{backend} "
            f"{importlib.import_module(backend).__version__}",
            "machine": platform.machine(),
        },
        "model": [_describe_layer(layer) for layer in model.layers],
        "compile": model.get_compile_config(),
        "steps_per_epoch": steps_per_epoch,
        "callbacks": [
            {type(callback).__name__: getattr(callback, "freq", None)}
            for callback in callbacks
        ],
        "data": None,
    }
    if dataset is not None:
        sampler = dataset.sampler
        description["data"] = {
            "batch_size": sampler.batch_size,
            "seed": sampler.seed,
            "shuffle": sampler.shuffle,
            "drop_remainder": sampler.drop_remainder,
            "arrays": [
                f"{array.dtype} {array.shape} "
                f"{hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()}"
                for array in dataset.arrays
            ],
            "augment": _describe_augment(dataset.augment),
        }
    return dict(_flatten(description))


def _describe_layer(layer: Any) -> Any:
    try:
        return layer.get_config()
    except NotImplementedError:
        # Layers of the user need not be serializable.
        return type(layer).__name__


def _describe_augment(augment: Any) -> Any:
    if augment is None:
        return None
    name = getattr(augment, "__qualname__", type(augment).__qualname__)
    return name, getattr(augment, "get_config", dict)()


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves with their paths, except names."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield path, value
    else:
        yield path, str(keras.saving.serialize_keras_object(value))
    for key, part in items:
        # Keras numbers its default names, so they differ between processes.
        if key != "name":
            yield from _flatten(part, f"{path}.{key}" if path else str(key))
