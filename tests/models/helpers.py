"""What the tests of the models share: random data and plain Keras models."""

import keras
import numpy as np

from keras_lenet import LeNet5


def random_images(generator, count, model=None):
    """Returns images as a model takes them, or a default `LeNet5`."""
    shape = (count, *(model.input_shape[1:] if model else (28, 28, 1)))
    if model is None or model.include_preprocessing:
        return generator.integers(0, 256, shape).astype("uint8")
    return generator.random(shape, "float32")


def random_data(generator, count, model=None):
    """Returns images and labels for a model, or a default `LeNet5`."""
    images = random_images(generator, count, model)
    num_classes = model.num_classes if model else 10
    return images, generator.integers(0, num_classes, count)


def plain_copy(model):
    """Returns a model of Keras' own class with the same layers and weights."""
    copy = keras.models.clone_model(model)
    assert type(copy) is not LeNet5
    copy.set_weights(model.get_weights())
    return copy


def assert_close(arrays, others, tolerance=1e-5):
    """Asserts that arrays differ by at most the tolerance."""
    for array, other in zip(arrays, others, strict=True):
        np.testing.assert_allclose(array, other, rtol=0, atol=tolerance)
