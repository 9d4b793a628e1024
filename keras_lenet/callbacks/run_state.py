"""The state of a run besides its variables."""

import hashlib
import inspect
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.types import Array


def describe_layer(layer: Any) -> Any:
    """Returns the configuration of a layer, or its class."""
    try:
        return layer.get_config()
    except NotImplementedError:
        # A layer of the user's, which need not be one that can be saved.
        return type(layer).__name__


def describe_augment(augment: Any) -> Any:
    """Returns the name and configuration of an `augment` function."""
    if augment is None:
        return None
    name = getattr(augment, "__qualname__", type(augment).__qualname__)
    return name, getattr(augment, "get_config", dict)()


def variable_groups(model: Any) -> dict[str, list[Any]]:
    """Returns the variables of a model by what they are for."""
    return {
        "trainable": model.trainable_variables,
        "non_trainable": model.non_trainable_variables,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }


def get_random_state() -> dict[str, Any]:
    """Returns the state of all global random generators."""
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
    }
    if keras.backend.backend() == "torch":
        import torch

        state["torch"] = torch.get_rng_state().numpy()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Sets the state of all global random generators."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if "torch" in state:
        import torch

        torch.set_rng_state(torch.from_numpy(state["torch"]))


def get_callback_state(callback: Any) -> dict[str, Any]:
    """Returns the attributes of a callback that belong to a run."""
    if isinstance(callback, PeriodicCallback):
        return callback.get_state()
    given = inspect.signature(type(callback).__init__).parameters
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in (*given, "params") and _is_plain(value)
    }


def set_callback_state(callback: Any, state: dict[str, Any]) -> None:
    """Sets what `get_callback_state` returned."""
    if isinstance(callback, PeriodicCallback):
        callback.set_state(state)
    else:
        vars(callback).update(state)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(
            isinstance(key, str) and _is_plain(part)
            for key, part in value.items()
        )
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(
        value, (bool, int, float, str, np.ndarray, np.generic)
    )


def pack(value: Any, arrays: dict[str, Array]) -> Any:
    """Returns what JSON can hold, with arrays moved to `arrays`."""
    if isinstance(value, dict):
        return {key: pack(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [pack(part, arrays) for part in value]
    if isinstance(value, tuple):
        return {_TUPLE: [pack(part, arrays) for part in value]}
    if isinstance(value, (np.ndarray, np.generic)):
        name = f"{_ARRAY}/{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {_ARRAY: name}
    return value


def unpack(value: Any, arrays: dict[str, Array]) -> Any:
    """Reverses `pack`."""
    if isinstance(value, list):
        return [unpack(part, arrays) for part in value]
    if not isinstance(value, dict):
        return value
    if _TUPLE in value:
        return tuple(unpack(part, arrays) for part in value[_TUPLE])
    if _ARRAY in value:
        array = arrays[value[_ARRAY]]
        return array if array.ndim else array[()]
    return {key: unpack(part, arrays) for key, part in value.items()}


_TUPLE, _ARRAY = "<tuple>", "<array>"


def flatten_description(
    value: Any, path: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields everything in a description with its path, except names.

    Keras counts up names, so those of a model differ when it is made again.
    """
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
        if key != "name":
            yield from flatten_description(
                part, f"{path}.{key}" if path else str(key)
            )


def hash_array(array: Array) -> str:
    """Returns the SHA-256 of the values of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
