"""The function that classifies a few images."""

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from tests.models.helpers import random_images


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_classes": 3, "input_shape": (20, 31, 3)},
        {"include_preprocessing": False},
        {"classifier_activation": None},
        # These use the layers.
        {"classifier_activation": "sigmoid"},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=[
        "default",
        "colour",
        "no_preprocessing",
        "logits",
        "sigmoid",
        "bfloat16",
    ],
)
def test_it_returns_what_the_model_predicts(arguments, generator):
    model = LeNet5(**arguments)
    # Biases that are not zero.
    model.set_weights(
        [w + generator.normal(0, 0.1, w.shape) for w in model.get_weights()]
    )
    images = random_images(generator, 70, model)
    predict = model.compile_predict()
    expected = model.predict(images, verbose=0)
    tolerance = 0.05 if "dtype" in arguments else 1e-4
    np.testing.assert_allclose(
        predict(images), expected, rtol=tolerance, atol=tolerance / 10
    )
    one = predict(images[3])
    assert one.shape == (model.num_classes,)
    np.testing.assert_allclose(
        one, expected[3], rtol=tolerance, atol=tolerance / 10
    )


def test_a_changed_layer_is_used(generator):
    model = LeNet5()
    model.get_layer("f6").activation = lambda x: x
    images = random_images(generator, 3, model)
    np.testing.assert_allclose(
        model.compile_predict()(images),
        model.predict(images, verbose=0),
        rtol=1e-4,
    )


def test_grey_images_need_no_channels(generator):
    model = LeNet5()
    images = random_images(generator, 3, model)
    predict = model.compile_predict()
    np.testing.assert_array_equal(predict(images[..., 0]), predict(images))
    np.testing.assert_array_equal(
        predict(images[0, ..., 0]), predict(images[0])
    )


def test_it_has_a_copy_of_the_weights(generator):
    model = LeNet5()
    images = random_images(generator, 2, model)
    predict = model.compile_predict()
    before = predict(images)
    model.set_weights([2 * w for w in model.get_weights()])
    np.testing.assert_array_equal(predict(images), before)
    assert abs(model.compile_predict()(images) - before).max() > 1e-3


class Inverted(LeNet5):
    def call(self, inputs, training=None, mask=None):
        inputs = 255.0 - keras.ops.cast(inputs, "float32")
        return super().call(inputs, training=training, mask=mask)


class Doubled(LeNet5):
    def predict_step(self, *arguments):
        found = super().predict_step(*arguments)
        if keras.backend.backend() == "jax":
            outputs, *state = found
            return 2 * outputs, *state
        return 2 * found


@pytest.mark.parametrize("kind", [Inverted, Doubled])
@pytest.mark.parametrize("count", [1, 3])
def test_it_computes_what_a_subclass_computes(kind, count, generator):
    model = kind()
    images = random_images(generator, count, model)
    np.testing.assert_allclose(
        model.compile_predict()(images),
        model.predict(images, verbose=0),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "shape", [(28,), (27, 28), (28, 28, 3), (1, 1, 28, 28, 1)]
)
def test_images_of_another_shape_are_rejected(shape):
    predict = LeNet5().compile_predict()
    with pytest.raises(ValueError, match=r"must have the shape \(28, 28, 1\)"):
        predict(np.zeros(shape, "uint8"))
