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
    """Puts the model's metrics and all random state back as they were."""
    variables = [*model.metrics_variables, *model.non_trainable_variables]
    values = get_values(variables)
    try:
        # Building draws the seeds of initial weights from Python's generator,
        # which training would do now.
        with (
            preserve_random_state(python=model.built),
            _inference_mode(model),
        ):
            yield
    finally:
        # Metrics that were built by this look have no value to get back.
        model.reset_metrics()
        set_values(variables, values)
        if keras.backend.backend() == "jax":
            attach_jax_state(model)


@contextlib.contextmanager
def preserve_random_state(python: bool = True) -> Iterator[None]:
    """Puts the global random states back, that of Python if asked for."""
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
    """Lets layers that ask PyTorch for their mode be told inference."""
    if keras.backend.backend() != "torch":
        yield
        return
    # `evaluate` of Keras sets the mode for layers that ask PyTorch for it, and
    # does not set it back; `test_on_batch` does neither.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def get_values(variables: Iterable[Any]) -> list[Array]:
    """Returns what Keras variables hold."""
    # On PyTorch the array would share its memory with the variable.
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def set_values(variables: Iterable[Any], values: Iterable[Array]) -> None:
    """Lets Keras variables hold other values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
