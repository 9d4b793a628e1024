import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from keras_lenet.models import average_models
from tests.models.helpers import random_images


def test_an_ensemble_returns_the_mean_of_the_models(generator, tmp_path):
    models = [LeNet5(num_classes=3) for _ in range(3)]
    images = random_images(generator, 5)
    ensemble = average_models(models)
    expected = np.mean([m.predict(images, verbose=0) for m in models], axis=0)
    found = ensemble.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), expected, atol=1e-6
    )


def test_an_ensemble_has_copies_of_the_models(generator):
    models = [LeNet5(num_classes=3), LeNet5(num_classes=3)]
    before = [model.get_weights() for model in models]
    ensemble = average_models(models, name="both")
    ensemble.compile("sgd", "sparse_categorical_crossentropy")
    images = random_images(generator, 5)
    ensemble.fit(images, np.array([0, 1, 2, 0, 1]), verbose=0)
    assert ensemble.name == "both"
    assert [model.name for model in models] == ["lenet5", "lenet5"]
    for model, weights in zip(models, before, strict=True):
        for weight, other in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(weight, other)


def test_models_that_do_not_fit_are_rejected():
    for models in (
        [],
        [LeNet5()],
        [LeNet5(), LeNet5(num_classes=3)],
        [LeNet5(), LeNet5(input_shape=(20, 20, 1))],
    ):
        with pytest.raises(ValueError, match="`models` must be at least two"):
            average_models(models)


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
    found = average_models(models).predict(images, verbose=0)
    expected = np.mean([m.predict(images, verbose=0) for m in models], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
