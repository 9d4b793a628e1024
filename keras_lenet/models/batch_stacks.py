"""The batches of one execution, stacked for a compiled program."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lenet.models.steps_per_execution import (
    acts_on_batches,
    acts_only_at_freq,
)
from keras_lenet.models.twins import Twin, is_pair

_MAX_STACK_BYTES = 2**25


def next_batches(model: Any, iterator: Iterator[Any]) -> list[Any]:
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


def batch_at(stack: Any, index: Any) -> Any:
    """Returns a batch of a stack."""
    return keras.tree.map_structure(
        lambda stacked: None if stacked is None else stacked[index], stack
    )


def stack_batches(
    twin: Twin, model: Any, batches: list[Any]
) -> Iterator[tuple[Any, Any, int]]:
    """Yields stacks of batches of one shape.

    Yields:
        The stack, the numbers of rows that count, the number of batches.
    """
    steps = model.steps_per_execution
    padded = [pad(twin, model, batch) for batch in batches]
    for _, group in itertools.groupby(padded, lambda pair: _shapes(pair[0])):
        for first in group:
            fitting = _MAX_STACK_BYTES // max(_count_bytes(first[0]), 1)
            # For a stack of one, XLA would compile another program, which
            # rounds differently.
            size = max(1, min(max(steps, 2), fitting))
            chosen = [first, *itertools.islice(group, size - 1)]  # noqa: B031
            # Fill the stack up: XLA compiles again for every other size.
            filled = [*chosen, *[first] * (size - len(chosen))]
            parts, rows = zip(*filled, strict=True)
            yield _stack(parts), np.array(rows, "int32"), len(chosen)


def pad(twin: Twin, model: Any, batch: Any) -> tuple[Any, int]:
    """Repeats the first row of the last batch of arrays.

    Returns:
        The batch, of the same size as the others if the twin can leave out
        rows, and the number of rows that count.
    """
    rows = len(keras.tree.flatten(batch)[0])
    missing = (model._batch_size or 0) - rows
    if not twin.may_pad or missing <= 0 or not is_pair(batch):
        return batch, rows
    return tuple(add_rows(part, missing) for part in batch), rows


def add_rows(part: Any, count: int) -> Any:
    """Repeats the first row of an array at its end."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.concat([part, tf.repeat(part[:1], count, axis=0)], axis=0)
    return np.concatenate([part, np.repeat(part[:1], count, axis=0)])


def _stack(batches: Any) -> Any:
    stack: Callable[..., Any] = np.stack
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        stack = tf.stack
    return keras.tree.map_structure(
        lambda *parts: None if parts[0] is None else stack(parts), *batches
    )


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
