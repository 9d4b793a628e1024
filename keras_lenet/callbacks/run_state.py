"""The state of a run."""

import inspect
import random
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks.periodic import StatefulCallback
from keras_lenet.types import Array

_TUPLE, _ARRAY = "<tuple>", "<array>"


def variable_groups(model: Any) -> dict[str, list[Any]]:
    """Returns the model's variables by purpose."""
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
    """Returns the callback's attributes that belong to a run."""
    if isinstance(callback, StatefulCallback):
        return callback.get_state()
    arguments = inspect.signature(type(callback).__init__).parameters
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in (*arguments, "params") and _can_pack(value)
    }


def set_callback_state(callback: Any, state: dict[str, Any]) -> None:
    """Restores what `get_callback_state` returned."""
    if isinstance(callback, StatefulCallback):
        callback.set_state(state)
    else:
        vars(callback).update(state)


def _can_pack(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(
            map(_can_pack, value.values())
        )
    if isinstance(value, (list, tuple)):
        return all(map(_can_pack, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind in "biuf" or _is_bfloat16(value)
    return value is None or isinstance(value, (bool, int, float, str))


def _is_bfloat16(array: Any) -> bool:
    return bool(array.dtype.name == "bfloat16")


def to_storable(array: Any) -> Array:
    """Returns an array that a NumPy file can hold, which bfloat16 is not."""
    return np.asarray(array, "float32" if _is_bfloat16(array) else None)


def pack(value: Any, arrays: dict[str, Array]) -> Any:
    """Returns a value as JSON, with its arrays moved to `arrays`."""
    if isinstance(value, dict):
        return {key: pack(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [pack(part, arrays) for part in value]
    if isinstance(value, tuple):
        return {_TUPLE: [pack(part, arrays) for part in value]}
    if isinstance(value, (np.ndarray, np.generic)):
        name = f"{_ARRAY}/{len(arrays)}"
        arrays[name] = to_storable(value)
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
