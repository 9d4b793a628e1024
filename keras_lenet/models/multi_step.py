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

from keras_lenet.models.fused_forward import on_cpu, traced_for_xla
from keras_lenet.models.steps_per_execution import (
    acts_on_batches,
    acts_only_at_freq,
)
from keras_lenet.types import Tensor

_logger = logging.getLogger(__name__)


_MOST_BYTES = 2**25


def can_train(model: Any) -> bool:
    """Returns whether `train_function` serves for a model as it is compiled.

    XLA's convolutions are very slow inside of loops, so it has to be one that
    does without, as `forward` does.
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
            model._jit_compile_asked_for is not False
            and not tf.config.functions_run_eagerly()
            and model.distribute_strategy.num_replicas_in_sync == 1
        )
    return bool(model.jit_compile)


def train_function(model: Any) -> Callable[..., Any]:
    """Makes what Keras calls to train for `model.steps_per_execution` steps.

    All steps are in one compiled loop, so that starting them, and the memory
    that they need, is paid for once. How many steps it makes is an argument:
    however a training is cut into executions, the same program runs, and the
    weights are the same bit for bit.

    Args:
        model: A compiled Keras model.

    Returns:
        A function as `model.make_train_function` makes it on this backend.
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
                model.train_step(_batch(batches, index))
            finally:
                traced_for_xla.reset(token)
            return index + 1

        tf.while_loop(lambda index: index < count, step, [tf.constant(0)])
        return model.get_metrics_result()

    # TensorFlow counts tracings by the code of a function, and warns of those
    # of other models. A partial has no code of its own.
    program = tf.function(
        functools.partial(train), autograph=False, jit_compile=True
    )
    known: set[str] = set()

    def function(iterator: Iterator[Any]) -> Any:
        logs = None
        batches = _next_batches(model, map(_without_optionals, iterator))
        done = 0
        for stack, count in _stacks(model, batches, tf.stack):
            if not model.optimizer.built:
                _make_variables(model, _batch(stack, 0))
            arguments = (stack, tf.constant(count))
            form = str(keras.tree.map_structure(_form, stack))
            refused = ""
            if form not in known:
                traced = program.get_concrete_function(*arguments)
                refused = _refused_by_xla(traced)
            if not refused:
                try:
                    logs = program(*arguments)
                except tf.errors.OpError as error:
                    if form in known:
                        raise
                    refused = error.message.split(" (")[0]
            if refused:
                _logger.warning(_REFUSED, model.name, refused)
                return model.leave_to_keras()(iter(batches[done:]))
            known.add(form)
            done += count
        return logs

    return function


# What XLA computes otherwise than TensorFlow, leaves out, or does not know.
_NOT_FOR_XLA = re.compile(
    "Random|Multinomial|Shuffle|PyFunc|Print|Assert|CheckNumerics|Debug|Summary"
)


_REFUSED = (
    "XLA does not run all of %r as TensorFlow does (%s). Keras' own loop "
    "trains it until it is compiled again, which takes longer."
)


def _refused_by_xla(traced: Any) -> str:
    """Returns which operations of a TensorFlow function are not for XLA."""
    graph = traced.graph.as_graph_def()
    nodes = [
        *graph.node,
        *(node for each in graph.library.function for node in each.node_def),
    ]
    return ", ".join(
        sorted({node.op for node in nodes if _NOT_FOR_XLA.search(node.op)})
    )


def _form(part: Any) -> Any:
    return None if part is None else (tuple(part.shape), str(part.dtype))


def _without_optionals(batch: Any) -> Any:
    """Returns a batch with `None` where a generator has yielded it."""
    import tensorflow as tf

    return keras.tree.map_structure(
        lambda part: (
            None if isinstance(part, tf.experimental.Optional) else part
        ),
        batch,
    )


def _make_variables(model: Any, batch: Any) -> None:
    """Makes what would otherwise be made while TensorFlow traces a step.

    It would have to trace the step a second time then.
    """
    import tensorflow as tf

    model.optimizer.build(model.trainable_variables)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    before = [variable.numpy() for variable in model.metrics_variables]
    count, *_ = keras.tree.flatten(x)[0].shape
    outputs = ops.zeros((count, *model.output_shape[1:]))
    # A step that fails raises its own error when it is traced.
    with contextlib.suppress(tf.errors.OpError):
        model.compute_metrics(x, y, outputs, sample_weight)
    model.reset_metrics()
    for variable, value in zip(model.metrics_variables, before, strict=False):
        variable.assign(value)


def _jax_train_function(model: Any) -> Callable[..., Any]:
    import jax

    def train(state: Any, batches: Any, count: Tensor) -> Any:
        def step(index: Tensor, carried: Any) -> Any:
            return model.train_step(carried[1], _batch(batches, index))

        shapes, _ = jax.eval_shape(model.train_step, state, _batch(batches, 0))
        logs = jax.tree.map(lambda s: ops.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, count, step, (logs, state))

    train = jax.jit(train, donate_argnums=0)

    def function(state: Any, iterator: Iterator[Any]) -> Any:
        logs = None
        with _keeping_state(model, state):
            batches = _next_batches(model, iterator)
            for stack, count in _stacks(model, batches, np.stack):
                # Otherwise the program gets its memory now, but runs later.
                jax.tree.map(lambda part: part.block_until_ready(), state)
                logs, state = train(state, stack, count)
        return logs, state

    return function


def with_checks(model: Any, function: Any) -> Any:
    """Returns a function of Keras that checks batches before it runs.

    Args:
        model: A model of this package, whose `_check_batch` checks.
        function: Its train, test or predict function.
    """
    if keras.backend.backend() == "jax":

        def checked(state: Any, iterator: Iterator[Any]) -> Any:
            with _keeping_state(model, state):
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
        elif _is_local_iterator(model, data):
            data = iter(_next_batches(model, data))
        return function(data)

    return checked_data


def _is_local_iterator(model: Any, data: Any) -> bool:
    """Returns whether data come from `tf.data`, and to one device."""
    return (
        hasattr(data, "element_spec")
        and model.distribute_strategy.num_replicas_in_sync == 1
    )


def _next_batches(model: Any, iterator: Iterator[Any]) -> list[Any]:
    """Returns the checked batches of one execution."""
    for callback in model._callbacks_of_execution:
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
def _keeping_state(model: Any, state: tuple[Any, ...]) -> Iterator[None]:
    """Puts JAX' state back into the model if an error comes up.

    Keras takes it out of the model before the first step, and loses it then.
    """
    try:
        yield
    except Exception as error:
        import jax

        if not isinstance(error, StopIteration) and not any(
            value.is_deleted() for value in jax.tree.leaves(state)
        ):
            names = ["trainable", "non_trainable", "optimizer", "metrics"]
            if len(state) == 3:
                names.remove("optimizer")
            model._jax_state = {
                f"{name}_variables": values
                for name, values in zip(names, state, strict=False)
            }
            model._jax_state_synced = False
            model.jax_state_sync()
        raise


def _batch(batches: Any, index: Any) -> Any:
    return keras.tree.map_structure(
        lambda stacked: None if stacked is None else stacked[index], batches
    )


def _stacks(
    model: Any, batches: list[Any], stack: Callable[..., Any]
) -> Iterator[tuple[Any, int]]:
    """Yields batches of one shape stacked, and how many they are."""
    steps = model.steps_per_execution
    for _, same in itertools.groupby(batches, _shapes):
        for first in same:
            # Of one batch XLA would make another program, whose rounding
            # differs.
            fit = _MOST_BYTES // max(_count_bytes(first), 1)
            most = max(1, min(max(steps, 2), fit))
            group = [first, *itertools.islice(same, most - 1)]  # noqa: B031
            # Always as many, or XLA would compile again.
            filled = [*group, *[first] * (most - len(group))]
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
