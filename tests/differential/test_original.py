"""`OriginalLeNet5` against a functional model of this package's layers."""

import keras
import numpy as np
import pytest

from keras_lenet import OriginalLeNet5
from keras_lenet.original import DistanceLoss, LevenbergMarquardt
from tests.differential.changes import (
    attribute,
    of,
    regularize,
    replace_call,
    say_it_on_the_layers,
    set_both,
    together,
)
from tests.differential.test_saving import (
    BY_LAYERS,
    WAYS,
    by_configuration,
    by_keras_file,
)
from tests.differential.twin import (
    compare_models,
    make_data,
    table,
)

activations = keras.activations
L2 = keras.regularizers.L2


def make_pair(**arguments):
    """Makes the model and a functional one of the same layers."""
    keras.utils.set_random_seed(98)
    ours = OriginalLeNet5(**arguments)
    x = images = keras.Input(ours.input_shape[1:], name="images")
    for layer in ours.layers[1:]:
        x = type(layer).from_config(layer.get_config())(x)
    twin = keras.Model(images, x, name=ours.name, trainable=ours.trainable)
    twin.dtype_policy = ours.dtype_policy
    twin.set_weights(ours.get_weights())
    return ours, twin


def compare(scenario, atol=1e-5, **arguments):
    compare_models(scenario, *make_pair(**arguments), make_data(), atol=atol)


CHANGES = {
    "p01-c1_activation": attribute("c1", activation=activations.tanh),
    "c3_activation": attribute("c3", activation=activations.relu),
    "f6_activation": attribute("f6", activation=activations.sigmoid),
    "p01-c5_frozen": attribute("c5", trainable=False),
    "s2_frozen": attribute("s2", trainable=False),
    "frozen": lambda model: setattr(model, "trainable", False),
    "rbf_trainable": attribute("rbf", trainable=False),
    "f6_regularized": of("f6", set_both, "regularizer", L2(1e-3)),
    "c5_regularized": of("c5", regularize, by=L2(1e-3)),
    "f6_constrained": of(
        "f6", set_both, "constraint", keras.constraints.MaxNorm(0.5)
    ),
    "c1_activity": attribute("c1", activity_regularizer=L2(1e-3)),
    "s2_activity": attribute("s2", activity_regularizer=L2(1e-3)),
    "rbf_activity": attribute("rbf", activity_regularizer=L2(1e-6)),
    "codes": of("rbf", lambda layer: setattr(layer, "codes", -layer.codes)),
    "rescaling": attribute("rescaling", offset=0.1, scale=0.01),
    "output": attribute("output", scale=-0.5),
    "fill_value": attribute("pad_to_32", fill_value=9.0),
    "f6_bfloat16": attribute("f6", dtype_policy="mixed_bfloat16"),
    "c1_bfloat16": attribute("c1", dtype_policy="mixed_bfloat16"),
    "p07-quantized": lambda model: model.quantize("int8"),
    "p07-f6_quantized": of("f6", lambda layer: layer.quantize("int8")),
    "f6_int4": of("f6", lambda layer: layer.quantize("int4")),
    "f6_lora": of("f6", lambda layer: layer.enable_lora(2)),
    "several": together(
        attribute("c1", activation=activations.tanh),
        attribute("c3", trainable=False),
        of("f6", lambda layer: layer.quantize("int8")),
    ),
}


def describe(model, images):
    outputs = model(images)
    return {
        "outputs": outputs,
        "losses": sorted(float(loss) for loss in model.losses),
        "trainable": [v.path for v in model.trainable_variables],
        "weights": {v.path: v for v in model.weights},
        "layers": {
            layer.name: (
                layer.trainable,
                layer.compute_dtype,
                layer.quantization_mode,
                {k: v for k, v in layer.get_config().items() if k != "dtype"},
            )
            for layer in model.layers
        },
    }


def check_that_it_is_kept(way, change, folder):
    def scenario(model, data):
        change(model)
        before = describe(model, data.x[:4])
        if not isinstance(model, OriginalLeNet5) and way not in BY_LAYERS:
            say_it_on_the_layers(model)
        own = folder / type(model).__name__
        own.mkdir()
        return before, describe(way(model, own), data.x[:4])

    # Distances are sums of 84 squares.
    compare(scenario, atol=1e-4)


@pytest.mark.parametrize("change", table(CHANGES))
def test_what_is_changed_is_saved(change, tmp_path):
    check_that_it_is_kept(by_keras_file, change, tmp_path)


OTHER_WAYS = {name: way for name, way in WAYS.items() if name != "keras_file"}


@pytest.mark.parametrize("change", table(CHANGES))
@pytest.mark.parametrize("way", table(OTHER_WAYS))
def test_what_is_changed_is_kept(way, change, tmp_path):
    check_that_it_is_kept(way, change, tmp_path)


ARGUMENTS = {
    "4_classes": {"num_classes": 4},
    "a_row_of_outputs": {"input_shape": (32, 40, 1)},
    "colour": {"input_shape": (28, 28, 3)},
    "without_preprocessing": {"include_preprocessing": False},
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "not_trainable": {"trainable": False},
}


@pytest.mark.parametrize("arguments", table(ARGUMENTS))
@pytest.mark.parametrize(
    "way",
    table({"keras_file": by_keras_file, "configuration": by_configuration}),
)
def test_arguments_are_kept(way, arguments, tmp_path):
    def scenario(model, data):
        shape = (2, *model.input_shape[1:])
        images = np.random.default_rng(1).random(shape, "float32")
        own = tmp_path / type(model).__name__
        own.mkdir()
        copied = way(model, own)
        return describe(copied, images), copied.name, copied.trainable

    compare(scenario, atol=1e-4, **arguments)


TRAINED = {
    name: CHANGES[name]
    for name in (
        "p01-c1_activation",
        "p01-c5_frozen",
        "f6_regularized",
        "c1_activity",
        "codes",
        "f6_lora",
    )
}


@pytest.mark.parametrize(
    "change", table({"nothing": lambda m: None, **TRAINED})
)
def test_it_trains_as_the_functional_model(change):
    def scenario(model, data):
        change(model)
        model.compile(
            keras.optimizers.SGD(1e-4), DistanceLoss(), metrics=["accuracy"]
        )
        return (
            model.fit(
                data.x,
                data.y,
                batch_size=8,
                shuffle=False,
                verbose=0,
                validation_data=data.validation,
            ),
            model.evaluate(data.x, data.y, batch_size=8, verbose=0),
            model.predict(data.x, batch_size=8, verbose=0),
        )

    compare(scenario, atol=1e-4)


LOSSES = {
    "rubbish": lambda: DistanceLoss(rubbish=1.0),
    "logits": lambda: keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    "own": lambda: lambda y_true, y_pred: keras.ops.mean(-y_pred, axis=-1),
}


@pytest.mark.parametrize("make", table(LOSSES))
def test_losses(make):
    def scenario(model, data):
        model.compile(keras.optimizers.SGD(1e-4), make())
        return model.fit(data.x, data.y, batch_size=8, shuffle=False, verbose=0)

    compare(scenario, atol=1e-4)


def test_levenberg_marquardt_steps_alike():
    def scenario(model, data):
        model.compile(LevenbergMarquardt(1e-4), DistanceLoss())
        return model.fit(data.x, data.y, batch_size=8, shuffle=False, verbose=0)

    compare(scenario, atol=1e-4)


def test_a_replaced_call_counts():
    def scenario(model, data):
        replace_call(model.get_layer("c1"), lambda x: x * 0.5)
        return model.predict(data.x, batch_size=8, verbose=0)

    compare(scenario, atol=1e-4)


REFUSED = {
    "labels": (
        lambda m, d: m.fit(d.x, d.y + 5, verbose=0),
        "`labels` must be from 0 to 9",
    ),
    "p03-labels_on_batch": (
        lambda m, d: m.train_on_batch(d.x, d.y + 5),
        "`labels` must be from 0 to 9",
    ),
    "p04-divided": (
        lambda m, d: m.predict(d.x.astype("float32") / 255, verbose=0),
        r"255",
    ),
    "p05-one_image": (lambda m, d: m.predict(d.x[0], verbose=0), "shape"),
    "p05-smaller": (
        lambda m, d: m.predict(d.x[:, 4:24, 4:24], verbose=0),
        "shape",
    ),
}


@pytest.mark.parametrize(("scenario", "message"), table(REFUSED))
def test_bad_input_is_refused(scenario, message):
    def compiled(model, data):
        model.compile(keras.optimizers.SGD(1e-4), DistanceLoss())
        return scenario(model, data)

    ours, _ = make_pair()
    compare_models(compiled, ours, None, make_data(), refusal=message)


@pytest.mark.parametrize("shape", [(36, 36, 1), (36, 32, 1)])
def test_a_map_of_outputs_trains_as_in_plain_keras(shape):
    def scenario(model, data):
        images = np.zeros((len(data.x), *shape), "uint8")
        images[:, 2:30, 2:30] = data.x
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-3), loss, metrics=["accuracy"])
        labels = np.ones(model.output_shape[1:-1], "int64")
        labels = labels * data.y.reshape(-1, 1, 1)
        # The last batch is smaller.
        return model.fit(images, labels, batch_size=9, shuffle=False, verbose=0)

    compare(scenario, input_shape=shape)
