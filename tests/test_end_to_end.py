import keras
import numpy as np

from keras_lenet import HeldOutEvaluation, LeNet5
from keras_lenet.datasets import image_dataset_from_array, load_data
from tests.helpers import needs_tensorflow


def train_with_the_cookbook_recipe(data, seed):
    """Trains for 300 steps of 100 images, and returns the test accuracy."""
    (x_train, y_train), (x_test, y_test) = data
    keras.utils.set_random_seed(seed)
    model = LeNet5(len(data.class_names))
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    dataset = image_dataset_from_array(
        x_train, y_train, shuffle=True, seed=seed, drop_remainder=True
    )
    held_out = HeldOutEvaluation((x_test, y_test), freq=50, sample_size=300)
    model.fit(
        dataset.repeat(),
        steps_per_epoch=300,
        shuffle=False,
        verbose=0,
        callbacks=[held_out],
    )
    _, accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0)
    # The last evaluation on a sample agrees with that on all images.
    assert abs(held_out.history["val_accuracy"][-1] - accuracy) < 0.05
    assert np.all(np.diff(held_out.history["step"]) == 50)
    return accuracy


@needs_tensorflow
def test_lenet5_learns_the_digits_with_the_cookbook_recipe(digits):
    assert train_with_the_cookbook_recipe(digits, seed=98) > 0.95


@needs_tensorflow
def test_lenet5_learns_mnist_with_the_cookbook_recipe(mnist_dir):
    data = load_data(mnist_dir / "mnist")
    assert train_with_the_cookbook_recipe(data, seed=98) > 0.94


def test_lenet5_learns_from_arrays_on_every_backend(digits):
    (x_train, y_train), (x_test, y_test) = digits
    keras.utils.set_random_seed(98)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(x_train, y_train, batch_size=50, epochs=6, verbose=0)
    assert model.evaluate(x_test, y_test, verbose=0)[1] > 0.9
