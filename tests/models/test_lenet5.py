import functools

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, recipes, saving
from tests.helpers import once, run_python
from tests.models.helpers import assert_close, random_data

needs_tensorflow_backend = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="about tf.data in Keras"
)


def sequential_lenet5():
    """Returns LeNet-5 built from Keras' layers, for padded images."""
    layers = keras.layers
    last = {"data_format": "channels_last"}
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 5, activation="relu", **last),
            layers.MaxPooling2D(**last),
            layers.Conv2D(16, 5, activation="relu", **last),
            layers.MaxPooling2D(**last),
            layers.Flatten(**last),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def pixels(model, generator, count=3):
    shape = (count, *model.input_shape[1:])
    if model.include_preprocessing:
        return generator.integers(0, 256, shape).astype("uint8")
    return generator.random(shape, "float32")


def assert_same_outputs(model, other, generator):
    images = pixels(model, generator)
    # Only a `LeNet5` uses `fused_forward`, which rounds differently.
    close = 0 if type(model) is type(other) else 1e-6
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        other.predict(images, verbose=0),
        rtol=0,
        atol=close,
    )


CONFIGURATIONS = [
    {},
    {"include_preprocessing": False},
    {"classifier_activation": None, "name": "mine"},
    {"num_classes": 3, "input_shape": (17, 32, 3), "trainable": False},
    {"dtype": "mixed_bfloat16"},
    {"classifier_activation": keras.activations.log_softmax},
]


def test_lenet5_has_the_layers_of_the_paper_and_61706_weights():
    model = LeNet5()
    shapes = {layer.name: layer.output.shape[1:] for layer in model.layers[1:]}
    assert shapes == {
        "pad_to_32": (32, 32, 1),
        "rescaling": (32, 32, 1),
        "c1": (28, 28, 6),
        "s2": (14, 14, 6),
        "c3": (10, 10, 16),
        "s4": (5, 5, 16),
        "flatten": (400,),
        "c5": (120,),
        "f6": (84,),
        "output": (10,),
    }
    counts = {layer.name: layer.count_params() for layer in model.layers}
    counts = {name: count for name, count in counts.items() if count}
    assert counts == {
        "c1": 156,
        "c3": 2416,
        "c5": 48120,
        "f6": 10164,
        "output": 850,
    }
    assert model.count_params() == 61706


def test_lenet5_computes_what_keras_layers_compute(generator):
    model, other = LeNet5(), sequential_lenet5()
    other.set_weights(model.get_weights())
    images = pixels(model, generator)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        other.predict(padded, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_raw_and_preprocessed_images_give_the_same_output(generator):
    model, without = LeNet5(), LeNet5(include_preprocessing=False)
    without.set_weights(model.get_weights())
    images = pixels(model, generator)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        without.predict(padded.astype("float32") / 255, verbose=0),
        rtol=1e-5,
    )


def test_the_softmax_of_the_logits_is_the_default_output(generator):
    model, logits = LeNet5(), LeNet5(classifier_activation=None)
    logits.set_weights(model.get_weights())
    images = pixels(model, generator)
    exponentials = np.exp(logits.predict(images, verbose=0))
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        exponentials / exponentials.sum(axis=1, keepdims=True),
        rtol=1e-5,
    )


def test_lenet5_summary_shows_layers_shapes_and_counts(capsys):
    LeNet5().summary()
    text = capsys.readouterr().out
    for expected in ("c3 (Conv2D)", "(None, 10, 10, 16)", "48,120", "61,706"):
        assert expected in text


def test_lenet5_returns_the_output_of_an_inner_layer(generator):
    model = LeNet5()
    maps = keras.Model(model.input, model.get_layer("c3").output)
    assert maps.predict(pixels(model, generator), verbose=0).shape == (
        3,
        10,
        10,
        16,
    )


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_lenet5_is_restored_from_a_keras_file(
    configuration, tmp_path, generator
):
    model = LeNet5(**configuration)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is LeNet5
    assert loaded.get_config() == model.get_config()
    assert_same_outputs(model, loaded, generator)


def test_lenet5_is_restored_from_a_weights_file(tmp_path, generator):
    model, other = LeNet5(), LeNet5()
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_outputs(model, other, generator)


def test_lenet5_can_be_cloned(generator):
    model = LeNet5(num_classes=4)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same_outputs(model, clone, generator)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_a_quantized_lenet5_is_restored(tmp_path, generator):
    model = LeNet5()
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("f6").kernel.dtype == "int8"
    assert_same_outputs(model, loaded, generator)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_output_layer_stays_float32_under_a_mixed_policy(
    policy, tmp_path, generator
):
    keras.config.set_dtype_policy(policy)
    model = LeNet5()
    keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert each.get_layer("f6").compute_dtype == policy[len("mixed_") :]
        assert each.predict(pixels(model, generator), verbose=0).dtype == (
            "float32"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be a positive integer"),
        ({"num_classes": 2.5}, "`num_classes`.*Received: num_classes=2.5"),
        ({"num_classes": 3, "class_names": "abc"}, "must be 3 strings"),
        ({"num_classes": 3, "class_names": ["a", "b"]}, "must be 3 strings"),
        ({"num_classes": 2, "class_names": ["a", 2]}, "must be 2 strings"),
        ({"input_shape": (28, 28)}, r"height, width, channels\).*\(28, 28\)"),
        ({"input_shape": (None, 28, 1)}, "positive integers"),
        ({"input_shape": (1, 28, 28)}, "channels last.*transpose"),
        ({"input_shape": (40, 40, 1)}, "at most 32x32.*Resizing"),
        (
            {"input_shape": (28, 28, 1), "include_preprocessing": False},
            r"\(32, 32, channels\).*PadTo32",
        ),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        LeNet5(**arguments)


def test_the_names_of_classes_stay_until_their_number_changes(tmp_path):
    names = ["ant", "bee", "cat"]
    model = LeNet5(3, class_names=np.array(names))
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for each in (
        model,
        saving.load_model(tmp_path / "model.keras"),
        LeNet5.from_preset(tmp_path / "preset"),
        saving.adapt(model, dtype="bfloat16"),
    ):
        assert each.class_names == names
        assert type(each.class_names[0]) is str
    assert saving.adapt(model, num_classes=4).class_names is None
    two = saving.adapt(model, num_classes=2, class_names=["dog", "eel"])
    assert two.class_names == ["dog", "eel"]
    assert "class_names" not in LeNet5().get_config()


def test_the_classes_of_a_trained_model_are_named(tmp_path):
    model = LeNet5(3)
    model.class_names = ("ant", "bee", "cat")
    with pytest.raises(ValueError, match="must be 3 strings"):
        model.class_names = ["ant", "bee"]
    model.save(tmp_path / "model.keras")
    loaded = saving.load_model(tmp_path / "model.keras")
    assert loaded.class_names == ["ant", "bee", "cat"]


def test_the_smallest_and_largest_valid_arguments_are_accepted():
    assert LeNet5(1, (32, 1, 5)).output_shape == (None, 1)
    assert LeNet5(np.int64(7)).output_shape == (None, 7)


@pytest.fixture
def data(generator):
    images = generator.integers(0, 256, (50, 28, 28, 1)).astype("uint8")
    return images, generator.integers(0, 10, 50), generator.random(50)


@pytest.fixture
def given_to_keras(monkeypatch):
    """Records the arguments that `LeNet5` passes to Keras' methods."""
    given = []
    for name in ("fit", "evaluate", "predict"):

        @functools.wraps(getattr(keras.Model, name))
        def method(self, *args, **kwargs):
            given.append(kwargs)

        monkeypatch.setattr(keras.Model, name, method)
    return given


def compiled_model():
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


@needs_tensorflow_backend
def test_arrays_become_datasets_without_autotuning(data, given_to_keras):
    model = compiled_model()
    x, y, sample_weight = data
    model.fit(
        x, y, 16, sample_weight=sample_weight, validation_data=data, verbose=0
    )
    model.evaluate(x, y, verbose=0)
    model.predict(x, batch_size=7, verbose=0)
    fit, evaluate, predict = given_to_keras
    datasets = [fit["x"], fit["validation_data"], evaluate["x"], predict["x"]]
    assert [int(d.cardinality()) for d in datasets] == [4, 4, 2, 8]
    assert [d.options().autotune.enabled for d in datasets] == 4 * [False]
    # Keras converts all floats to float32 too.
    dtypes = [part.dtype.name for part in fit["x"].element_spec]
    assert dtypes == ["uint8", "int64", "float32"]


@needs_tensorflow_backend
@pytest.mark.parametrize(
    "arguments",
    [
        {"class_weight": {0: 2.0}},
        {"steps_per_epoch": 2},
        {"validation_split": 0.5},
        {"shuffle": "batch"},
    ],
)
def test_arrays_that_keras_splits_differently_are_left_to_keras(
    data, given_to_keras, arguments
):
    x, y, _ = data
    compiled_model().fit(x, y, 20, **arguments, verbose=0)
    assert given_to_keras[0]["x"] is x


def test_arrays_give_keras_results_in_evaluate_and_predict(data):
    model = compiled_model()
    x, y, sample_weight = data
    arguments = {"batch_size": 16, "verbose": 0}
    weighted = {"sample_weight": sample_weight, **arguments}
    assert model.evaluate(x, y, **weighted) == pytest.approx(
        keras.Model.evaluate(model, x, y, **weighted), rel=1e-6
    )
    np.testing.assert_array_equal(
        model.predict(x, **arguments),
        keras.Model.predict(model, x, **arguments),
    )


def test_arrays_give_keras_results_in_fit(data):
    x, y, sample_weight = data
    first = LeNet5().get_weights()
    results = []
    for fit in (LeNet5.fit, keras.Model.fit):
        model = compiled_model()
        model.set_weights(first)
        history = fit(
            model,
            # Keras converts all floats to float32.
            x.astype("float64"),
            y,
            25,
            epochs=2,
            shuffle=False,
            sample_weight=sample_weight,
            validation_data=(x[:20], y[:20]),
            validation_batch_size=7,
            verbose=0,
        )
        results.append((history.history, model.get_weights()))
    (ours, our_weights), (keras_own, keras_weights) = results
    assert ours.keys() == keras_own.keys()
    for name, values in ours.items():
        assert values == pytest.approx(keras_own[name], rel=1e-5), name
    for weight, other in zip(our_weights, keras_weights, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-6)


@needs_tensorflow_backend
def test_arrays_are_reshuffled_each_epoch_according_to_the_seed(
    data, given_to_keras
):
    x, y, _ = data

    def orders(seed):
        keras.utils.set_random_seed(seed)
        compiled_model().fit(x, y, 8, verbose=0)
        dataset = given_to_keras[-1]["x"]
        return [
            np.concatenate([images.numpy() for images, _ in dataset])
            for _ in range(2)
        ]

    first, second = orders(98)
    for order in (first, second):
        assert sorted(order.sum((1, 2, 3))) == sorted(x.sum((1, 2, 3)))
    assert (first != second).any()
    np.testing.assert_array_equal(first, orders(98)[0])
    assert (first != orders(99)[0]).any()


@once
@pytest.mark.parametrize(
    "imported",
    [
        "keras, keras_lenet; from keras.saving import load_model",
        "keras_lenet.models; from keras.saving import load_model",
        "keras_lenet.saving; from keras_lenet.saving import load_model",
    ],
)
def test_a_new_process_finds_the_registered_classes(imported, tmp_path):
    LeNet5().save(tmp_path / "model.keras")
    code = f"import {imported}; print(type(load_model('model.keras')).__name__)"
    output = run_python(code, cwd=tmp_path)
    assert output.strip() == "LeNet5"


def test_importing_the_package_does_not_import_a_backend():
    code = "import sys, keras_lenet; print('keras' in sys.modules)"
    output = run_python(code)
    assert output.strip() == "False"


@pytest.mark.parametrize("activation", ["softmax", None])
def test_a_loss_with_the_wrong_from_logits_is_rejected(activation, generator):
    model = LeNet5(classifier_activation=activation)
    images = generator.integers(0, 256, (4, 28, 28, 1))
    labels = generator.integers(0, 10, 4)
    for make in (
        keras.losses.SparseCategoricalCrossentropy,
        recipes.SmoothedSparseCategoricalCrossentropy,
    ):
        model.compile(loss=make(from_logits=activation is not None))
        right = f"from_logits={activation is None}"
        for method in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=f"`loss` must have {right}"):
                method(images, labels, verbose=0)
        model.compile(loss=make(from_logits=activation is None))
        model.evaluate(images, labels, verbose=0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_are_loaded_with_the_state_of_the_optimizer(
    optimizer, generator, tmp_path
):
    images, labels = random_data(generator, 32)
    path = tmp_path / "model.weights.h5"
    models = []
    for _ in range(2):
        model = LeNet5()
        model.compile(optimizer, "sparse_categorical_crossentropy")
        if path.exists():
            # The tests turn Keras' warnings into errors.
            model.load_weights(path)
        model.fit(images, labels, shuffle=False, verbose=0)
        if not path.exists():
            model.save_weights(path)
            model.fit(images, labels, shuffle=False, verbose=0)
        models.append(model)
    assert models[1].optimizer.iterations == 2
    assert_close(*(model.get_weights() for model in models))


def test_weights_without_an_optimizer_are_loaded(tmp_path):
    path = tmp_path / "model.weights.h5"
    saved, loaded = LeNet5(), LeNet5()
    saved.compile("adam", "sparse_categorical_crossentropy")
    saved.save_weights(path)
    loaded.compile("adam", "sparse_categorical_crossentropy")
    loaded.load_weights(path)
    assert not loaded.optimizer.built
    assert_close(loaded.get_weights(), saved.get_weights())
