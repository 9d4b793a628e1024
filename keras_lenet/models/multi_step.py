"""Several training steps in one compiled program."""

import contextlib
import functools
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.keras_internals import has_one_replica, restore_jax_state
from keras_lenet.models.fused_forward import on_cpu, traced_for_xla
from keras_lenet.models.steps_per_execution import (
    acts_on_batches,
    acts_only_at_freq,
)
from keras_lenet.types import Tensor

_logger = logging.getLogger(__name__)

_MAX_STACK_BYTES = 2**25

# Operations that XLA computes differently, drops or does not support.
_UNSUPPORTED = re.compile(
    "Random|Multinomial|Shuffle|PyFunc|Print|Assert|CheckNumerics|Debug|Summary"
)

_FALLBACK = (
    "XLA does not run all of %r as TensorFlow does (%s). Keras' slower loop "
    "trains the model until it is compiled again."
)


def can_train(model: Any) -> bool:
    """Returns whether `train_function` can train a compiled model.

    XLA's convolutions are very slow inside loops, so the model must avoid them,
    as `fused_forward` does.
    """
    if (
        model.run_eagerly
        or not on_cpu()
        or keras.distribution.distribution() is not None
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


def train_function(model: Any) -> Callable[..., Any]:
    """Returns a `train_function` that runs all steps in one compiled loop.

    So the steps share the cost of starting a program and of its memory. The
    number of steps is an argument of the program: the same program runs and
    gives the same weights, bit for bit, whatever the steps per execution.
    """
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_train_function(model)
    return _jax_train_function(model)


def _tensorflow_train_function(model: Any) -> Callable[..., Any]:
    import tensorflow as tf

    def train(batches: Any, count: Tensor) -> Any:
        def step(index: Tensor) -> Tensor:
            token = traced_for_xla.set(True)
            try:
                model.train_step(_batch_at(batches, index))
            finally:
                traced_for_xla.reset(token)
            return index + 1

        tf.while_loop(lambda index: index < count, step, [tf.constant(0)])
        return model.get_metrics_result()

    # TensorFlow counts retracing per code object, and would warn about other
    # models. A partial has no code object.
    program = tf.function(
        functools.partial(train), autograph=False, jit_compile=True
    )
    known: set[str] = set()

    def function(iterator: Iterator[Any]) -> Any:
        logs = None
        batches = _next_batches(model, map(_optionals_to_none, iterator))
        done = 0
        for stack, count in _stack_batches(model, batches, tf.stack):
            if not model.optimizer.built:
                _create_variables(model, _batch_at(stack, 0))
            arguments = (stack, tf.constant(count))
            signature = str(keras.tree.map_structure(_shape_and_dtype, stack))
            unsupported = ""
            if signature not in known:
                traced = program.get_concrete_function(*arguments)
                unsupported = _unsupported_operations(traced)
            if not unsupported:
                try:
                    logs = program(*arguments)
                except tf.errors.OpError as error:
                    if signature in known:
                        raise
                    unsupported = error.message.split(" (")[0]
            if unsupported:
                _logger.warning(_FALLBACK, model.name, unsupported)
                return model.use_keras_loop()(iter(batches[done:]))
            known.add(signature)
            done += count
        return logs

    return function


def _unsupported_operations(traced: Any) -> str:
    """Returns the operations of a TensorFlow function that XLA cannot run."""
    graph = traced.graph.as_graph_def()
    nodes = [
        *graph.node,
        *(node for each in graph.library.function for node in each.node_def),
    ]
    return ", ".join(
        sorted({node.op for node in nodes if _UNSUPPORTED.search(node.op)})
    )


def _shape_and_dtype(part: Any) -> Any:
    return None if part is None else (tuple(part.shape), str(part.dtype))


def _optionals_to_none(batch: Any) -> Any:
    """Undoes how Keras passes a generator's `None` through `tf.data`."""
    import tensorflow as tf

    return keras.tree.map_structure(
        lambda part: (
            None if isinstance(part, tf.experimental.Optional) else part
        ),
        batch,
    )


def _create_variables(model: Any, batch: Any) -> None:
    """Creates the variables of the optimizer and the metrics.

    If a traced step created them, TensorFlow would trace it a second time.
    """
    import tensorflow as tf

    model.optimizer.build(model.trainable_variables)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    before = [variable.numpy() for variable in model.metrics_variables]
    count, *_ = keras.tree.flatten(x)[0].shape
    outputs = ops.zeros((count, *model.output_shape[1:]))
    # A metric that fails raises its error again when the step is traced.
    with contextlib.suppress(tf.errors.OpError):
        model.compute_metrics(x, y, outputs, sample_weight)
    model.reset_metrics()
    for variable, value in zip(model.metrics_variables, before, strict=False):
        variable.assign(value)


def _jax_train_function(model: Any) -> Callable[..., Any]:
    import jax

    def train(state: Any, batches: Any, count: Tensor) -> Any:
        def step(index: Tensor, carried: Any) -> Any:
            return model.train_step(carried[1], _batch_at(batches, index))

        first = _batch_at(batches, 0)
        shapes, _ = jax.eval_shape(model.train_step, state, first)
        logs = jax.tree.map(lambda s: ops.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, count, step, (logs, state))

    train = jax.jit(train, donate_argnums=0)

    def function(state: Any, iterator: Iterator[Any]) -> Any:
        logs = None
        with _restoring_state_on_error(model, state):
            batches = _next_batches(model, iterator)
            for stack, count in _stack_batches(model, batches, np.stack):
                # Wait for the last program: JAX would allocate the memory of
                # the next one now, although it runs later.
                jax.tree.map(lambda part: part.block_until_ready(), state)
                logs, state = train(state, stack, count)
        return logs, state

    return function


def with_checks(model: Any, function: Any) -> Any:
    """Returns a train, test or predict function that checks its batches."""
    if keras.backend.backend() == "jax":

        def checked(state: Any, iterator: Iterator[Any]) -> Any:
            with _restoring_state_on_error(model, state):
                if model._check_batch is not None:
                    iterator = iter(_next_batches(model, iterator))
                return function(state, iterator)

        return checked

    def checked_data(data: Any) -> Any:
        if model._check_batch is None:
            return function(data)
        if isinstance(data, list):
            for batch in data:
                model._check_batch(batch)
        elif hasattr(data, "element_spec") and has_one_replica(model):
            data = iter(_next_batches(model, data))
        return function(data)

    return checked_data


def _next_batches(model: Any, iterator: Iterator[Any]) -> list[Any]:
    """Returns the checked batches of one execution."""
    for callback in model._multi_step_callbacks:
        if acts_on_batches(callback) and not acts_only_at_freq(callback):
            raise ValueError(
                "A callback must have its hooks on batches when `fit` begins. "
                f"Received: {callback!r}, which got one later. Define the hook "
                "in its class, or compile with `run_eagerly=True`."
            )
    batches = list(itertools.islice(iterator, model.steps_per_execution))
    if not batches:
        raise StopIteration
    if model._check_batch is not None:
        for batch in batches:
            model._check_batch(batch)
    return batches


@contextlib.contextmanager
def _restoring_state_on_error(
    model: Any, state: tuple[Any, ...]
) -> Iterator[None]:
    """Puts the JAX state back into the model if a step raises an error."""
    try:
        yield
    except Exception as error:
        import jax

        if not isinstance(error, StopIteration) and not any(
            value.is_deleted() for value in jax.tree.leaves(state)
        ):
            restore_jax_state(model, state)
        raise


def _batch_at(stack: Any, index: Any) -> Any:
    return keras.tree.map_structure(
        lambda stacked: None if stacked is None else stacked[index], stack
    )


def _stack_batches(
    model: Any, batches: list[Any], stack: Callable[..., Any]
) -> Iterator[tuple[Any, int]]:
    """Yields stacks of batches of one shape, with their number of batches."""
    steps = model.steps_per_execution
    for _, same in itertools.groupby(batches, _shapes):
        for first in same:
            fitting = _MAX_STACK_BYTES // max(_count_bytes(first), 1)
            # For a stack of one, XLA would compile another program, which
            # rounds differently.
            size = max(1, min(max(steps, 2), fitting))
            group = [first, *itertools.islice(same, size - 1)]  # noqa: B031
            # Fill the stack up: XLA compiles again for every other size.
            filled = [*group, *[first] * (size - len(group))]
            stacked = keras.tree.map_structure(
                lambda *parts: None if parts[0] is None else stack(parts),
                *filled,
            )
            yield stacked, len(group)


def _shapes(batch: Any) -> list[tuple[int, ...]]:
    parts = keras.tree.flatten(batch)
    return [tuple(part.shape) for part in parts if part is not None]


def _count_bytes(batch: Any) -> int:
    return sum(
        math.prod(part.shape)
        * (getattr(part.dtype, "itemsize", 0) or part.dtype.size)
        for part in keras.tree.flatten(batch)
        if part is not None
    )
