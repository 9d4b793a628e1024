"""Layers that are changed after the model was made, before and after `fit`."""

import keras
import numpy as np
import pytest

from tests.differential.changes import (
    ACTIVATION,
    COMPUTED,
    CONSTRAINED,
    POLICIES,
    QUANTIZED,
    REGULARIZED,
    SEVERAL,
    TRAINABLE,
    describe,
)
from tests.differential.twin import (
    compare,
    compile_plainly,
    table,
)

TRAINED = {
    name: change
    for family in (
        ACTIVATION,
        TRAINABLE,
        REGULARIZED,
        CONSTRAINED,
        COMPUTED,
        SEVERAL,
    )
    for name, change in family.items()
    if "quantized" not in name
}

# With 8 bits of mantissa, two orders of a sum differ by up to 2**-8 of it; the
# integers of a quantized layer by 1.
REDUCED = 2e-2


def fit(model, data, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(data.x, data.y, **arguments)


def fit_and_describe(model, data):
    return fit(model, data), describe(model, data.x[:8])


@pytest.mark.parametrize("change", table(TRAINED))
def test_a_changed_layer_trains_as_in_plain_keras(change):
    def scenario(model, data):
        change(model)
        compile_plainly(model)
        return fit_and_describe(model, data)

    compare(scenario)


EVALUATED = {
    name: TRAINED[name]
    for name in ("p01-c1_tanh", "p02-s2_activity", "p02-c1_call", "c3_lora")
}


@pytest.mark.parametrize("change", table(EVALUATED))
def test_a_changed_layer_is_evaluated_as_in_plain_keras(change):
    def scenario(model, data):
        change(model)
        compile_plainly(model)
        return (
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.predict(data.x, batch_size=8, verbose=0),
        )

    compare(scenario)


AFTERWARDS = {
    name: TRAINED[name]
    for name in (
        "p01-c1_tanh",
        "p01-f6_frozen",
        "model_frozen",
        "p01-c5_kernel",
        "p02-s2_activity",
        "c5_max_norm",
        "p02-s2_average",
        "p02-c1_call",
        "p02-c5_lora",
        "c3_lora",
        "f6_bias_none",
        "rescaling_scale",
    )
}


@pytest.mark.parametrize("change", table(AFTERWARDS))
def test_a_layer_changed_after_fit_trains_as_in_plain_keras(change):
    def scenario(model, data):
        compile_plainly(model)
        first = fit(model, data)
        change(model)
        compile_plainly(model)
        return first, fit_and_describe(model, data)

    compare(scenario)


# Whose losses are the same whether Keras has traced before or not.
WITHOUT_COMPILING = {
    name: TRAINED[name] for name in ("c5_kernel_halved", "c3_initializer")
}


@pytest.mark.parametrize("change", table(WITHOUT_COMPILING))
def test_a_layer_may_change_after_fit_without_compiling(change):
    def scenario(model, data):
        compile_plainly(model)
        first = fit(model, data)
        change(model)
        return first, fit_and_describe(model, data)

    compare(scenario, eager_twin=False)


@pytest.mark.parametrize("change", table(POLICIES))
def test_a_layer_of_another_policy_trains_as_in_plain_keras(change):
    def scenario(model, data):
        change(model)
        # Where two classes are nearly as likely, an accuracy says little.
        compile_plainly(model, metrics=None)
        return fit(model, data)

    compare(scenario, atol=REDUCED)


@pytest.mark.parametrize("change", table(QUANTIZED))
def test_a_quantized_model_predicts_as_in_plain_keras(change):
    def scenario(model, data):
        change(model)
        return (
            model.predict(data.x, batch_size=8, verbose=0),
            describe(model, data.x[:8]),
        )

    compare(scenario, atol=REDUCED)


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_a_model_is_quantized_after_fit(mode):
    def scenario(model, data):
        compile_plainly(model)
        first = fit(model, data)
        model.quantize(mode)
        compile_plainly(model)
        return (
            first,
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.get_layer("f6").quantization_mode,
        )

    compare(scenario, atol=REDUCED, state=False)


def derive(**methods):
    """Returns what derives a class with other methods."""

    def define(base):
        return keras.saving.register_keras_serializable("differential")(
            type("Mine", (base,), {"calls": 0, **methods})
        )

    return define


def own_train_step(self, *args):
    self.calls += 1
    return keras.Model.train_step(self, *args)


def own_test_step(self, *args):
    self.calls += 1
    return keras.Model.test_step(self, *args)


def own_predict_step(self, *args):
    outputs = keras.Model.predict_step(self, *args)
    return keras.tree.map_structure(lambda part: part * 0.5, outputs)


def own_compute_loss(
    self, x=None, y=None, y_pred=None, sample_weight=None, training=True
):
    return 2 * keras.ops.mean(
        keras.losses.sparse_categorical_crossentropy(y, y_pred)
    )


def own_compute_metrics(self, x, y, y_pred, sample_weight=None):
    logs = keras.Model.compute_metrics(self, x, y, y_pred, sample_weight)
    return {**logs, "largest": keras.ops.max(y_pred)}


def own_get_metrics_result(self):
    return {"accuracy": 0.5, **keras.Model.get_metrics_result(self)}


def own_make_train_function(self, force=False):
    self.calls += 1
    return super(type(self), self).make_train_function(force)


def own_call(self, inputs, training=None, mask=None):
    outputs = super(type(self), self).call(inputs, training=training, mask=mask)
    return outputs * 0.5


METHODS = {
    "call": {"call": own_call},
    "train_step": {"train_step": own_train_step},
    "test_step": {"test_step": own_test_step},
    "compute_loss": {"compute_loss": own_compute_loss},
    "compute_metrics": {"compute_metrics": own_compute_metrics},
    "get_metrics_result": {"get_metrics_result": own_get_metrics_result},
    "make_train_function": {"make_train_function": own_make_train_function},
    "fit": {
        "fit": lambda self, *args, **kwargs: super(type(self), self).fit(
            *args, **{**kwargs, "epochs": 2}
        )
    },
    "stateless_methods": {"own": lambda self: 3},
}
if keras.backend.backend() != "jax":
    # Where it returns what is not the predictions alone.
    METHODS["predict_step"] = {"predict_step": own_predict_step}


@pytest.mark.parametrize("methods", table(METHODS))
def test_a_class_of_the_users_own_trains_as_in_plain_keras(methods):
    def scenario(model, data):
        compile_plainly(model)
        return (
            fit(model, data, validation_data=data.validation),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.predict(data.x, batch_size=8, verbose=0),
            model.calls > 0,
        )

    compare(scenario, define=derive(**methods), eager_twin=False)


@pytest.mark.parametrize("methods", table(METHODS))
def test_methods_replaced_on_the_instance_count(methods):
    def scenario(model, data):
        for name, method in methods.items():
            if name in ("call", "fit", "make_train_function"):
                method = replaced(model, name)
            else:
                method = method.__get__(model)
            setattr(model, name, method)
        model.calls = 0
        compile_plainly(model)
        return (
            fit(model, data, validation_data=data.validation),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.predict(data.x, batch_size=8, verbose=0),
            model.calls > 0,
        )

    compare(scenario, eager_twin=False)


def replaced(model, name):
    method = getattr(model, name)

    def other(*args, **kwargs):
        if name == "fit":
            return method(*args, **{**kwargs, "epochs": 2})
        if name == "call":
            return method(*args, **kwargs) * 0.5
        model.calls += 1
        return method(*args, **kwargs)

    return other


def test_a_loss_added_to_the_model_counts():
    def scenario(model, data):
        model.add_loss(keras.ops.convert_to_tensor(np.float32(3.0)))
        compile_plainly(model)
        return fit(model, data), len(model.losses)

    compare(scenario)


def test_a_metric_of_the_model_counts():
    def define(base):
        class Mine(base):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.spread = keras.metrics.Mean(name="spread")

            def call(self, inputs, training=None, mask=None):
                outputs = super().call(inputs, training=training, mask=mask)
                self.spread.update_state(keras.ops.std(outputs, axis=1))
                return outputs

        return Mine

    def scenario(model, data):
        compile_plainly(model)
        return (
            fit(model, data),
            model.evaluate(data.x, data.y, return_dict=True, verbose=0),
        )

    compare(scenario, define=define)
