import random

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, SamplePredictions
from tests.callbacks.helpers import (
    STEPS_PER_EXECUTION,
    DrawsAtRandom,
    assert_same_run,
    draw_random,
    make_model,
    predictions_callback,
    train,
    undisturbed,
)
from tests.helpers import BACKEND


@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
@pytest.mark.parametrize("freq", [3, "epoch"])
def test_callbacks_leave_a_run_bit_for_bit_unchanged(
    steps_per_execution, freq, data, tmp_path
):
    held_out = HeldOutEvaluation(
        data, freq, sample_size=40, at_start=True, at_end=True
    )
    callbacks = [held_out, predictions_callback(tmp_path, freq=freq)]
    assert_same_run(
        undisturbed(steps_per_execution),
        train(data, callbacks, steps_per_execution),
    )
    assert len(held_out.history["step"]) > 2
    assert len(list(tmp_path.iterdir())) >= 2


def test_callbacks_leave_a_run_with_validation_unchanged(data, tmp_path):
    callbacks = [
        HeldOutEvaluation(data, 3),
        predictions_callback(tmp_path, freq=3),
    ]
    assert_same_run(
        train(data, [], validation_data=data),
        train(data, callbacks, validation_data=data),
    )


def test_random_numbers_drawn_by_the_data_leave_a_run_unchanged(data):
    held_out = HeldOutEvaluation(DrawsAtRandom(data), 3)
    assert_same_run(undisturbed(), train(data, [held_out]))


def test_random_numbers_drawn_in_inference_leave_a_run_unchanged(data):
    class AlwaysNoisy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(3)

        def call(self, inputs):
            shape = keras.ops.shape(inputs)
            return inputs + keras.random.normal(shape, seed=self.generator)

    held_out = HeldOutEvaluation(data, 3, sample_size=50)
    assert_same_run(
        train(data, [], layers=[AlwaysNoisy()]),
        train(data, [held_out], layers=[AlwaysNoisy()]),
    )


def test_an_evaluation_builds_a_model_with_the_same_random_numbers(data):
    class DrawsInBuild(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight((shape[-1], 3), "glorot_uniform")

        def call(self, inputs):
            return keras.ops.matmul(inputs / 255, self.kernel)

    def random_after(callbacks):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Flatten(), DrawsInBuild()])
        model.compile("adam", "mse")
        targets = np.eye(3)[data[1]]
        model.fit(data[0], targets, verbose=0, callbacks=callbacks)
        return random.random()

    held_out = HeldOutEvaluation((data[0], np.eye(3)[data[1]]), at_start=True)
    assert random_after([]) == random_after([held_out])


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's modes")
def test_evaluations_put_torch_modules_into_evaluation_mode(data):
    modes = []

    class AsksForMode(keras.layers.Layer):
        def call(self, inputs):
            modes.append(self.training)
            return inputs

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.asks, self.dense = AsksForMode(), keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(self.asks(keras.ops.reshape(inputs, (-1, 144))))

    model = Model()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    model(data[0])
    del modes[:]
    held_out = HeldOutEvaluation(data, 2)
    model.fit(*data, batch_size=16, verbose=0, callbacks=[held_out])
    # There is one evaluation after every two steps.
    assert modes[-12:] == [True, True, False] * 4


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's modes")
def test_evaluations_restore_the_mode_of_torch_modules(data):
    model = make_model()
    model.layers[0].eval()
    modes = []

    class Modes(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            modes.append([m.training for m in self.model.modules()])

    held_out = HeldOutEvaluation(data, 1)
    model.fit(*data, verbose=0, callbacks=[Modes(), held_out, Modes()])
    assert modes[0::2] == modes[1::2]
    assert any(modes[-1])


def test_constructing_sample_predictions_keeps_the_random_state(data):
    keras.utils.set_random_seed(1)
    expected = draw_random()
    keras.utils.set_random_seed(1)
    SamplePredictions(DrawsAtRandom(data))
    assert draw_random() == expected
