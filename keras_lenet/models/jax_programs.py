"""Programs that JAX compiles once for all models of one configuration."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from keras import ops

from keras_lenet.keras_internals import (
    build_symbolically,
    record_shardings,
    restore_jax_state,
)
from keras_lenet.models.batch_stacks import (
    batch_at,
    next_batches,
    pad,
    stack_batches,
)
from keras_lenet.models.twins import Twin, find_twin
from keras_lenet.types import Array, Tensor


def train_function(model: Any) -> Callable[..., Any]:
    """Returns a `train_function` that runs all steps in one program."""
    import jax

    def run(twin: Twin, state: Any, batches: list[Any]) -> Any:
        train = twin.programs["train"]
        logs = None
        for stack, rows, count in stack_batches(twin, model, batches):
            # Wait for the last program: JAX would allocate the memory of the
            # next one now, although it runs later.
            jax.tree.map(lambda part: part.block_until_ready(), state)
            logs, state = train(state, stack, rows, count)
        return logs, state

    return _function(model, "train", _train_program, run)


def test_function(model: Any) -> Callable[..., Any]:
    """Returns a `test_function` that models of one configuration share."""
    import jax

    def run(twin: Twin, state: Any, batches: list[Any]) -> Any:
        logs = None
        for batch in batches:
            logs, state = twin.programs["test"](*pad(twin, model, batch), state)
        return logs, state

    return _function(model, "test", lambda twin: jax.jit(twin.test_step), run)


def predict_function(model: Any) -> Callable[..., Any]:
    """Returns a `predict_function` that models of one configuration share."""
    import jax

    def run(twin: Twin, state: Any, batches: list[Any]) -> Any:
        outputs = []
        for batch in batches:
            computed, others = twin.programs["predict"](state, batch)
            state = state[0], others
            outputs.append(computed)
        if len(outputs) == 1:
            return outputs[0], state
        return np.concatenate(outputs), state

    return _function(
        model, "predict", lambda twin: jax.jit(twin.model.predict_step), run
    )


def _function(
    model: Any,
    name: str,
    make_program: Callable[[Twin], Any],
    run: Callable[[Twin, Any, list[Any]], Any],
) -> Callable[..., Any]:
    """Returns a function that Keras calls for the batches of an execution."""
    twin = find_twin(model)

    def function(state: Any, iterator: Iterator[Any]) -> Any:
        nonlocal twin
        with restoring_state_on_error(model, state):
            batches = next_batches(model, iterator)
            with twin.lock:
                twin = _prepare(twin, model, state, batches[0])
                if name not in twin.programs:
                    if twin.model is not model:
                        record_shardings(twin.model)
                    twin.programs[name] = make_program(twin)
            return run(twin, state, batches)

    return function


def compile_for_one_image(model: Any) -> Callable[[Array], Array]:
    """Returns a function of one image that has a copy of the weights.

    It takes an array of shape `(1, height, width, channels)`.
    """
    import jax

    image = np.zeros((1, *model.input_shape[1:]), "float32")
    call = jax.jit(lambda image: model(image, training=False))
    # Not `call` itself: it would be traced again, with other weights.
    program = call.lower(image).compile()

    def predict(images: Array) -> Array:
        return np.asarray(program(np.asarray(images, "float32")))

    return predict


def _prepare(twin: Twin, model: Any, state: Any, batch: Any) -> Twin:
    """Returns a twin that fits the model, with metrics if there are any."""
    if twin.model is model:
        return twin
    if len(state) > 2 and not twin.is_finished:
        build_symbolically(twin.model, batch)
        twin.finish()
    return twin if _fits(twin.model, state) else Twin(model)


def _fits(model: Any, state: Any) -> bool:
    """Returns whether a model has as many variables as a JAX state."""
    lists = [model.trainable_variables, model.non_trainable_variables]
    if len(state) == 4:
        lists.append(model.optimizer.variables)
    if len(state) > 2:
        lists.append(model.metrics_variables)
    return list(map(len, lists)) == list(map(len, state))


def _train_program(twin: Twin) -> Any:
    import jax

    def train(state: Any, batches: Any, rows: Tensor, count: Tensor) -> Any:
        def step(index: Tensor, carried: Any) -> Any:
            batch = batch_at(batches, index)
            return twin.train_step(batch, rows[index], carried[1])

        def first(state: Any) -> Any:
            return step(0, (None, state))

        shapes, _ = jax.eval_shape(first, state)
        logs = jax.tree.map(lambda s: ops.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, count, step, (logs, state))

    return jax.jit(train, donate_argnums=0)


@contextlib.contextmanager
def restoring_state_on_error(
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
