"""Losses, metrics, optimizers and policies that users compile a model with."""

import keras
import numpy as np
import pytest

from tests.differential.twin import (
    compare,
    compile_plainly,
    make_pair,
    table,
)
from tests.helpers import BACKEND

ops = keras.ops
losses, metrics, optimizers = keras.losses, keras.metrics, keras.optimizers


def fit(model, x, y, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, **arguments)


class Scaled(losses.Loss):
    """A loss of a user's own."""

    def call(self, y_true, y_pred):
        return 3 * losses.sparse_categorical_crossentropy(y_true, y_pred)


class FocalSparseCategoricalCrossentropy(losses.Loss):
    """Takes logits, and its name ends in that of one that does not."""

    def call(self, y_true, y_pred):
        return losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )


def own_function(y_true, y_pred):
    return losses.sparse_categorical_crossentropy(y_true, y_pred) ** 2


def sum_of_squares(y_true, y_pred):
    return ops.sum(ops.square(y_pred))


def with_integers(data):
    return data.y


def as_column(data):
    return data.y[:, np.newaxis]


def as_one_hot(data):
    return data.y_one_hot


SPARSE = "sparse_categorical_crossentropy"
# What the loss is, in which form it takes the labels, and arguments of the
# model.
LOSSES = {
    "name": (lambda: SPARSE, with_integers, {}),
    "class": (losses.SparseCategoricalCrossentropy, with_integers, {}),
    "function": (
        lambda: losses.sparse_categorical_crossentropy,
        with_integers,
        {},
    ),
    "labels_in_a_column": (lambda: SPARSE, as_column, {}),
    "labels_of_int8": (lambda: SPARSE, lambda d: d.y.astype("int8"), {}),
    "labels_of_uint8": (lambda: SPARSE, lambda d: d.y.astype("uint8"), {}),
    "labels_of_floats": (lambda: SPARSE, lambda d: d.y.astype("float32"), {}),
    "own_class": (Scaled, with_integers, {}),
    "own_function": (lambda: own_function, with_integers, {}),
    "own_scalar": (lambda: sum_of_squares, with_integers, {}),
    "lambda": (
        lambda: lambda y_true, y_pred: ops.mean(y_pred, axis=-1),
        with_integers,
        {},
    ),
    "from_logits": (
        lambda: losses.SparseCategoricalCrossentropy(from_logits=True),
        with_integers,
        {"classifier_activation": None},
    ),
    "p12-focal": (
        FocalSparseCategoricalCrossentropy,
        with_integers,
        {"classifier_activation": None},
    ),
    "ignore_class": (
        lambda: losses.SparseCategoricalCrossentropy(ignore_class=3),
        with_integers,
        {},
    ),
    "ignore_class_of_minus_one": (
        lambda: losses.SparseCategoricalCrossentropy(ignore_class=-1),
        lambda d: np.where(d.y == 3, -1, d.y),
        {},
    ),
    "reduction_sum": (
        lambda: losses.SparseCategoricalCrossentropy(reduction="sum"),
        with_integers,
        {},
    ),
    "one_hot": (lambda: "categorical_crossentropy", as_one_hot, {}),
    "one_hot_smoothed": (
        lambda: losses.CategoricalCrossentropy(label_smoothing=0.1),
        as_one_hot,
        {},
    ),
    "one_hot_from_logits": (
        lambda: losses.CategoricalCrossentropy(from_logits=True),
        as_one_hot,
        {"classifier_activation": None},
    ),
    "one_hot_focal": (
        lambda: "categorical_focal_crossentropy",
        as_one_hot,
        {},
    ),
    "mse": (lambda: "mse", as_one_hot, {}),
    "kl_divergence": (lambda: "kl_divergence", as_one_hot, {}),
    "hinge": (lambda: "categorical_hinge", as_one_hot, {}),
    "binary": (
        lambda: "binary_crossentropy",
        as_one_hot,
        {"classifier_activation": "sigmoid"},
    ),
    "list": (lambda: [SPARSE], with_integers, {}),
    "dict": (lambda: {"output": SPARSE}, with_integers, {}),
    "dict_and_labels_in_a_dict": (
        lambda: {"output": SPARSE},
        lambda d: {"output": d.y},
        {},
    ),
    "dict_of_another_name": (lambda: {"other": SPARSE}, with_integers, {}),
    "two_in_a_list": (lambda: [SPARSE, "mse"], with_integers, {}),
    "labels_in_a_list_of_one": (lambda: [SPARSE], lambda d: [d.y], {}),
    "of_another_shape": (lambda: "mse", lambda d: d.y_one_hot[:, :4], {}),
    "unknown_name": (lambda: "no_such_loss", with_integers, {}),
}


@pytest.mark.parametrize(("make", "labels", "arguments"), table(LOSSES))
def test_losses(make, labels, arguments):
    def scenario(model, data):
        model.compile(optimizers.SGD(0.02), make())
        y = labels(data)
        return (
            fit(model, data.x, y),
            model.evaluate(data.x, y, batch_size=8, verbose=0),
        )

    compare(scenario, **arguments)


def test_p12_logits_from_a_changed_activation():
    def scenario(model, data):
        model.layers[-1].activation = keras.activations.linear
        model.compile(
            optimizers.SGD(0.02),
            losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return (
            fit(model, data.x, data.y),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
        )

    compare(scenario)


# With plain Keras they train on what is no crossentropy.
@pytest.mark.parametrize(
    ("activation", "from_logits"), [("softmax", True), (None, False)]
)
def test_logits_for_probabilities_are_refused(activation, from_logits):
    def scenario(model, data):
        model.compile(
            loss=losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        )
        return fit(model, data.x, data.y)

    compare(
        scenario,
        refusal="`loss` must have from_logits=",
        classifier_activation=activation,
    )


def test_a_loss_that_draws_random_numbers_draws_them_for_every_batch():
    # The order in which graphs draw is theirs, so other numbers come: what
    # can be compared is that two batches get two.
    class Noisy(losses.Loss):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(1)

        def call(self, y_true, y_pred):
            noise = keras.random.uniform((), seed=self.seeds)
            return noise + 0 * ops.mean(y_pred, axis=-1)

    found = []
    for model in make_pair():
        seen = []
        model.compile(optimizers.SGD(0.0), Noisy())
        model.fit(
            np.ones((32, 28, 28, 1), "uint8"),
            np.ones(32),
            batch_size=8,
            verbose=0,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda _, logs, seen=seen: seen.append(
                        logs["loss"]
                    )
                )
            ],
        )
        found.append(len(set(seen)))
    assert found[0] == found[1]


class Largest(metrics.Metric):
    """A metric of a user's own."""

    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign(ops.maximum(self.total, ops.max(y_pred)))

    def result(self):
        return self.total


def mean_probability(y_true, y_pred):
    return ops.max(y_pred, axis=-1)


METRICS = {
    "accuracy": lambda: {"metrics": ["accuracy"]},
    "acc": lambda: {"metrics": ["acc"]},
    "not_in_a_list": lambda: {"metrics": "accuracy"},
    "top_k": lambda: {
        "metrics": [metrics.SparseTopKCategoricalAccuracy(3, name="top3")]
    },
    "crossentropy": lambda: {"metrics": ["crossentropy"]},
    "several": lambda: {
        "metrics": [
            "accuracy",
            metrics.SparseTopKCategoricalAccuracy(2, name="top2"),
            metrics.SparseCategoricalCrossentropy(),
        ]
    },
    "own_class": lambda: {"metrics": [Largest()]},
    "own_function": lambda: {"metrics": [mean_probability]},
    "weighted": lambda: {"weighted_metrics": ["accuracy"]},
    "weighted_and_not": lambda: {
        "metrics": ["accuracy"],
        "weighted_metrics": [Largest(), "accuracy"],
    },
    "dict": lambda: {"metrics": {"output": ["accuracy"]}},
    "nested": lambda: {"metrics": [["accuracy"]]},
    "wrapped": lambda: {
        "metrics": [metrics.MeanMetricWrapper(mean_probability, name="mean")]
    },
    "same_name_twice": lambda: {"metrics": [Largest(), Largest()]},
    "unknown_name": lambda: {"metrics": ["no_such_metric"]},
}


@pytest.mark.parametrize("make", table(METRICS))
def test_metrics(make):
    def scenario(model, data):
        model.compile(optimizers.SGD(0.02), SPARSE, **make())
        return (
            fit(
                model,
                data.x,
                data.y,
                epochs=2,
                sample_weight=data.weights,
                validation_data=data.validation,
            ),
            model.evaluate(data.x, data.y, return_dict=True, verbose=0),
            [metric.name for metric in model.metrics],
        )

    compare(scenario)


schedules = optimizers.schedules
# Rates so small that where a gradient is noise, the weights still agree.
OPTIMIZERS = {
    "sgd": lambda: "sgd",
    "sgd_momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "sgd_nesterov": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "sgd_weight_decay": lambda: optimizers.SGD(0.02, weight_decay=0.1),
    "sgd_clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.05),
    "sgd_clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "sgd_global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.1),
    "sgd_ema": lambda: optimizers.SGD(0.02, use_ema=True, ema_momentum=0.5),
    "sgd_ema_overwriting": lambda: optimizers.SGD(
        0.02, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "sgd_accumulating": lambda: optimizers.SGD(
        0.05, gradient_accumulation_steps=2
    ),
    "sgd_accumulating_3": lambda: optimizers.SGD(
        0.05, momentum=0.5, gradient_accumulation_steps=3
    ),
    "sgd_loss_scale_factor": lambda: optimizers.SGD(
        0.02, loss_scale_factor=64.0
    ),
    "loss_scale_optimizer": lambda: optimizers.LossScaleOptimizer(
        optimizers.SGD(0.02), initial_scale=128.0, dynamic_growth_steps=2
    ),
    "adam": lambda: optimizers.Adam(1e-4),
    "adam_amsgrad": lambda: optimizers.Adam(1e-4, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(1e-4, weight_decay=0.1),
    "sgd_excluding": lambda: excluding(optimizers.SGD(0.02, weight_decay=0.5)),
    "rmsprop": lambda: optimizers.RMSprop(1e-4, momentum=0.5, centered=True),
    "adagrad": lambda: optimizers.Adagrad(1e-3),
    "adadelta": lambda: optimizers.Adadelta(0.1),
    "adamax": lambda: optimizers.Adamax(1e-4),
    "ftrl": lambda: optimizers.Ftrl(1e-3),
    "nadam": lambda: optimizers.Nadam(1e-4),
    "lamb": lambda: optimizers.Lamb(1e-4),
    "schedule": lambda: optimizers.SGD(
        schedules.ExponentialDecay(0.05, 2, 0.5, staircase=True)
    ),
    "cosine": lambda: optimizers.SGD(schedules.CosineDecay(0.05, 6)),
    "piecewise": lambda: optimizers.SGD(
        schedules.PiecewiseConstantDecay([2, 4], [0.05, 0.02, 0.01])
    ),
    "callable_rate": lambda: optimizers.SGD(lambda: 0.02),
    "unknown": lambda: "no_such_optimizer",
    "none": lambda: None,
}


def excluding(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    return optimizer


@pytest.mark.parametrize("make", table(OPTIMIZERS))
def test_optimizers(make):
    def scenario(model, data):
        model.compile(make(), SPARSE)
        return fit(model, data.x, data.y, epochs=2)

    compare(scenario)


@pytest.mark.parametrize("name", ["Lion", "Muon"])
def test_optimizers_that_take_the_sign_of_a_gradient(name):
    def scenario(model, data):
        model.compile(getattr(optimizers, name)(1e-4), SPARSE)
        return fit(model, data.x, data.y, epochs=2)

    # Where the gradient is noise its sign is, too: weights differ by a step,
    # losses by far less.
    compare(scenario, atol=1e-3)


def test_the_optimizer_of_one_model_is_not_that_of_another():
    def scenario(model, data):
        optimizer = optimizers.SGD(0.02, momentum=0.5)
        compile_plainly(model, optimizer=optimizer)
        first = fit(model, data.x, data.y)
        compile_plainly(model, optimizer=optimizer)
        return first, fit(model, data.x, data.y)

    compare(scenario)


def test_a_learning_rate_set_between_fits_counts():
    def scenario(model, data):
        compile_plainly(model)
        first = fit(model, data.x, data.y)
        model.optimizer.learning_rate = 0.001
        return first, fit(model, data.x, data.y)

    compare(scenario)


# 8 and 11 bits of mantissa: two orders of a sum differ by so much of it.
POLICIES = {
    "mixed_bfloat16": 2e-2,
    "mixed_float16": 3e-3,
    "bfloat16": 5e-2,
    "float64": 1e-5,
}
if BACKEND == "jax":
    # Which has no such numbers by default.
    del POLICIES["float64"]


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(policy):
    def scenario(model, data):
        model.compile(optimizers.SGD(0.02), SPARSE)
        return (
            fit(model, data.x, data.y, epochs=2),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.predict(data.x, batch_size=8, verbose=0),
            type(model.optimizer).__name__,
        )

    compare(scenario, atol=POLICIES[policy], dtype=policy)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_global_policy(policy):
    def scenario(model, data):
        model.compile(optimizers.SGD(0.02), SPARSE)
        return (
            fit(model, data.x, data.y),
            [layer.compute_dtype for layer in model.layers[1:]],
        )

    keras.config.set_dtype_policy(policy)
    compare(scenario, atol=POLICIES[policy])


def test_a_policy_for_some_layers():
    def scenario(model, data):
        model.compile(optimizers.SGD(0.02), SPARSE)
        return (
            fit(model, data.x, data.y),
            [layer.compute_dtype for layer in model.layers[1:]],
        )

    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["c5"] = "mixed_bfloat16"
    compare(scenario, atol=POLICIES["mixed_bfloat16"], dtype=policies)


CONFIGURATIONS = {
    "3_classes": {"num_classes": 3},
    "colour": {"input_shape": (20, 31, 3)},
    "32x32": {"input_shape": (32, 32, 1)},
    "1x1": {"input_shape": (1, 1, 1)},
    "without_preprocessing": {"include_preprocessing": False},
    "sigmoid": {"classifier_activation": "sigmoid"},
    "not_trainable": {"trainable": False},
}


@pytest.mark.parametrize("arguments", table(CONFIGURATIONS))
def test_arguments_of_the_model(arguments):
    def scenario(model, data):
        generator = np.random.default_rng(5)
        shape = (24, *model.input_shape[1:])
        x = generator.integers(0, 256, shape).astype("uint8")
        if not arguments.get("include_preprocessing", True):
            x = generator.random(shape, "float32")
        y = generator.integers(0, model.output_shape[-1], 24)
        model.compile(optimizers.SGD(0.02), SPARSE)
        return (
            fit(model, x, y),
            model.evaluate(x, y, batch_size=8, verbose=0),
            model.predict(x, batch_size=8, verbose=0),
        )

    compare(scenario, **arguments)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own loop")
def test_a_loop_of_the_users_own_on_torch():
    import torch

    def scenario(model, data):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loss_function = losses.SparseCategoricalCrossentropy()
        found = []
        for start in range(0, 24, 8):
            part = slice(start, start + 8)
            optimizer.zero_grad()
            loss = loss_function(
                ops.convert_to_tensor(data.y[part]), model(data.x[part])
            )
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    compare(scenario)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own loop")
def test_a_loop_of_the_users_own_on_jax():
    import jax

    def scenario(model, data):
        def loss_of(trainable, x, y):
            outputs, _ = model.stateless_call(trainable, [], x, training=True)
            return ops.mean(losses.sparse_categorical_crossentropy(y, outputs))

        trainable = [v.value for v in model.trainable_variables]
        step = jax.jit(jax.value_and_grad(loss_of))
        found = []
        for start in range(0, 24, 8):
            part = slice(start, start + 8)
            loss, gradients = step(trainable, data.x[part], data.y[part])
            trainable = [
                v - 0.05 * g for v, g in zip(trainable, gradients, strict=True)
            ]
            found.append(loss)
        return found, trainable

    compare(scenario)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own loop")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_loop_of_the_users_own_on_tensorflow(jit_compile):
    import tensorflow as tf

    def scenario(model, data):
        optimizer = optimizers.SGD(0.05)
        optimizer.build(model.trainable_variables)

        @tf.function(jit_compile=jit_compile)
        def step(x, y):
            with tf.GradientTape() as tape:
                outputs = model(x, training=True)
                loss = ops.mean(
                    losses.sparse_categorical_crossentropy(y, outputs)
                )
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(
                zip(gradients, model.trainable_variables, strict=True)
            )
            return loss

        return [
            step(data.x[start : start + 8], data.y[start : start + 8])
            for start in range(0, 24, 8)
        ]

    compare(scenario)
