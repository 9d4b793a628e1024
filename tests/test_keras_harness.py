"""Runs the tests of Keras and KerasHub on every public class of the package.

Layers go through `run_layer_test`, and serializable objects through
`run_class_serialization_test`, as Keras' own classes do. Both are part of the
installed package, in `keras.src.testing`, the only module of `keras.src` that
is imported here: a copy would not follow the installed version.

KerasHub's `run_model_saving_test`, `run_preset_test`, `run_precision_test` and
`run_vision_backbone_test` cannot be imported without tensorflow-text and
tokenizers, so their checks are written out, with these exceptions:

- `run_precision_test` expects 16 bits in every layer. The models here keep
  their output in float32, as Keras advises for mixed precision.
- `run_vision_backbone_test` expects channels first if Keras is configured so.
  The models here always have channels last.
- `run_preset_test` passes `load_weights=False`, which `from_preset` does not
  accept: the class itself creates a model without trained weights.
- `run_task_test` expects a preprocessor object. The models here preprocess in
  layers of their own.
"""

import keras
import numpy as np
import pytest
from keras.src.testing import TestCase

import keras_lenet
from keras_lenet import (
    LeNet5,
    OriginalLeNet5,
    PadTo32,
    RandomDistortion,
)
from keras_lenet.losses import (
    KLDistillation,
    SmoothedSparseCategoricalCrossentropy,
)
from keras_lenet.models import Ensemble
from keras_lenet.original import (
    DistanceLoss,
    EuclideanRBF,
    LevenbergMarquardt,
    TableConv2D,
    TrainableSubsampling2D,
    UniformByFanIn,
    scaled_tanh,
)
from keras_lenet.recipes import OneCycle

HARNESS = TestCase("run_layer_test")

OPTIONS = {
    "activation": "tanh",
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "kernel_constraint": "non_neg",
    "bias_constraint": "unit_norm",
}

# Class, arguments, input shape, output shape, and the numbers of weights,
# losses and seed generators.
LAYERS = [
    (PadTo32, {"fill_value": 0.5}, (2, 6, 5, 2), (2, 32, 32, 2), (0, 0, 0)),
    (
        TableConv2D,
        {"table": 3, "kernel_size": (3, 2)},
        (2, 6, 5, 2),
        (2, 4, 4, 3),
        (2, 0, 0),
    ),
    (
        TableConv2D,
        {"table": ((0,), (1, 0)), "kernel_size": 3, **OPTIONS},
        (2, 6, 5, 2),
        (2, 4, 3, 2),
        (2, 3, 0),
    ),
    (
        TableConv2D,
        {
            "table": np.array([[0], [1]]),
            "use_bias": False,
            "kernel_initializer": UniformByFanIn([25, 25]),
        },
        (2, 6, 5, 2),
        (2, 2, 1, 2),
        (1, 0, 0),
    ),
    (
        TrainableSubsampling2D,
        {"activation": scaled_tanh},
        (2, 6, 5, 2),
        (2, 3, 2, 2),
        (2, 0, 0),
    ),
    (
        TrainableSubsampling2D,
        OPTIONS,
        (2, 6, 5, 2),
        (2, 3, 2, 2),
        (2, 3, 0),
    ),
    (
        EuclideanRBF,
        {"codes": [[0.5, -1], [1, 2], [0, 0]]},
        (2, 6, 2),
        (2, 6, 3),
        (0, 0, 0),
    ),
    (RandomDistortion, {"seed": 1}, (2, 6, 5, 2), (2, 6, 5, 2), (0, 0, 1)),
    (
        RandomDistortion,
        {"elastic": 0, "data_format": "channels_first"},
        (2, 3, 6, 5),
        (2, 3, 6, 5),
        (0, 0, 1),
    ),
]

OBJECTS = [
    (LeNet5, {}),
    (
        LeNet5,
        {
            "num_classes": 3,
            "input_shape": (20, 16, 3),
            "classifier_activation": None,
            "dtype": "bfloat16",
        },
    ),
    (OriginalLeNet5, {}),
    (
        OriginalLeNet5,
        {
            "num_classes": 3,
            "input_shape": (32, 40, 2),
            "include_preprocessing": False,
        },
    ),
    (
        Ensemble,
        {"models": [LeNet5(3), LeNet5(3, class_names=["a", "b", "c"])]},
    ),
    (DistanceLoss, {}),
    (DistanceLoss, {"rubbish": np.float32(3), "reduction": "sum"}),
    (KLDistillation, {"temperature": 2.0, "from_logits": True}),
    (SmoothedSparseCategoricalCrossentropy, {}),
    (
        SmoothedSparseCategoricalCrossentropy,
        {"label_smoothing": np.float64(0.3), "from_logits": True},
    ),
    (
        OneCycle,
        {
            "peak_learning_rate": np.float32(0.1),
            "steps": np.int64(30),
            "warmup": np.float64(0.2),
        },
    ),
    (LevenbergMarquardt, {}),
    (
        LevenbergMarquardt,
        {
            "learning_rate": OneCycle(0.1, 9),
            "mu": np.float32(0.5),
            "clipnorm": 1.0,
        },
    ),
    (UniformByFanIn, {"fan_in": 9}),
    (UniformByFanIn, {"fan_in": np.array([9, 4]), "seed": 3}),
]

MODELS = [LeNet5, OriginalLeNet5]


def name_of(value):
    return getattr(value, "__name__", "")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_every_registered_class_is_tested_here():
    for name in keras_lenet.__all__:
        getattr(keras_lenet, name)
    registered = {
        name.removeprefix("keras_lenet>")
        for name, made in keras.saving.get_custom_objects().items()
        # Leave out classes that tests register.
        if made.__module__.startswith("keras_lenet.")
    }
    tested = {name_of(case[0]) for case in (*LAYERS, *OBJECTS)}
    assert registered == tested | {"scaled_tanh"}


@pytest.mark.parametrize(
    ("layer_class", "arguments", "shape", "expected", "counts"),
    LAYERS,
    ids=name_of,
)
# Keras' test trains from a generator, and also layers without weights.
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
@pytest.mark.filterwarnings("ignore:The model does not have any:UserWarning")
def test_layers_pass_the_layer_test_of_keras(
    layer_class, arguments, shape, expected, counts
):
    weights, losses, generators = counts
    HARNESS.run_layer_test(
        layer_class,
        arguments,
        input_shape=shape,
        expected_output_shape=expected,
        expected_output_dtype="float32",
        expected_num_trainable_weights=weights,
        expected_num_non_trainable_weights=0,
        expected_num_losses=losses,
        expected_num_seed_generators=generators,
        expected_num_non_trainable_variables=generators,
    )


@pytest.mark.parametrize(("made", "arguments"), OBJECTS, ids=name_of)
def test_objects_pass_the_serialization_test_of_keras(made, arguments):
    HARNESS.run_class_serialization_test(made(**arguments))


def test_an_initializer_keeps_drawing_from_a_seed_generator():
    seed = keras.random.SeedGenerator(3)
    initializer = UniformByFanIn(9, seed=seed)
    first, second = (to_numpy(initializer((5,))) for _ in range(2))
    assert (first != second).all()
    again = HARNESS.run_class_serialization_test(UniformByFanIn(9, seed=seed))
    np.testing.assert_array_equal(to_numpy(again((5,))), first)


@pytest.mark.parametrize(
    "loss",
    [DistanceLoss, SmoothedSparseCategoricalCrossentropy],
    ids=name_of,
)
def test_losses_are_reduced_and_weighted_as_keras_losses_are(loss, generator):
    labels = generator.integers(0, 4, (6,))
    outputs = generator.dirichlet(np.ones(4), 6).astype("float32")
    weights = generator.uniform(size=6).astype("float32")
    each = to_numpy(loss(reduction="none")(labels, outputs))
    assert each.shape == (6,)
    expected = {
        "sum_over_batch_size": (each * weights).mean(),
        "mean": (each * weights).mean(),
        "sum": (each * weights).sum(),
        "mean_with_sample_weight": (each * weights).sum() / weights.sum(),
        None: each * weights,
    }
    for reduction, value in expected.items():
        found = loss(reduction=reduction)(labels, outputs, weights)
        np.testing.assert_allclose(to_numpy(found), value, rtol=1e-5)
    found = loss(dtype="bfloat16")(labels, outputs)
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"clipnorm": 0.01},
        {"global_clipnorm": 0.01},
        {"clipvalue": 0.001},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 8.0},
        {"learning_rate": OneCycle(0.3, 8)},
    ],
    ids=lambda options: next(iter(options), "none"),
)
def test_the_optimizer_supports_the_options_of_keras_optimizers(
    options, generator
):
    # All gradients are negative, so no weight comes back to where it was.
    x = generator.uniform(0.5, 1.5, (12, 3)).astype("float32")
    y = generator.uniform(20, 30, (12, 2)).astype("float32")
    weights = [generator.normal(size=(3, 2)), generator.normal(size=2)]
    found = []
    for make in (keras.optimizers.SGD, LevenbergMarquardt):
        # The curvature is 1 before it is estimated.
        extra = {"mu": 1e-9} if make is LevenbergMarquardt else {}
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.set_weights(weights)
        model.compile(make(**{"learning_rate": 0.1} | options | extra), "mse")
        model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
        found.append(model.get_weights())
    for one, other, before in zip(*found, weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
        assert abs(other - before).max() > 1e-4


def test_the_optimizer_is_saved_with_its_curvatures(tmp_path, generator):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(LevenbergMarquardt(OneCycle(0.1, 9), mu=0.3), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    curvatures = [
        generator.uniform(size=one.shape).astype("float32")
        for one in model.optimizer.curvatures
    ]
    for variable, value in zip(
        model.optimizer.curvatures, curvatures, strict=True
    ):
        variable.assign(value)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for variable, value in zip(
        loaded.optimizer.curvatures, curvatures, strict=True
    ):
        np.testing.assert_array_equal(to_numpy(variable), value)


@pytest.mark.parametrize("step", [7, np.int64(7), 7.0])
def test_schedules_accept_steps_of_any_type(step):
    schedule = OneCycle(0.1, 30)
    expected = float(schedule(keras.ops.convert_to_tensor(7, "int32")))
    assert float(schedule(step)) == expected
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert float(again(step)) == expected


@pytest.mark.parametrize("shape", [(500, 6), (2, 3, 40, 6), (6,)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None])
def test_initializers_support_any_shape_and_dtype(shape, dtype):
    initializer = UniformByFanIn([9] * 6, seed=3)
    drawn = initializer(shape, dtype=dtype)
    assert tuple(drawn.shape) == shape
    expected = dtype or keras.config.floatx()
    assert keras.backend.standardize_dtype(drawn.dtype) == expected
    again = keras.initializers.get(keras.initializers.serialize(initializer))
    np.testing.assert_array_equal(
        to_numpy(keras.ops.cast(again(shape, dtype=dtype), "float32")),
        to_numpy(keras.ops.cast(drawn, "float32")),
    )


@pytest.mark.parametrize("model_class", MODELS, ids=name_of)
def test_models_pass_the_saving_test_of_keras_hub(
    model_class, tmp_path, generator
):
    images = generator.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    model = model_class()
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(restored, model_class)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        restored.predict(images, verbose=0), expected, 1e-6, 1e-6
    )
    model.save_weights(tmp_path / "model.weights.h5")
    other = model_class()
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(
        other.predict(images, verbose=0), expected, 1e-6, 1e-6
    )


@pytest.mark.parametrize(
    ("model_class", "preset"),
    [(LeNet5, "mnist"), (LeNet5, "digits"), (OriginalLeNet5, "original")],
)
def test_presets_pass_the_preset_test_of_keras_hub(model_class, preset, digits):
    with pytest.raises(ValueError, match="clowntown"):
        model_class.from_preset("clowntown")
    images, labels = (part[:100] for part in digits[1])
    model = model_class.from_preset(preset)
    outputs = model.predict(images, verbose=0)
    assert outputs.shape == (100, 10)
    assert (outputs.argmax(axis=1) == labels).mean() > 0.8


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("model_class", MODELS, ids=name_of)
def test_models_pass_the_precision_test_of_keras_hub(
    model_class, policy, generator
):
    images = generator.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    policy = keras.dtype_policies.get(policy)
    model = model_class(dtype=policy)
    outputs = model.predict(images, verbose=0)
    spec = model.compute_output_spec(keras.KerasTensor((2, 28, 28, 1), "uint8"))
    assert outputs.dtype == spec.dtype == "float32"
    assert np.isfinite(outputs).all()
    head = {"output", "rbf"}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        expected = "float32" if layer.name in head else policy.compute_dtype
        assert layer.compute_dtype == expected, layer.name
        for weight in layer.weights:
            assert weight.dtype == layer.variable_dtype


@pytest.mark.parametrize("model_class", MODELS, ids=name_of)
def test_models_have_channels_last_whatever_the_image_data_format(
    model_class, generator
):
    images = generator.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    model = model_class()
    assert keras.config.image_data_format() == "channels_last"
    keras.config.set_image_data_format("channels_first")
    try:
        other = model_class()
        other.set_weights(model.get_weights())
        outputs = other.predict(images, verbose=0)
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(
        outputs, model.predict(images, verbose=0), 1e-5, 1e-6
    )
