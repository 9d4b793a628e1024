"""What only TensorFlow has."""

import keras
import numpy as np
import pytest

from tests.differential.twin import compare, compile_plainly
from tests.helpers import BACKEND

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="about TensorFlow"
)


def fit(model, data, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(data.x, data.y, **arguments)


def count_hits(labels, outputs):
    return np.float32((labels.ravel() == outputs.argmax(1)).mean())


def hits(function):
    """Makes a metric that leaves the graph."""
    import tensorflow as tf

    class Hits(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            value = getattr(tf, function)(
                count_hits_of(function), [y_true, y_pred], tf.float32
            )
            return super().update_state(tf.reshape(value, ()))

    return Hits(name="hits")


def count_hits_of(function):
    if function == "numpy_function":
        return count_hits
    return lambda labels, outputs: count_hits(labels.numpy(), outputs.numpy())


@pytest.mark.parametrize(
    "jit_compile",
    [
        pytest.param("auto", id="p11-auto"),
        pytest.param(False, id="p11-no_jit"),
    ],
)
@pytest.mark.parametrize("function", ["numpy_function", "py_function"])
def test_a_metric_may_leave_the_graph(function, jit_compile):
    def scenario(model, data):
        compile_plainly(
            model, metrics=[hits(function)], jit_compile=jit_compile
        )
        return (
            fit(model, data, validation_data=data.validation),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
        )

    compare(scenario)


def test_p11_a_metric_that_leaves_the_graph_cannot_be_compiled_by_xla():
    def scenario(model, data):
        compile_plainly(
            model, metrics=[hits("numpy_function")], jit_compile=True
        )
        return fit(model, data)

    compare(scenario)


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_p11_a_loss_may_leave_the_graph(jit_compile):
    import tensorflow as tf

    def loss(y_true, y_pred):
        weight = tf.numpy_function(
            lambda labels: np.float32(1 + labels.ravel() % 2),
            [y_true],
            tf.float32,
        )
        crossentropy = keras.losses.sparse_categorical_crossentropy
        return tf.reshape(weight, (8,)) * crossentropy(y_true, y_pred)

    def scenario(model, data):
        compile_plainly(model, loss=loss, jit_compile=jit_compile)
        return fit(model, data)

    compare(scenario)


def test_p11_functions_run_eagerly():
    import tensorflow as tf

    def scenario(model, data):
        compile_plainly(model)
        tf.config.run_functions_eagerly(True)
        try:
            return (
                fit(model, data, validation_data=data.validation),
                model.evaluate(data.x, data.y, batch_size=8, verbose=0),
                model.predict(data.x, batch_size=8, verbose=0),
            )
        finally:
            tf.config.run_functions_eagerly(False)

    compare(scenario)


@pytest.mark.parametrize("bad", [False, True])
def test_p11_numerics_are_checked(bad):
    import tensorflow as tf

    def scenario(model, data):
        if bad:
            kernel = model.get_layer("c1").kernel
            kernel.assign(np.full(kernel.shape, np.nan))
        compile_plainly(model)
        tf.debugging.enable_check_numerics()
        try:
            return fit(model, data)
        finally:
            tf.debugging.disable_check_numerics()

    compare(scenario, eager_twin=False)


def test_p11_a_printing_train_step_runs_in_the_graph(capfd):
    import tensorflow as tf

    def define(base):
        class Mine(base):
            def compute_loss(self, *args, **kwargs):
                loss = super().compute_loss(*args, **kwargs)
                tf.print("loss computed")
                return loss

        return Mine

    def scenario(model, data):
        compile_plainly(model)
        fit(model, data)
        return capfd.readouterr().err.count("loss computed")

    compare(scenario, define=define, eager_twin=False)


def test_a_loss_may_ask_for_an_assertion():
    import tensorflow as tf

    def loss(y_true, y_pred):
        tf.debugging.assert_less(tf.reduce_max(y_true), 5)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    def scenario(model, data):
        compile_plainly(model, loss=loss)
        return fit(model, data)

    compare(scenario, eager_twin=False)


def test_a_metric_of_strings_or_ragged_shapes_falls_back():
    import tensorflow as tf

    class Unique(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            classes = tf.unique(tf.reshape(y_true, [-1])).y
            return super().update_state(tf.cast(tf.size(classes), "float32"))

    def scenario(model, data):
        compile_plainly(model, metrics=[Unique(name="unique")])
        return fit(model, data)

    compare(scenario)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_exported_models_give_the_same(jit_compile, tmp_path):
    import tensorflow as tf

    def scenario(model, data):
        model.get_layer("c1").activation = keras.activations.tanh
        compile_plainly(model, jit_compile=jit_compile)
        fit(model, data)
        path = tmp_path / type(model).__name__
        model.export(path, verbose=False)
        serve = tf.saved_model.load(path).serve
        return serve(data.x[:4].astype("float32")), model(data.x[:4])

    compare(scenario)


def test_a_distribution_strategy_trains_alike():
    import tensorflow as tf

    from tests.differential.twin import make_data, make_pair

    found = []
    data = make_data()
    for index in range(2):
        with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
            model = make_pair()[index]
            compile_plainly(model)
        found.append(fit(model, data).history["loss"])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_the_graph_of_a_model_is_traced_with_dynamic_batches():
    import tensorflow as tf

    def scenario(model, data):
        function = tf.function(
            lambda x: model(x, training=False),
            input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.uint8)],
        )
        return function(data.x[:3]), function(data.x[:5])

    compare(scenario)


def test_datasets_with_options_are_taken():
    import tensorflow as tf

    def scenario(model, data):
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        dataset = tf.data.Dataset.from_tensor_slices((data.x, data.y))
        dataset = dataset.batch(8).prefetch(2).with_options(options)
        compile_plainly(model)
        return model.fit(dataset, verbose=0)

    compare(scenario)
