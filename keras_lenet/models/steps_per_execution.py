"""The number of steps per execution that the callbacks allow."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras

from keras_lenet.keras_internals import (
    max_steps_per_epoch,
    tensorboard_acts_only_on_epochs,
)

# More steps per execution gave no measurable gain.
_MAX_STEPS = 32

# The methods of a callback that Keras calls for each batch.
_BATCH_HOOKS = [
    f"on_{kind}batch_{end}"
    for kind in ("", "train_", "test_")
    for end in ("begin", "end")
]


def choose_steps(
    x: Any = None,
    batch_size: int | None = None,
    callbacks: Any = None,
    validation_split: float = 0.0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    **_: Any,
) -> int:
    """Returns the largest number of steps per execution that has no effect.

    The arguments are those of `fit`. Keras calls callbacks between executions,
    so callbacks that act on batches allow one step per execution, and the
    callbacks of this package allow a divisor of `freq`.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return 1
    if not isinstance(batch_size, (int, type(None))) or (batch_size or 1) < 1:
        # Keras raises its own error.
        return 1
    max_steps = max_steps_per_epoch()
    multiples = [n for n in (steps_per_epoch, validation_steps, max_steps) if n]
    steps_per_epoch = steps_per_epoch or max_steps
    in_data = _num_batches(x, batch_size or 32, validation_split)
    if steps_per_epoch and in_data != math.inf:
        # The data may run out inside an epoch; Keras warns about that.
        multiples.append(int(in_data or 1))
    in_epoch = steps_per_epoch
    if not (in_epoch or in_data is None or in_data == math.inf):
        in_epoch = int(in_data)
    for callback in keras.tree.flatten(callbacks or []):
        if acts_only_at_freq(callback):
            if callback.freq != "epoch":
                multiples += [callback.freq, in_epoch or 1]
        elif acts_on_batches(callback):
            return 1
    if not multiples:
        # Split an epoch evenly: every execution allocates memory for the
        # largest.
        executions = math.ceil((in_epoch or _MAX_STEPS) / _MAX_STEPS)
        return math.ceil((in_epoch or _MAX_STEPS) / executions)
    common = math.gcd(*multiples)
    return max(n for n in range(1, _MAX_STEPS + 1) if common % n == 0)


def _num_batches(
    x: Any, batch_size: int, validation_split: float
) -> float | None:
    """Returns the number of batches, or `None` if it is unknown."""
    if hasattr(x, "cardinality"):
        cardinality = int(x.cardinality())
        if cardinality == -1:
            return math.inf
        return cardinality if cardinality >= 0 else None
    if hasattr(x, "shape"):
        count = math.floor(int(x.shape[0]) * (1 - validation_split))
        return math.ceil(count / batch_size)
    known: int | None = getattr(x, "num_batches", None)  # Of a PyDataset.
    return known


def acts_only_at_freq(callback: Any) -> bool:
    """Returns whether a callback of this package acts only at its `freq`."""
    return (
        getattr(callback, "acts_only_at_freq", False)
        # A subclass or an assignment could add a hook.
        and type(callback).__module__.startswith("keras_lenet.")
        and not _has_own_hook(callback)
    )


def acts_on_batches(callback: Any) -> bool:
    """Returns whether a callback has a hook on batches."""
    if _acts_only_on_epochs(callback):
        return False
    base = keras.callbacks.Callback
    # `LambdaCallback` has no methods but attributes, which have no `__func__`.
    # A subclass's `on_batch_begin` is called by `on_train_batch_begin`.
    return any(
        getattr(getattr(callback, name), "__func__", None)
        is not getattr(base, name)
        for name in _BATCH_HOOKS
    )


def _has_own_hook(callback: Any) -> bool:
    """Returns whether a hook was set on the callback itself."""
    return bool(vars(callback).keys() & set(_BATCH_HOOKS))


def _acts_only_on_epochs(callback: Any) -> bool:
    """Returns whether a known callback does nothing in its hooks on batches."""
    if _has_own_hook(callback):
        return False
    if type(callback) is keras.callbacks.TensorBoard:
        return tensorboard_acts_only_on_epochs(callback)
    package = type(callback).__module__.partition(".")[0]
    if package == "wandb" and type(callback).__name__ == "WandbMetricsLogger":
        return not callback.logging_batch_wise
    # Keras' callbacks with `save_freq` have the hooks but do nothing in them.
    return package == "keras" and (
        getattr(callback, "save_freq", None) == "epoch"
    )


@contextlib.contextmanager
def steps_per_execution(model: Any, steps: int) -> Iterator[None]:
    """Changes the number of steps per execution temporarily."""
    before = model.steps_per_execution
    # These functions keep the number that they were made for.
    names = ("test_function", "predict_function")
    functions = [getattr(model, name) for name in names]
    try:
        model.steps_per_execution = steps
        if steps != before:
            for name in names:
                setattr(model, name, None)
        yield
    finally:
        # Keep the new functions if a callback has compiled the model again.
        if model.steps_per_execution == steps != before:
            model.steps_per_execution = before
            for name, function in zip(names, functions, strict=True):
                setattr(model, name, function)
