"""Runs a scenario with plain Keras and with a model of this package.

A scenario is a function of a model and data. It runs once with a functional
model of Keras' own layers, the twin, and once with a model of this package
that has the same weights, both with the same seeds. What it returns, what it
warns of and the weights that it leaves must agree, or both must raise.
"""

import functools
import re
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from tests.differential.comparison import TOLERANCE, assert_same
from tests.helpers import BACKEND

SEED = 98

# Parts of warnings that need not be the same.
_MAY_DIFFER = (
    # The fused forward calculates what Keras calculates after this warning.
    "The structure of `inputs` doesn't match the expected structure",
    # Names the classes of layers.
    "does not have a `quantize` method implemented",
    # PyTorch's, once in a process.
    "Triggered internally",
)


class Data(NamedTuple):
    """Random images and labels, few, so that scenarios take little time."""

    x: Any
    y: Any
    weights: Any
    x_val: Any
    y_val: Any

    @property
    def y_one_hot(self):
        return keras.utils.to_categorical(self.y, 10)

    @property
    def validation(self):
        return self.x_val, self.y_val


def make_data(count=24, seed=SEED):
    generator = np.random.default_rng(seed)
    x, x_val = (
        generator.integers(0, 256, (size, 28, 28, 1)).astype("uint8")
        for size in (count, 16)
    )
    return Data(
        x,
        generator.integers(0, 10, count),
        generator.uniform(0.5, 2, count).astype("float32"),
        x_val,
        generator.integers(0, 10, 16),
    )


def make_plain(
    model_class=keras.Model,
    num_classes=10,
    input_shape=None,
    include_preprocessing=True,
    classifier_activation="softmax",
    dtype=None,
    **kwargs,
):
    """Makes the functional model that `LeNet5` promises to be."""
    if input_shape is None:
        input_shape = (28, 28, 1) if include_preprocessing else (32, 32, 1)
    layers = keras.layers
    policy = keras.dtype_policies.get(dtype)
    # As documented, the head stays float32.
    is_16_bit = policy.compute_dtype in ("float16", "bfloat16")
    head = "float32" if is_16_bit else policy
    common = {"dtype": policy}
    images = keras.Input(input_shape, name="images")
    x = images
    if include_preprocessing:
        height, width = (32 - size for size in input_shape[:2])
        padding = (
            (height // 2, height - height // 2),
            (width // 2, width - width // 2),
        )
        x = layers.ZeroPadding2D(padding, name="pad_to_32", **common)(x)
        x = layers.Rescaling(1 / 255, name="rescaling", **common)(x)
    x = layers.Conv2D(6, 5, activation="relu", name="c1", **common)(x)
    x = layers.MaxPooling2D(name="s2", **common)(x)
    x = layers.Conv2D(16, 5, activation="relu", name="c3", **common)(x)
    x = layers.MaxPooling2D(name="s4", **common)(x)
    x = layers.Flatten(name="flatten", **common)(x)
    x = layers.Dense(120, activation="relu", name="c5", **common)(x)
    x = layers.Dense(84, activation="relu", name="f6", **common)(x)
    outputs = layers.Dense(
        num_classes, activation=classifier_activation, name="output", dtype=head
    )(x)
    kwargs.setdefault("name", "lenet5")
    model = model_class(inputs=images, outputs=outputs, **kwargs)
    # As if the policy was set before the layers were made.
    model.dtype_policy = policy
    return model


def make_pair(define=lambda base: base, **arguments):
    """Makes a model of this package and its twin, with the same weights.

    Args:
        define: Callable that makes a class of a base class, for models that
            users derive.
        **arguments: Arguments of `LeNet5`.

    Returns:
        The two.
    """
    keras.utils.set_random_seed(SEED)
    ours = define(LeNet5)(**arguments)
    twin = make_plain(define(keras.Model), **arguments)
    twin.set_weights(ours.get_weights())
    return ours, twin


class SharedPair:
    """A compiled model and its twin, for scenarios that do not change them.

    Compiling takes most of the time of a scenario. Those that have the same
    compiled programs share them; every scenario starts from the same weights.
    """

    def __init__(self, compile_model):
        self._compile_model = compile_model
        self._models = None

    def reset(self):
        """Returns the models as they were at first."""
        if self._models is None:
            self._models = make_pair()
            for model in self._models:
                self._compile_model(model)
                model.optimizer.build(model.trainable_variables)
            self._start = [state_of(model) for model in self._models]
        for model, (weights, slots) in zip(
            self._models, self._start, strict=True
        ):
            model.set_weights(weights)
            for variable, value in zip(
                model.optimizer.variables, slots, strict=True
            ):
                variable.assign(value)
            model.reset_metrics()
            model.steps_per_execution = 1
        return self._models

    def forget(self):
        """Lets the next scenario have new models."""
        self._models = None


class Outcome(NamedTuple):
    result: Any
    error: Any
    warnings: Any


def run(scenario, model, data):
    """Runs a scenario, with the seeds set and no warning an error."""
    keras.utils.set_random_seed(SEED)
    result = error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = scenario(model, data)
        except Exception as raised:
            error = raised
    messages = {
        # Keras numbers the default names of objects.
        re.sub(r"_\d+'", "'", str(warning.message))
        for warning in caught
        # Libraries warn with other categories.
        if warning.category is UserWarning
        and not any(part in str(warning.message) for part in _MAY_DIFFER)
    }
    return Outcome(result, error, sorted(messages))


def compare(
    scenario,
    pair=None,
    refusal=None,
    atol=TOLERANCE,
    state=True,
    eager_twin=True,
    data=None,
    **arguments,
):
    """Asserts that a scenario has the same outcome with both models.

    Where plain Keras raises an error, ours is one of the same kind or a
    `ValueError`.

    Args:
        scenario: Callable of a model and `Data`.
        pair: A `SharedPair`. By default two new models.
        refusal: Regular expression. If given, ours is a `ValueError` with such
            a message, whatever plain Keras does.
        atol: Number. The tolerance.
        state: Boolean. Whether weights and the optimizer's variables are
            compared after the scenario.
        eager_twin: Boolean. Whether a new twin is compiled with
            `run_eagerly=True` on TensorFlow, which takes less time for the
            same numbers.
        data: `Data`. By default 24 images.
        **arguments: Arguments of `make_pair`.
    """
    ours, twin = pair.reset() if pair else make_pair(**arguments)
    if eager_twin and not pair and BACKEND == "tensorflow":
        _compile_eagerly(twin)
    compare_models(
        scenario, ours, twin, data or make_data(), refusal, atol, state
    )


def compare_models(
    scenario,
    ours,
    twin,
    data,
    refusal=None,
    atol=TOLERANCE,
    state=True,
):
    """Does what `compare` does, with two models that are given."""
    received = run(scenario, ours, data)
    if refusal is not None:
        assert_refused(received, refusal)
        return
    expected = run(scenario, twin, data)
    if expected.error is not None:
        assert_raises_like(received, expected.error)
        return
    if received.error is not None:
        raise received.error
    assert_same(received.result, expected.result, atol)
    assert received.warnings == expected.warnings
    if state:
        assert_same(state_of(ours), state_of(twin), atol, "state")


def _compile_eagerly(model):
    """Lets a model run eagerly unless it is told how to be compiled."""
    compile_model = model.compile

    @functools.wraps(compile_model)
    def compile_eagerly(*args, **kwargs):
        told = {"run_eagerly", "jit_compile", "steps_per_execution"}
        if len(args) < 6 and not told & kwargs.keys():
            kwargs["run_eagerly"] = True
        return compile_model(*args, **kwargs)

    model.compile = compile_eagerly


def assert_refused(received, message):
    """Asserts that an outcome is a `ValueError` with a message."""
    assert received.error is not None, f"not refused: {received.result!r}"
    assert isinstance(received.error, ValueError), repr(received.error)
    assert re.search(message, str(received.error)), str(received.error)


def assert_raises_like(received, error):
    """Asserts that an outcome is an error of a kind, or a `ValueError`."""
    assert received.error is not None, (
        f"returned {received.result!r}, where plain Keras raises {error!r}"
    )
    if not isinstance(received.error, (type(error), ValueError)):
        raise AssertionError(
            f"{received.error!r}, where plain Keras raises {error!r}"
        ) from received.error


def state_of(model):
    """Returns the values of the weights and of the optimizer's variables."""
    slots = getattr(model, "optimizer", None)
    variables = slots.variables if slots is not None else []
    return model.get_weights(), [
        np.array(keras.ops.convert_to_numpy(v)) for v in variables
    ]


def table(scenarios):
    """Makes tests' parameters of a table of named scenarios."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else [value]), id=name)
        for name, value in scenarios.items()
    ]


def compile_plainly(model, **kwargs):
    """Compiles a model so that float noise stays small."""
    model.compile(
        **{
            "optimizer": keras.optimizers.SGD(0.05),
            "loss": "sparse_categorical_crossentropy",
            "metrics": ["accuracy"],
            **kwargs,
        }
    )
