import keras
import pytest

from keras_lenet import HeldOutEvaluation
from tests.callbacks.helpers import (
    STEPS_PER_EXECUTION,
    assert_same_run,
    predictions_callback,
    train,
)
from tests.helpers import BACKEND, needs_tensorflow


@pytest.mark.skipif(
    BACKEND == "tensorflow", reason="Keras always waits on TensorFlow"
)
def test_callbacks_let_keras_run_ahead_of_the_accelerator(data, tmp_path):
    callbacks = [HeldOutEvaluation(data), predictions_callback(tmp_path)]
    for callback in callbacks:
        assert keras.callbacks.CallbackList([callback])._async_train


@pytest.mark.parametrize(
    ("steps_per_execution", "steps"),
    [(1, [5, 10, 15]), (3, [6, 11, 16])][: len(STEPS_PER_EXECUTION)],
)
def test_evaluations_run_at_the_first_step_after_every_multiple_of_freq(
    steps_per_execution, steps, data
):
    # 8 steps an epoch: executions end at 3, 6, 8, 11, 14 and 16.
    held_out = HeldOutEvaluation(data, 5)
    train(data, [held_out], steps_per_execution)
    assert held_out.history["step"] == steps


@needs_tensorflow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("known", [True, False])
def test_steps_are_counted_if_the_length_of_the_data_is_unknown(
    known, data, tmp_path
):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    if not known:
        dataset = dataset.filter(lambda *_: True)
    held_out = HeldOutEvaluation(data, 4)
    pictures = predictions_callback(tmp_path, freq=4)
    assert_same_run(train(dataset, []), train(dataset, [held_out, pictures]))
    assert held_out.history["step"] == [4, 8, 12, 16]


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="one step per execution only")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", ["known", "unknown", "repeated"])
def test_steps_equal_the_optimizer_iterations_with_several_per_execution(
    kind, data
):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    kwargs = {}
    if kind == "unknown":
        dataset = dataset.filter(lambda *_: True)
    if kind == "repeated":
        dataset, kwargs = dataset.repeat(), {"steps_per_epoch": 8}
    held_out = HeldOutEvaluation(data, "epoch")
    state, _, _ = train(dataset, [held_out], 3, **kwargs)
    iterations = next(v for v in state if v.dtype.kind == "i" and v.ndim == 0)
    assert held_out.history["step"] == [iterations // 2, iterations]


def test_steps_are_counted_if_training_stops_within_an_epoch(data):
    class StopsAt3(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    held_out = HeldOutEvaluation(data, 100, at_end=True)
    train(data, [held_out, StopsAt3()])
    assert held_out.history["step"] == [3]
