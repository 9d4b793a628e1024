"""How many steps per execution the callbacks allow."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras

# More steps in one execution, or more data, gain nothing that was measured.
_MOST_STEPS = 32


def choose_steps(
    x: Any = None,
    batch_size: int | None = None,
    callbacks: Any = None,
    validation_split: float = 0.0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    **_: Any,
) -> int:
    """Returns how many steps an execution may have without being noticed.

    Keras calls callbacks between executions. So those that act on batches get
    executions of one step, and those of this package one that divides `freq`.

    Args:
        x: As given to `fit`, like all arguments.
        batch_size: Integer.
        callbacks: List of Keras callbacks.
        validation_split: Number.
        steps_per_epoch: Integer.
        validation_steps: Integer.

    Returns:
        Integer, at least 1.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return 1
    if not isinstance(batch_size, (int, type(None))) or (batch_size or 1) < 1:
        # Keras raises its own error.
        return 1
    most = keras.config.max_steps_per_epoch()
    multiples = [n for n in (steps_per_epoch, validation_steps, most) if n]
    steps_per_epoch = steps_per_epoch or most
    in_data = _num_batches(x, batch_size or 32, validation_split)
    if steps_per_epoch and in_data != math.inf:
        # The data may run out inside an epoch, of which Keras warns.
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
        # Evenly, because all executions of an epoch take as much memory.
        executions = math.ceil((in_epoch or _MOST_STEPS) / _MOST_STEPS)
        return math.ceil((in_epoch or _MOST_STEPS) / executions)
    common = math.gcd(*multiples)
    return max(
        steps for steps in range(1, _MOST_STEPS + 1) if common % steps == 0
    )


def _num_batches(
    x: Any, batch_size: int, validation_split: float
) -> float | None:
    """Returns how many batches there are, `None` if that is not known."""
    if hasattr(x, "cardinality"):
        cardinality = int(x.cardinality())
        if cardinality == -1:
            return math.inf
        return cardinality if cardinality >= 0 else None
    if hasattr(x, "shape"):
        count = math.floor(int(x.shape[0]) * (1 - validation_split))
        return math.ceil(count / batch_size)
    known: int | None = getattr(x, "num_batches", None)  # of a PyDataset
    return known


# `LambdaCallback` has them as attributes of the instance.
_BATCH_HOOKS = [
    f"on_{kind}batch_{end}"
    for kind in ("", "train_", "test_")
    for end in ("begin", "end")
]


def acts_only_at_freq(callback: Any) -> bool:
    """Returns whether a callback of this package acts at its `freq` alone."""
    return (
        getattr(callback, "acts_only_at_freq", False)
        # Neither a subclass nor an assignment adds a hook.
        and type(callback).__module__.startswith("keras_lenet.")
        and not vars(callback).keys() & set(_BATCH_HOOKS)
    )


def acts_on_batches(callback: Any) -> bool:
    """Returns whether a callback has a hook on batches."""
    # Keras' own callbacks that save every so many batches or every epoch.
    if getattr(callback, "save_freq", None) == "epoch" and type(
        callback
    ).__module__.startswith("keras."):
        return False
    # `on_batch_begin` of a subclass is called by `on_train_batch_begin`.
    base = keras.callbacks.Callback
    return any(
        getattr(getattr(callback, name), "__func__", None)
        is not getattr(base, name)
        for name in _BATCH_HOOKS
    )


@contextlib.contextmanager
def steps_per_execution(model: Any, steps: int) -> Iterator[None]:
    """Lets a model make several steps in one execution for a while."""
    before = model.steps_per_execution
    # They keep the number that they were made for.
    names = ("test_function", "predict_function")
    functions = [getattr(model, name) for name in names]
    try:
        model.steps_per_execution = steps
        if steps != before:
            for name in names:
                setattr(model, name, None)
        yield
    finally:
        # Unless a callback has compiled the model anew.
        if model.steps_per_execution == steps != before:
            model.steps_per_execution = before
            for name, function in zip(names, functions, strict=True):
                setattr(model, name, function)
