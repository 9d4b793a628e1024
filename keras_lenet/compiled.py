"""How LeNet-5 is calculated where XLA compiles for a CPU.

Keras calculates the network layer by layer and trains it step by step, and
most of the time goes into memory traffic and into starting operations. Here
are another form of the same function and another way to run the same steps.
`LeNet5` uses them where they were measured to be faster: on a CPU, with
TensorFlow (training) and JAX (everything that is compiled). Elsewhere Keras'
own layers run. `benchmarks/README.md` has the figures.
"""

import contextlib
import functools
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

_logger = logging.getLogger(__name__)

# More steps in one execution, or more data, gain nothing that was measured.
_MOST_STEPS = 32
_MOST_BYTES = 2**25
# Of more images, what has to be remembered does not fit into the caches.
_MOST_IMAGES = 256
# TensorFlow has no public way to ask whether a function is traced for XLA.
_traced_for_xla: ContextVar[bool] = ContextVar("traced_for_xla", default=False)


def on_cpu() -> bool:
    """Returns whether the backend calculates on a CPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    return False


def is_being_compiled(inputs: Tensor) -> bool:
    """Returns whether XLA is going to compile for a CPU what is called."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _traced_for_xla.get()
    if backend == "jax":
        import jax

        return isinstance(inputs, jax.core.Tracer) and on_cpu()
    return False


def supports_fused_forward(model: Any) -> bool:
    """Returns whether a `LeNet5` has the layers that `forward` computes.

    They may have other data types, be quantized, or changed by the user.
    """
    return model.layers_unchanged() and all(
        layer.dtype_policy.name == "float32"
        for layer in map(model.get_layer, ("c1", "c3", "c5", "f6"))
    )


def forward(model: Any, images: Tensor, training: bool = False) -> Tensor:
    """Calculates what a `LeNet5` of float32 does, the batch as the last axis.

    With images along the last axis, the vector units always have something
    to do: Keras' layout has 6 or 16 maps there. Large batches are calculated
    in parts, whose intermediate results fit into the caches.

    Args:
        model: A `LeNet5`.
        images: Tensor of shape `(batch, height, width, channels)`.
        training: Boolean. Whether gradients will be asked for. Then the parts
            are laid out one after the other; else one is calculated in a
            loop, which takes less time to compile. Defaults to `False`.

    Returns:
        Tensor of shape `(batch, num_classes)`, as `model(images)` is.
    """
    # The last layer may do what depends on the whole batch.
    return model.get_layer("output")(_features(model, images, training))


def _features(model: Any, images: Tensor, training: bool) -> Tensor:
    """Returns what the last layer takes, `(batch, 84)`."""
    count = images.shape[0]
    if not isinstance(count, int) or count <= _MOST_IMAGES:
        return _features_of_part(model, images)
    parts = math.ceil(count / _MOST_IMAGES)
    if not training and count % parts == 0:
        parted = ops.reshape(images, (parts, count // parts, *images.shape[1:]))
        features = ops.map(lambda part: _features_of_part(model, part), parted)
        return ops.reshape(features, (count, -1))
    ends = [count * part // parts for part in range(parts + 1)]
    return ops.concatenate(
        [
            _features_of_part(model, images[start:end])
            for start, end in itertools.pairwise(ends)
        ]
    )


def _features_of_part(model: Any, images: Tensor) -> Tensor:
    c1, c3, c5, f6 = map(model.get_layer, ("c1", "c3", "c5", "f6"))
    # As bytes, before there are more of them.
    x = ops.transpose(images, (3, 1, 2, 0))
    if model.include_preprocessing:
        x = model.get_layer("rescaling")(model.get_layer("pad_to_32")(x))
    x = ops.cast(x, "float32")
    x = _convolve_and_pool(x, c1.kernel, c1.bias)
    x = _convolve_and_pool(x, c3.kernel, c3.bias)
    maps, height, width, _ = x.shape
    x = ops.reshape(x, (maps * height * width, -1))
    # `flatten` puts the maps last, which are first here.
    kernel = ops.reshape(c5.kernel, (height * width, maps, -1))
    kernel = ops.reshape(
        ops.transpose(kernel, (1, 0, 2)), (maps * height * width, -1)
    )
    x = _apply_dense(x, kernel, c5.bias)
    x = _apply_dense(x, f6.kernel, f6.bias)
    return ops.transpose(x)


def _convolve_and_pool(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Does 5x5 convolution, ReLU and 2x2 max-pooling in one product.

    The four pixels that are pooled together see 6x6 pixels. One matrix with
    the kernel at its four places in those gives all four, of which the
    largest is taken before bias and ReLU, which do not change the order.

    Args:
        x: Tensor of shape `(channels, size, size, batch)`.
        kernel: Tensor of shape `(5, 5, channels, maps)`.
        bias: Tensor of shape `(maps,)`.

    Returns:
        Tensor of shape `(maps, size // 2 - 2, size // 2 - 2, batch)`.
    """
    channels, size = x.shape[:2]
    maps = kernel.shape[-1]
    pooled = size // 2 - 2
    span = 2 * pooled - 1
    x = ops.stack([x[:, :, j : j + span : 2] for j in range(6)], axis=1)
    x = ops.stack([x[:, :, i : i + span : 2] for i in range(6)], axis=1)
    x = ops.reshape(x, (channels * 36, -1))

    # As a product: gradients of padding and slicing take longer.
    placed = ops.matmul(_PLACES, ops.reshape(kernel, (25, -1)))
    placed = ops.reshape(placed, (36, 4, channels, maps))
    placed = ops.reshape(
        ops.transpose(placed, (2, 0, 1, 3)), (channels * 36, 4 * maps)
    )
    y = ops.reshape(ops.matmul(ops.transpose(placed), x), (4, maps, -1))
    y = _larger(_larger(y[0], y[1]), _larger(y[2], y[3]))
    y = ops.relu(y + ops.expand_dims(bias, 1))
    return ops.reshape(y, (maps, pooled, pooled, -1))


def _place() -> np.ndarray[Any, Any]:
    """Returns which of 5x5 weights stands where in 6x6, at four places."""
    places = np.zeros((6, 6, 2, 2, 5, 5), "float32")
    for down, right, row, column in np.ndindex(2, 2, 5, 5):
        places[down + row, right + column, down, right, row, column] = 1
    return places.reshape(36 * 4, 25)


_PLACES = _place()


def _larger(a: Tensor, b: Tensor) -> Tensor:
    # As in max-pooling, the first of equal numbers gets the whole gradient,
    # and NaN is not lost. `ops.maximum` gives each a half.
    return ops.where(ops.logical_or(a >= b, ops.isnan(a)), a, b)


def _apply_dense(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return ops.relu(
        ops.matmul(ops.transpose(kernel), x) + ops.expand_dims(bias, 1)
    )


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
            token = _traced_for_xla.set(True)
            try:
                model.train_step(_batch(batches, index))
            finally:
                _traced_for_xla.reset(token)
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
    model.optimizer.build(model.trainable_variables)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    before = [variable.numpy() for variable in model.metrics_variables]
    count, *_ = keras.tree.flatten(x)[0].shape
    outputs = ops.zeros((count, *model.output_shape[1:]))
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
    limits = (
        steps_per_epoch,
        validation_steps,
        keras.config.max_steps_per_epoch(),
    )
    multiples = [steps for steps in limits if steps]
    in_data = _num_batches(x, batch_size or 32, validation_split)
    if steps_per_epoch and in_data != math.inf:
        # The data may run out inside an epoch, of which Keras warns.
        multiples.append(int(in_data or 1))
    in_epoch = steps_per_epoch
    if not (in_epoch or in_data is None or in_data == math.inf):
        in_epoch = int(in_data)
    for callback in keras.tree.flatten(callbacks or []):
        if _looks_only_at_freq(callback):
            if callback.freq != "epoch":
                multiples += [callback.freq, in_epoch or 1]
        elif _acts_on_batches(callback):
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


def _looks_only_at_freq(callback: Any) -> bool:
    """Returns whether a callback of this package acts at its `freq` alone."""
    return (
        getattr(callback, "looks_only_at_freq", False)
        # Neither a subclass nor an assignment adds a hook.
        and type(callback).__module__.startswith("keras_lenet.")
        and not vars(callback).keys() & set(_BATCH_HOOKS)
    )


def _acts_on_batches(callback: Any) -> bool:
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
