"""The arguments of `fit`, `evaluate`, `predict` and of what takes one batch."""

import keras
import numpy as np
import pytest

from tests.differential.twin import (
    SharedPair,
    compare,
    compile_plainly,
    table,
)
from tests.helpers import BACKEND

shared = SharedPair(compile_plainly)


def fit(model, data, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(data.x, data.y, **arguments)


# Functions of the data, so that each model gets arguments of its own.
FIT = {
    "batch_size_of_3": lambda d: {"batch_size": 3},
    "batch_size_with_a_partial_last_batch": lambda d: {"batch_size": 7},
    "batch_size_above_all": lambda d: {"batch_size": 100},
    "batch_size_none": lambda d: {"batch_size": None},
    "batch_size_zero": lambda d: {"batch_size": 0},
    "batch_size_negative": lambda d: {"batch_size": -1},
    "batch_size_fraction": lambda d: {"batch_size": 2.5},
    "epochs_2": lambda d: {"epochs": 2},
    "epochs_0": lambda d: {"epochs": 0},
    "initial_epoch": lambda d: {"epochs": 3, "initial_epoch": 1},
    "initial_epoch_at_the_end": lambda d: {"epochs": 1, "initial_epoch": 1},
    "steps_per_epoch_all": lambda d: {"steps_per_epoch": 3},
    "steps_per_epoch_fewer": lambda d: {"steps_per_epoch": 2, "epochs": 2},
    "steps_per_epoch_1": lambda d: {"steps_per_epoch": 1, "epochs": 3},
    "p09-steps_per_epoch_more": lambda d: {"steps_per_epoch": 5},
    "p09-steps_per_epoch_more_in_2_epochs": lambda d: {
        "steps_per_epoch": 5,
        "epochs": 2,
    },
    "validation_data": lambda d: {"validation_data": d.validation},
    "validation_data_list": lambda d: {"validation_data": [d.x_val, d.y_val]},
    "validation_data_weights": lambda d: {
        "validation_data": (*d.validation, d.weights[:16])
    },
    "validation_data_weights_none": lambda d: {
        "validation_data": (*d.validation, None)
    },
    "validation_data_without_labels": lambda d: {"validation_data": d.x_val},
    "validation_data_of_4": lambda d: {
        "validation_data": (*d.validation, d.weights[:16], 1)
    },
    "validation_data_dict": lambda d: {
        "validation_data": ({"images": d.x_val}, d.y_val)
    },
    "validation_data_floats": lambda d: {
        "validation_data": (d.x_val.astype("float64"), d.y_val)
    },
    "validation_batch_size": lambda d: {
        "validation_data": d.validation,
        "validation_batch_size": 5,
    },
    "validation_batch_size_of_none": lambda d: {
        "validation_data": d.validation,
        "batch_size": None,
    },
    "validation_steps": lambda d: {
        "validation_data": d.validation,
        "validation_steps": 1,
        "validation_batch_size": 4,
    },
    "validation_steps_too_many": lambda d: {
        "validation_data": d.validation,
        "validation_steps": 7,
    },
    "validation_steps_of_many": lambda d: {
        "validation_data": (
            np.concatenate([d.x_val] * 4),
            np.concatenate([d.y_val] * 2 + [d.y_val[::-1]] * 2),
        ),
        "batch_size": None,
        "validation_steps": 1,
    },
    "validation_freq": lambda d: {
        "validation_data": d.validation,
        "validation_freq": 2,
        "epochs": 4,
    },
    "validation_freq_list": lambda d: {
        "validation_data": d.validation,
        "validation_freq": [1, 3],
        "epochs": 3,
    },
    "validation_freq_text": lambda d: {
        "validation_data": d.validation,
        "validation_freq": "often",
    },
    "validation_split": lambda d: {"validation_split": 0.25},
    "validation_split_and_weights": lambda d: {
        "validation_split": 1 / 3,
        "sample_weight": d.weights,
    },
    "validation_split_and_data": lambda d: {
        "validation_split": 0.25,
        "validation_data": d.validation,
    },
    "validation_split_of_all": lambda d: {"validation_split": 1.0},
    "validation_split_of_nothing": lambda d: {"validation_split": 0.001},
    "class_weight": lambda d: {
        "class_weight": {c: 1 + c / 10 for c in range(10)}
    },
    "class_weight_of_some": lambda d: {"class_weight": {3: 2.0}},
    "class_weight_and_sample_weight": lambda d: {
        "class_weight": {3: 2.0},
        "sample_weight": d.weights,
    },
    "class_weight_and_validation": lambda d: {
        "class_weight": {3: 2.0},
        "validation_data": d.validation,
    },
    "sample_weight": lambda d: {"sample_weight": d.weights},
    "sample_weight_float64": lambda d: {
        "sample_weight": d.weights.astype("float64")
    },
    "sample_weight_integers": lambda d: {
        "sample_weight": np.arange(len(d.x)) % 3
    },
    "sample_weight_zeros": lambda d: {"sample_weight": np.zeros(len(d.x))},
    "sample_weight_list": lambda d: {"sample_weight": d.weights.tolist()},
    "sample_weight_of_other_length": lambda d: {"sample_weight": d.weights[1:]},
    "sample_weight_as_dict": lambda d: {"sample_weight": {"output": d.weights}},
    "shuffle_batch": lambda d: {"shuffle": "batch", "batch_size": 24},
    "verbose_auto": lambda d: {"verbose": "auto"},
    "verbose_2": lambda d: {"verbose": 2},
    "callbacks_none": lambda d: {"callbacks": None},
    "callbacks_empty": lambda d: {"callbacks": []},
    "unknown_argument": lambda d: {"nothing": 1},
    "x_twice": lambda d: {"x": d.x},
}


@pytest.mark.parametrize("arguments", table(FIT))
def test_fit_takes(arguments):
    compare(lambda m, d: fit(m, d, **arguments(d)), shared)


def test_fit_takes_positional_arguments():
    compare(
        lambda m, d: m.fit(
            d.x, d.y, 8, 2, 0, None, 0.0, d.validation, False, None, d.weights
        ),
        shared,
    )


def test_fit_again_continues():
    compare(
        lambda m, d: [
            fit(m, d),
            fit(m, d, validation_data=d.validation),
            fit(m, d, batch_size=24),
        ],
        shared,
    )


def test_fit_with_shuffle_sees_every_image_once():
    def scenario(model, data):
        model.optimizer.learning_rate = 0.0
        return fit(model, data, shuffle=True, epochs=2, batch_size=24)

    compare(scenario, shared)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_fit_keeps_to_max_steps_per_epoch(most):
    def scenario(model, data):
        keras.config.set_max_steps_per_epoch(most)
        try:
            return fit(model, data, epochs=2, validation_data=data.validation)
        finally:
            keras.config.set_max_steps_per_epoch(None)

    compare(scenario, shared)


def test_fit_keeps_to_max_epochs():
    def scenario(model, data):
        keras.config.set_max_epochs(1)
        try:
            return fit(model, data, epochs=3)
        finally:
            keras.config.set_max_epochs(None)

    compare(scenario, shared)


EVALUATE = {
    "nothing": lambda d: {},
    "batch_size": lambda d: {"batch_size": 7},
    "batch_size_zero": lambda d: {"batch_size": 0},
    "return_dict": lambda d: {"return_dict": True},
    "sample_weight": lambda d: {"sample_weight": d.weights},
    "steps": lambda d: {"steps": 2},
    "steps_too_many": lambda d: {"steps": 9, "batch_size": 8},
    "verbose": lambda d: {"verbose": 2},
    "callbacks": lambda d: {"callbacks": [keras.callbacks.Callback()]},
    "unknown": lambda d: {"nothing": 1},
    "sample_weight_of_other_length": lambda d: {"sample_weight": d.weights[1:]},
}


@pytest.mark.parametrize("arguments", table(EVALUATE))
def test_evaluate_takes(arguments):
    compare(
        lambda m, d: m.evaluate(d.x, d.y, **{"verbose": 0, **arguments(d)}),
        shared,
    )


PREDICT = {
    "nothing": lambda d: {},
    "batch_size": lambda d: {"batch_size": 7},
    "batch_size_none": lambda d: {"batch_size": None},
    "steps": lambda d: {"steps": 2, "batch_size": 8},
    "callbacks": lambda d: {"callbacks": [keras.callbacks.Callback()]},
    "verbose": lambda d: {"verbose": 2},
}


@pytest.mark.parametrize("arguments", table(PREDICT))
def test_predict_takes(arguments):
    compare(
        lambda m, d: m.predict(d.x, **{"verbose": 0, **arguments(d)}), shared
    )


ON_BATCH = {
    "train": lambda m, d: m.train_on_batch(d.x, d.y),
    "train_dict": lambda m, d: m.train_on_batch(d.x, d.y, return_dict=True),
    "train_weights": lambda m, d: m.train_on_batch(d.x, d.y, d.weights),
    "train_class_weight": lambda m, d: m.train_on_batch(
        d.x, d.y, class_weight={c: 1.0 + c for c in range(10)}
    ),
    "train_twice": lambda m, d: [
        m.train_on_batch(d.x[:8], d.y[:8]),
        m.train_on_batch(d.x[8:16], d.y[8:16]),
    ],
    "train_weights_twice_over": lambda m, d: m.train_on_batch(
        d.x, d.y, d.weights, class_weight={1: 2.0}
    ),
    "test": lambda m, d: m.test_on_batch(d.x, d.y),
    "test_dict": lambda m, d: m.test_on_batch(d.x, d.y, return_dict=True),
    "test_weights": lambda m, d: m.test_on_batch(d.x, d.y, d.weights),
    "predict": lambda m, d: m.predict_on_batch(d.x),
    "train_then_test": lambda m, d: [
        m.train_on_batch(d.x[:8], d.y[:8]),
        m.test_on_batch(d.x[:8], d.y[:8]),
        m.predict_on_batch(d.x[:8]),
    ],
    "train_between_fits": lambda m, d: [
        fit(m, d),
        m.train_on_batch(d.x[:8], d.y[:8]),
        fit(m, d),
        m.evaluate(d.x, d.y, verbose=0),
    ],
    "train_of_other_length": lambda m, d: m.train_on_batch(d.x, d.y[1:]),
}


@pytest.mark.parametrize("scenario", table(ON_BATCH))
def test_batches(scenario):
    compare(scenario, shared)


CALLS = {
    "array": lambda m, d: m(d.x),
    "floats": lambda m, d: m(d.x.astype("float32")),
    "training": lambda m, d: m(d.x, training=True),
    "mask": lambda m, d: m(d.x, mask=None),
    "list": lambda m, d: m([d.x]),
    "dict": lambda m, d: m({"images": d.x}),
    "dict_of_another_name": lambda m, d: m({"pictures": d.x}),
    "no_channels": lambda m, d: m(d.x[..., 0]),
    "two_arrays": lambda m, d: m([d.x, d.x]),
    "one_image_of_a_batch": lambda m, d: m(d.x[:1]),
    "symbolic": lambda m, d: keras.Model(
        images := keras.Input((28, 28, 1)), m(images)
    )(d.x),
    "inner_layer": lambda m, d: keras.Model(m.input, m.get_layer("c3").output)(
        d.x
    ),
    "stateless": lambda m, d: m.stateless_call(
        [v.value for v in m.trainable_variables],
        [v.value for v in m.non_trainable_variables],
        d.x,
    )[0],
    "keyword": lambda m, d: m(inputs=d.x),
    "nothing": lambda m, d: m(),
    "in_sequential": lambda m, d: keras.Sequential(
        [m, keras.layers.Rescaling(2.0)]
    ).predict(d.x, verbose=0),
    "symbolic_shape": lambda m, d: m.compute_output_shape((7, 28, 28, 1)),
    "output_spec": lambda m, d: (
        m.compute_output_spec(keras.KerasTensor((7, 28, 28, 1))).shape
    ),
}


@pytest.mark.parametrize("scenario", table(CALLS))
def test_call(scenario):
    compare(scenario, shared)


COMPILED = {
    "jit_compile": {"jit_compile": True},
    "no_jit_compile": {"jit_compile": False},
    "auto_jit_compile": {"jit_compile": "auto"},
    "run_eagerly": {"run_eagerly": True},
    "jit_compile_and_run_eagerly": {"jit_compile": True, "run_eagerly": True},
    "no_metrics": {"metrics": None},
    "weighted_metrics": {"metrics": None, "weighted_metrics": ["accuracy"]},
    "no_loss": {"loss": None},
    "loss_weights": {"loss_weights": [0.5]},
    "loss_weights_by_name": {"loss_weights": {"output": 0.5}},
    "loss_weights_too_many": {"loss_weights": [0.5, 2]},
    "no_auto_scale_loss": {"auto_scale_loss": False},
    "steps_per_execution_2": {"steps_per_execution": 2},
    "steps_per_execution_above_all": {"steps_per_execution": 9},
}


@pytest.mark.parametrize("arguments", table(COMPILED))
def test_compile_takes(arguments):
    if BACKEND == "torch" and arguments.get("jit_compile") is True:
        pytest.skip("needs a C++ compiler")

    def scenario(model, data):
        compile_plainly(model, **arguments)
        return [
            fit(model, data, validation_data=data.validation),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.predict(data.x, batch_size=8, verbose=0),
            model.steps_per_execution,
        ]

    compare(scenario)


def test_fit_takes_several_steps_per_execution():
    def scenario(model, data):
        compile_plainly(model, steps_per_execution=2)
        return fit(model, data)

    compare(scenario)


def test_an_optimizer_of_another_model_is_as_in_plain_keras():
    def scenario(model, data):
        compile_plainly(model)
        first = fit(model, data)
        other = keras.models.clone_model(model)
        other.compile(model.optimizer, "sparse_categorical_crossentropy")
        return first, fit(other, data)

    compare(scenario)


@pytest.mark.parametrize("trainable", [False, True])
def test_compiling_with_the_same_optimizer_after_freezing(trainable):
    def scenario(model, data):
        model.get_layer("c1").trainable = not trainable
        compile_plainly(model)
        first = fit(model, data)
        model.get_layer("c1").trainable = trainable
        compile_plainly(model, optimizer=model.optimizer)
        return first, fit(model, data)

    compare(scenario)


def test_without_compile_fit_and_evaluate_raise_and_predict_works():
    for method in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        compare(lambda m, d, name=method: getattr(m, name)(d.x, d.y))
    compare(lambda m, d: m.predict(d.x, verbose=0))


def test_compiling_again_starts_again():
    def scenario(model, data):
        compile_plainly(model)
        first = fit(model, data)
        compile_plainly(model, optimizer="sgd", loss="mse", metrics=["mae"])
        return first, model.fit(data.x, data.y_one_hot, verbose=0)

    compare(scenario)
