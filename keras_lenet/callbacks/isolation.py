"""Using a model inside `fit` without changing the run."""

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lenet.keras_internals import attach_jax_state
from keras_lenet.types import Array


@contextlib.contextmanager
def preserve_training_state(model: Any) -> Iterator[None]:
    """Restores the model's metrics and all random state on exit."""
    variables = [*model.metrics_variables, *model.non_trainable_variables]
    values = get_values(variables)
    try:
        # Building a model draws the initial weights' seeds from Python's
        # generator. An evaluation that builds it draws them in place of the
        # first step, so keep that generator's new state.
        with (
            preserve_random_state(python=model.built),
            _inference_mode(model),
        ):
            yield
    finally:
        # Metrics that were built meanwhile have no saved value.
        model.reset_metrics()
        set_values(variables, values)
        if keras.backend.backend() == "jax":
            attach_jax_state(model)


@contextlib.contextmanager
def preserve_random_state(python: bool = True) -> Iterator[None]:
    """Restores the global random states on exit, Python's only if `python`."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch_state: Any = contextlib.nullcontext()
    if keras.backend.backend() == "torch":
        import torch

        torch_state = torch.random.fork_rng()
    try:
        with torch_state:
            yield
    finally:
        if python:
            random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextlib.contextmanager
def _inference_mode(model: Any) -> Iterator[None]:
    """Puts PyTorch modules into evaluation mode."""
    if keras.backend.backend() != "torch":
        yield
        return
    # `test_on_batch` does not set the mode; `evaluate` sets it and does not
    # restore it.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def get_values(variables: Iterable[Any]) -> list[Array]:
    """Returns copies of the variables' values."""
    # On PyTorch, `convert_to_numpy` shares memory with the variable.
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def set_values(variables: Iterable[Any], values: Iterable[Array]) -> None:
    """Assigns values to variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def metrics_results(model: Any, values: list[Array]) -> dict[str, Any]:
    """Returns the metrics' results if `values` are those of their variables."""
    set_values(model.metrics_variables, values)
    results = {}
    for name, value in model.get_metrics_result().items():
        array = keras.ops.convert_to_numpy(value)
        results[name] = array.item() if array.size == 1 else array
    return results
