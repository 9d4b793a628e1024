"""The answers of docs/pages/keras-and-us.md, a test for each row."""

import keras
import numpy as np
import pytest

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    LeNet5,
    ResumableTraining,
)
from keras_lenet.datasets import image_dataset_from_array
from keras_lenet.files import atomic
from keras_lenet.saving import load_model
from tests.callbacks.helpers import Stops
from tests.helpers import needs_tensorflow


@pytest.fixture
def data(digits):
    (x, y), (x_test, y_test) = digits
    return (x[:100], y[:100]), (x_test[:50], y_test[:50])


def compiled_model():
    keras.utils.set_random_seed(1)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def fit(model, data, epochs=1, callbacks=()):
    return model.fit(
        *data,
        batch_size=10,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def test_held_out_evaluation_validates_every_n_batches(data):
    train, test = data
    model = compiled_model()
    held_out = HeldOutEvaluation(test, freq=4, at_end=True)
    fit(model, train, callbacks=[held_out])
    assert held_out.history["step"] == [4, 8, 10]
    loss, accuracy = model.evaluate(*test, verbose=0)
    assert held_out.history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert held_out.history["val_accuracy"][-1] == pytest.approx(accuracy)


class Evaluate(keras.callbacks.Callback):
    """Evaluates in the way that the threads describe."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def on_train_batch_end(self, batch, logs=None):
        if batch == 7:
            self.model.evaluate(*self.data, verbose=0)


def test_training_metrics_are_those_of_a_run_without_evaluation(data):
    train, test = data
    without = fit(compiled_model(), train).history
    held_out = HeldOutEvaluation(test, freq=8)
    found = fit(compiled_model(), train, callbacks=[held_out]).history
    assert without.items() <= found.items()
    # What the threads report: the epoch's metrics come from few batches.
    naive = fit(compiled_model(), train, callbacks=[Evaluate(test)]).history
    assert naive["loss"] != pytest.approx(without["loss"], rel=1e-3)


def test_the_best_model_within_an_epoch_is_saved(data, tmp_path):
    train, test = data
    model = compiled_model()
    held_out = HeldOutEvaluation(test, freq=3, at_end=True)
    best = BestModelCheckpoint(tmp_path / "best.keras")
    fit(model, train, epochs=2, callbacks=[held_out, best])
    saved = load_model(tmp_path / "best.keras")
    saved.compile(loss="sparse_categorical_crossentropy")
    loss = saved.evaluate(*test, verbose=0)
    assert min(held_out.history["val_loss"]) == pytest.approx(loss, rel=1e-4)


@needs_tensorflow
def test_a_run_resumes_within_an_epoch_with_its_callbacks(digits, tmp_path):
    (x, y), _ = digits
    test = x[100:150], y[100:150]

    def run(path, *others):
        train = image_dataset_from_array(
            x[:100], y[:100], 10, shuffle=True, seed=3
        )
        model = compiled_model()
        held_out = HeldOutEvaluation(test, freq=4)
        early = keras.callbacks.EarlyStopping("loss", patience=9)
        resumable = ResumableTraining(path, train, [early], freq=1)
        callbacks = [held_out, early, *others, resumable]
        model.fit(
            train, epochs=3, shuffle=False, verbose=0, callbacks=callbacks
        )
        return model, held_out.history, early.best

    whole, history, best = run(tmp_path / "whole.npz")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.npz", Stops(15))
    resumed, resumed_history, resumed_best = run(tmp_path / "parts.npz")
    assert (resumed_history, resumed_best) == (history, best)
    for weights, expected in zip(
        resumed.get_weights(), whole.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weights, expected)


def test_a_file_is_the_old_one_if_writing_fails(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with (
        pytest.raises(OSError, match="power"),
        atomic.atomic_write(path) as new,
    ):
        new.write_text("half")
        raise OSError("no power")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
