"""`predict` of many images, which TensorFlow compiles."""

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from keras_lenet.models import tensorflow_programs
from keras_lenet.models.twins import find_twin
from tests.helpers import BACKEND
from tests.models.helpers import assert_close, plain_copy, random_images

pytestmark = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="TensorFlow's programs"
)


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    """Compiles for 20 images, and returns the sizes of the parts computed."""
    sizes = []
    make = tensorflow_programs._make_predict_program

    def make_program(twin):
        program = make(twin)

        def run(variables, images):
            sizes.append(len(images))
            return program(variables, images)

        return run

    monkeypatch.setattr(tensorflow_programs, "_MIN_IMAGES", 20)
    monkeypatch.setattr(
        tensorflow_programs, "_make_predict_program", make_program
    )
    monkeypatch.setattr("keras_lenet.models.twins._twins", {})
    return sizes


@pytest.mark.parametrize(
    "count, batch_size, sizes",
    [
        (20, 10, [10, 10]),
        (21, 10, [10, 10, 10]),
        (40, None, [32, 32]),
        (620, 600, [200] * 4),
        (19, 10, []),
    ],
)
def test_predict_of_many_images_is_keras_predict(
    runs, generator, count, batch_size, sizes
):
    model = LeNet5()
    images = random_images(generator, count)
    found = model.predict(images, batch_size=batch_size, verbose=0)
    assert runs == sizes
    expected = plain_copy(model).predict(images, verbose=0)
    assert_close([found], [expected])


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 3, "classifier_activation": None},
        {"input_shape": (32, 32, 3), "include_preprocessing": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_predict_uses_the_weights_and_arguments_of_a_model(
    runs, generator, options
):
    for _ in range(2):
        model = LeNet5(**options)
        images = random_images(generator, 20, model)
        for _ in range(2):
            assert_close(
                [model.predict(images, verbose=0)],
                [plain_copy(model).predict(images, verbose=0)],
            )
            model.set_weights([w / 2 for w in model.get_weights()])
    assert runs == [32] * 4


def _changed_layer():
    model = LeNet5()
    model.get_layer("c1").activation = keras.activations.tanh
    return model


def _overridden():
    class Negative(LeNet5):
        def predict_step(self, data):
            return -super().predict_step(data)

    return Negative()


def _compiled(**options):
    model = LeNet5()
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return model


@pytest.mark.parametrize(
    "make",
    [
        _changed_layer,
        _overridden,
        lambda: _compiled(jit_compile=False),
        lambda: _compiled(run_eagerly=True),
        lambda: LeNet5(dtype="mixed_bfloat16"),
    ],
    ids=["layer", "predict_step", "jit_compile", "run_eagerly", "dtype"],
)
def test_keras_predicts_where_the_program_would_differ(runs, generator, make):
    model = make()
    images = random_images(generator, 20)
    found = model.predict(images, verbose=0)
    assert not runs
    sign = -1 if found.min() < 0 else 1
    expected = sign * plain_copy(model).predict(images, verbose=0)
    assert_close([found], [expected])


def test_keras_predicts_some_steps_and_tensors(runs, generator):
    model = LeNet5()
    images = random_images(generator, 20)
    part = model.predict(images, batch_size=5, steps=2, verbose=0)
    assert_close([part], [model(images[:10])])
    tensor = keras.ops.convert_to_tensor(images)
    assert_close([model.predict(tensor, verbose=0)], [model(images)])
    assert not runs


def test_many_images_do_not_change_how_few_are_computed(runs, generator):
    images = random_images(generator, 20)
    model = LeNet5()
    few = model.predict(images[:5], verbose=0)
    many = model.predict(images, verbose=0)
    assert len(runs) == 1
    np.testing.assert_array_equal(model.predict(images[:5], verbose=0), few)
    assert_close([many[:5]], [few])
    assert find_twin(model).model is not model
