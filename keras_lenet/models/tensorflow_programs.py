"""Programs that XLA compiles for TensorFlow."""

import contextlib
import functools
import logging
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_lenet.models.array_data import can_replace
from keras_lenet.models.batch_stacks import (
    add_rows,
    batch_at,
    next_batches,
    stack_batches,
)
from keras_lenet.models.fused_forward import MAX_PART, tracing_for_xla
from keras_lenet.models.twins import Twin, find_twin
from keras_lenet.types import Tensor

_logger = logging.getLogger(__name__)

# For fewer images, compiling takes longer than TensorFlow's own operations.
_MIN_IMAGES = 10_000

# Operations that XLA computes differently, drops or does not support.
_UNSUPPORTED = re.compile(
    "Random|Multinomial|Shuffle|PyFunc|Print|Assert|CheckNumerics|Debug|Summary"
)

_FALLBACK = (
    "XLA does not run all of %r as TensorFlow does (%s). Keras' slower loop "
    "trains the model until it is compiled again."
)


def train_function(model: Any) -> Callable[..., Any]:
    """Returns a `train_function` that runs all steps in one program."""
    import tensorflow as tf

    twin = find_twin(model)
    is_prepared = False

    def function(iterator: Iterator[Any]) -> Any:
        nonlocal is_prepared
        logs = None
        batches = next_batches(model, map(_optionals_to_none, iterator))
        done = 0
        if not is_prepared:
            with twin.lock:
                _prepare(twin, model, batches[0])
            is_prepared = True
        for stack, rows, count in stack_batches(twin, model, batches):
            arguments = (stack, tf.constant(rows), tf.constant(count))
            try:
                with twin.lock:
                    logs = _run(twin, model, arguments)
            except _UnsupportedError as error:
                _logger.warning(_FALLBACK, model.name, error)
                return model.use_keras_loop()(iter(batches[done:]))
            done += count
        return logs

    return function


def is_worth_compiling(arguments: dict[str, Any]) -> bool:
    """Returns whether `compiled_predict` pays for arguments of `predict`."""
    return can_replace(arguments) and len(arguments["x"]) >= _MIN_IMAGES


@contextlib.contextmanager
def compiled_predict(model: Any, batch_size: int) -> Iterator[None]:
    """Makes Keras' `predict` compute batches in a program of this module."""
    twin = find_twin(model)
    if twin.model is model:
        yield
        return
    with twin.lock:
        if "predict" not in twin.programs:
            twin.programs["predict"] = _make_predict_program(twin)
    before = model.predict_function
    model.predict_function = _predict_function(model, twin, batch_size)
    try:
        yield
    finally:
        model.predict_function = before


def _predict_function(
    model: Any, twin: Twin, batch_size: int
) -> Callable[..., Any]:
    """Returns a `predict_function` that splits batches into equal parts."""
    import tensorflow as tf

    parts = math.ceil(batch_size / MAX_PART)
    size = math.ceil(batch_size / parts)
    variables = [variable.value for variable in model.variables]

    def predict_part(images: Tensor) -> Tensor:
        # Fill up the last part: XLA compiles again for every other size.
        missing = size - len(images)
        if missing:
            images = add_rows(images, missing)
        outputs: Tensor = twin.programs["predict"](variables, images)
        return outputs[:-missing] if missing else outputs

    def function(data: Any) -> Any:
        outputs = []
        for batch in data:
            images, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            for start in range(0, len(images), size):
                outputs.append(predict_part(images[start : start + size]))
        return outputs[0] if len(outputs) == 1 else tf.concat(outputs, axis=0)

    return function


class _UnsupportedError(Exception):
    """XLA does not run all of a program as TensorFlow does."""


def _prepare(twin: Twin, model: Any, batch: Any) -> None:
    is_shared = twin.model is not model
    if is_shared or not model.optimizer.built:
        _create_variables(model, batch)
    if not twin.programs:
        if is_shared:
            _create_variables(twin.model, batch)
            twin.finish()
        twin.programs["train"] = _make_program(twin)


def _run(twin: Twin, model: Any, arguments: Any) -> Any:
    """Trains a model on stacked batches, and returns the logs."""
    import tensorflow as tf

    program = twin.programs["train"]
    variables = []
    if model is not twin.model:
        variables = [variable.value for variable in _variables(model)]
    signature = str(keras.tree.map_structure(_shape_and_dtype, arguments[0]))
    is_known = signature in twin.programs
    if not is_known:
        traced = program.get_concrete_function(variables, *arguments)
        if unsupported := _unsupported_operations(traced):
            raise _UnsupportedError(unsupported)
        twin.programs[signature] = traced
    try:
        return program(variables, *arguments)
    except tf.errors.OpError as error:
        if is_known:
            raise
        raise _UnsupportedError(error.message.split(" (")[0]) from error


def _make_program(twin: Twin) -> Any:
    """Returns a program that trains the twin, or another like it."""
    import tensorflow as tf

    model = twin.model

    def train(variables: Any, batches: Any, rows: Tensor, count: Tensor) -> Any:
        def step(index: Tensor) -> Tensor:
            with tracing_for_xla():
                twin.train_step(batch_at(batches, index), rows[index])
            return index + 1

        own = [variable.value for variable in _variables(model)]
        for mine, given in zip(own, variables, strict=False):
            mine.assign(given)
        tf.while_loop(lambda index: index < count, step, [tf.constant(0)])
        for mine, given in zip(own, variables, strict=False):
            given.assign(mine)
        return model.get_metrics_result()

    return _compile(train)


def _make_predict_program(twin: Twin) -> Any:
    """Returns a program that predicts with given variables."""

    def predict(variables: Any, images: Tensor) -> Any:
        mapping = list(zip(twin.model.variables, variables, strict=True))
        with tracing_for_xla(), keras.StatelessScope(mapping):
            return twin.model.predict_step((images,))

    return _compile(predict)


def _compile(function: Callable[..., Any]) -> Any:
    """Returns a function that XLA compiles."""
    import tensorflow as tf

    # TensorFlow counts retracing per code object, and would warn about other
    # models. A partial has no code object.
    return tf.function(
        functools.partial(function), autograph=False, jit_compile=True
    )


def _variables(model: Any) -> list[Any]:
    """Returns all variables that training changes."""
    return [
        *model.variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    ]


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

    if not model.optimizer.built:
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
