"""Several training steps in one compiled program."""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_lenet.keras_internals import has_one_replica
from keras_lenet.models import jax_programs, tensorflow_programs
from keras_lenet.models.batch_stacks import next_batches
from keras_lenet.models.fused_forward import on_cpu

# On an H100, Keras' loop is faster with batches of 1,000 images.
_MAX_BATCH_ON_GPU = 250


def can_compile(model: Any) -> bool:
    """Returns whether XLA may compile several steps of a model.

    On a CPU, XLA's convolutions are very slow inside loops, so the model must
    avoid them, as `fused_forward` does. On a GPU, this was measured with JAX
    and arrays only.
    """
    if (
        model.run_eagerly
        or keras.distribution.distribution() is not None
        or not (on_cpu() or _is_faster_on_gpu(model))
    ):
        return False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return (
            model._jit_compile_argument is not False
            and not tf.config.functions_run_eagerly()
            and has_one_replica(model)
        )
    return bool(model.jit_compile)


def _is_faster_on_gpu(model: Any) -> bool:
    size = model._batch_size
    return (
        keras.backend.backend() == "jax"
        and size is not None
        and size <= _MAX_BATCH_ON_GPU
    )


def train_function(model: Any) -> Callable[..., Any]:
    """Returns a `train_function` that runs all steps in one compiled loop.

    So the steps share the cost of starting a program and of its memory. The
    number of steps is an argument of the program: the same program runs and
    gives the same weights, bit for bit, whatever the steps per execution.
    """
    if keras.backend.backend() == "tensorflow":
        return tensorflow_programs.train_function(model)
    return jax_programs.train_function(model)


def with_checks(model: Any, function: Any) -> Any:
    """Returns a train, test or predict function that checks its batches."""
    if keras.backend.backend() == "jax":

        def checked(state: Any, iterator: Iterator[Any]) -> Any:
            with jax_programs.restoring_state_on_error(model, state):
                if model._check_batch is not None:
                    iterator = iter(next_batches(model, iterator))
                return function(state, iterator)

        return checked

    def checked_data(data: Any) -> Any:
        if model._check_batch is None:
            return function(data)
        if isinstance(data, list):
            for batch in data:
                model._check_batch(batch)
        elif hasattr(data, "element_spec") and has_one_replica(model):
            data = iter(next_batches(model, data))
        return function(data)

    return checked_data
