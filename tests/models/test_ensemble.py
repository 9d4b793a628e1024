import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, saving
from keras_lenet.models import Ensemble
from tests.models.helpers import random_images


def test_an_ensemble_returns_the_mean_of_the_models(generator, tmp_path):
    models = [LeNet5(num_classes=3) for _ in range(3)]
    images = random_images(generator, 5)
    ensemble = Ensemble(models)
    expected = np.mean([m.predict(images, verbose=0) for m in models], axis=0)
    found = ensemble.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    for load in (keras.saving.load_model, saving.load_model):
        loaded = load(tmp_path / "ensemble.keras")
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), found)
        assert [each.name for each in loaded.models] == [
            "ensemble_0",
            "ensemble_1",
            "ensemble_2",
        ]


def test_an_ensemble_has_copies_of_the_models(generator):
    models = [LeNet5(num_classes=3), LeNet5(num_classes=3)]
    before = [model.get_weights() for model in models]
    ensemble = Ensemble(models, name="both")
    ensemble.compile("sgd", "sparse_categorical_crossentropy")
    images = random_images(generator, 5)
    ensemble.fit(images, np.array([0, 1, 2, 0, 1]), verbose=0)
    assert ensemble.name == "both"
    assert [model.name for model in models] == ["lenet5", "lenet5"]
    for model, weights in zip(models, before, strict=True):
        for weight, other in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(weight, other)


def test_the_mean_is_as_precise_as_the_outputs():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = LeNet5()
        ensemble = Ensemble([model, model])
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.compute_dtype == "bfloat16"
    assert ensemble.output.dtype == model.output.dtype == "float32"


def test_an_ensemble_is_saved_without_how_its_models_were_compiled(tmp_path):
    ensemble = Ensemble([LeNet5(), LeNet5()])
    ensemble.models[0].compile("sgd", "sparse_categorical_crossentropy")
    ensemble.save(tmp_path / "ensemble.keras")
    assert saving.load_model(tmp_path / "ensemble.keras").count_params()


def test_models_that_do_not_fit_are_rejected():
    for models in (
        [],
        [LeNet5()],
        [LeNet5(), LeNet5(num_classes=3)],
        [LeNet5(), LeNet5(input_shape=(20, 20, 1))],
        [keras.Sequential([keras.layers.Dense(2)])] * 2,
        ["mnist", "digits"],
    ):
        with pytest.raises(ValueError, match="`models` must be at least two"):
            Ensemble(models)


@pytest.mark.parametrize(
    ("arguments", "others", "message"),
    [
        ({}, {"include_preprocessing": False}, "`include_preprocessing`"),
        ({}, {"classifier_activation": None}, "probabilities, or all logits"),
        (
            {"class_names": ["yes", "no"]},
            {"class_names": ["no", "yes"]},
            "`class_names`",
        ),
    ],
)
def test_models_whose_outputs_mean_different_things_are_rejected(
    arguments, others, message
):
    model, other = (
        LeNet5(num_classes=2, input_shape=(32, 32, 1), **each)
        for each in (arguments, others)
    )
    with pytest.raises(ValueError, match=message):
        Ensemble([model, other])


def test_an_ensemble_has_the_class_names_of_the_models_that_have_any():
    unnamed = LeNet5(num_classes=2)
    named = LeNet5(num_classes=2, class_names=["yes", "no"])
    assert Ensemble([unnamed, unnamed]).class_names is None
    assert Ensemble([unnamed, named]).class_names == ["yes", "no"]


def test_each_model_of_an_ensemble_is_adapted(generator):
    models = [LeNet5(num_classes=3), LeNet5(num_classes=3)]
    adapted = saving.adapt(
        Ensemble(models, name="both"),
        include_preprocessing=False,
        input_shape=(32, 32, 1),
    )
    images = random_images(generator, 5)
    padded = np.pad(images / 255, ((0, 0), (2, 2), (2, 2), (0, 0)))
    expected = np.mean([m.predict(images, verbose=0) for m in models], axis=0)
    found = adapted.predict(padded.astype("float32"), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert adapted.name == "both"
    assert saving.adapt(adapted, name="mine").name == "mine"
    assert not adapted.include_preprocessing


def test_an_ensemble_may_have_models_of_any_kind(generator):
    plain = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    images = random_images(generator, 4).astype("float32")
    models = [LeNet5(), plain]
    found = Ensemble(models).predict(images, verbose=0)
    expected = np.mean([m.predict(images, verbose=0) for m in models], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
