import warnings

import keras
import numpy as np
import pytest

from keras_lenet import BestModelCheckpoint, HeldOutEvaluation, LeNet5
from keras_lenet.files import FileFormatError
from keras_lenet.saving import load_model
from tests.callbacks.helpers import (
    IMAGES,
    LABELS,
    compiled,
    fail_on_full_disk,
    make_model,
)
from tests.helpers import in_order_of_keras


class Logs(keras.callbacks.Callback):
    """Provides values to monitor."""

    def __init__(self, *values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


def fit(model, best, *values):
    model.fit(
        IMAGES,
        LABELS,
        epochs=len(values),
        callbacks=[Logs(*values), best],
        verbose=0,
    )


def test_the_best_model_survives_restarts(tmp_path, capsys):
    path = tmp_path / "best.keras"
    model = make_model()
    best = BestModelCheckpoint(path, verbose=1)
    fit(model, best, 2.0, 1.0, 3.0)
    assert best.best == 1.0
    assert capsys.readouterr().out.count("saved, val_loss is") == 2
    saved = keras.saving.load_model(path)
    assert saved.optimizer.iterations == 20
    before = path.read_bytes()

    again = BestModelCheckpoint(path)
    fit(model, again, 1.5)
    assert (again.best, path.read_bytes()) == (1.0, before)
    fit(model, again, 0.5)
    assert BestModelCheckpoint(path).best is None
    assert again.best == 0.5 and path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileFormatError, match=r"best by.*val_accuracy"):
        fit(model, BestModelCheckpoint(path, "val_accuracy"), 1.0)


@pytest.mark.parametrize(
    ("monitor", "mode", "better"),
    [
        ("val_loss", "auto", 1.0),
        ("val_a_accuracy", "auto", 3.0),
        ("x", "max", 3.0),
        ("val_loss", "max", 3.0),
    ],
)
def test_the_mode_is_inferred_from_the_name_or_given(
    monitor, mode, better, tmp_path
):
    best = BestModelCheckpoint(tmp_path / "a.keras", monitor, mode)
    best.set_model(make_model())
    for value in (2.0, 3.0, 1.0):
        best.on_epoch_end(0, {monitor: value})
    assert best.best == better


def fit_monitored(best, *callbacks, **kwargs):
    """Trains 3 epochs of 11 steps; returns the warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        make_model().fit(
            IMAGES,
            LABELS,
            batch_size=30,
            epochs=3,
            callbacks=list(callbacks) or [best],
            verbose=0,
            **kwargs,
        )
    return [
        str(warning.message)
        for warning in warned
        if "Can save best" in str(warning.message)
    ]


def test_a_missing_value_is_warned_about_once(tmp_path):
    held_out = HeldOutEvaluation((IMAGES, LABELS), "epoch")
    best = BestModelCheckpoint(tmp_path / "a.keras", "val_acc", mode="max")
    (message,) = fit_monitored(best, held_out, best)
    names = in_order_of_keras(["accuracy", "loss", "val_loss", "val_accuracy"])
    assert message == (
        "Can save best model only with val_acc available. No model is saved "
        f"in epoch 1. Available metrics are: {', '.join(names)}. "
        "Did you mean 'val_accuracy'?"
    )
    (message,) = fit_monitored(best, validation_data=(IMAGES, LABELS))
    assert message.endswith("Did you mean 'val_accuracy'?")
    (message,) = fit_monitored(BestModelCheckpoint(tmp_path / "a.keras"))
    assert message.endswith(
        "Available metrics are: accuracy, loss. Give `validation_data` to "
        "`fit`, or put `HeldOutEvaluation` before `BestModelCheckpoint`."
    )
    best = BestModelCheckpoint(tmp_path / "a.keras", "f1", mode="max")
    (message,) = fit_monitored(best)
    assert message.endswith("Available metrics are: accuracy, loss.")
    assert list(tmp_path.iterdir()) == []


def test_a_value_of_a_later_callback_is_warned_about(tmp_path):
    best = BestModelCheckpoint(tmp_path / "a.keras")
    held_out = HeldOutEvaluation((IMAGES, LABELS), "epoch")
    (message,) = fit_monitored(best, best, held_out)
    assert "`HeldOutEvaluation` must come before" in message
    assert best.best is None
    # The validation of `fit` provides its values to all callbacks.
    validation = {"validation_data": (IMAGES, LABELS)}
    assert fit_monitored(best, best, held_out, **validation) == []
    assert best.best is not None


def test_an_epoch_without_an_evaluation_is_warned_about(tmp_path):
    best = BestModelCheckpoint(tmp_path / "a.keras")
    held_out = HeldOutEvaluation((IMAGES, LABELS), 15)
    (message,) = fit_monitored(best, held_out, best)
    assert "no evaluation in this epoch, with freq=15." in message
    assert best.best == min(held_out.history["val_loss"])


@pytest.mark.parametrize("field", ["{epoch}", "{val_loss:.2f}", "{}", "{"])
def test_a_filepath_with_fields_is_rejected(field, tmp_path):
    message = r"must be one file.*ModelCheckpoint`"
    with pytest.raises(ValueError, match=message) as raised:
        BestModelCheckpoint(tmp_path / f"{field}.keras")
    assert f"{field}.keras" in str(raised.value)


def test_doubled_braces_in_a_filepath_become_single(tmp_path):
    fit(make_model(), BestModelCheckpoint(tmp_path / "{{a}}.keras"), 1.0)
    assert (tmp_path / "{a}.keras").exists()


def test_a_model_saved_by_something_else_is_never_replaced(tmp_path):
    path = tmp_path / "a.keras"
    model = make_model()
    model.save(path)
    before = path.read_bytes()
    with pytest.raises(FileFormatError) as raised:
        fit(model, BestModelCheckpoint(path), 1.0)
    message = str(raised.value)
    assert "saved by something else. Give another `filepath`, or" in message
    assert "damaged" not in message
    assert path.read_bytes() == before
    path.write_bytes(before[:1000])
    with pytest.raises(FileFormatError, match="damaged"):
        fit(model, BestModelCheckpoint(path), 1.0)


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_non_finite_model_is_never_saved(value, tmp_path):
    path = tmp_path / "best.keras"
    model = make_model()
    fit(model, BestModelCheckpoint(path), 1.0)
    before = path.read_bytes()
    if value == 0.5:
        model.weights[0].assign(np.full(model.weights[0].shape, np.inf))
    with pytest.warns(RuntimeWarning, match="not finite"):
        fit(model, BestModelCheckpoint(path), value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("strict", [False, True])
def test_saving_is_tried_again_after_a_failure(strict, tmp_path, monkeypatch):
    path = tmp_path / "best.keras"
    best = BestModelCheckpoint(path, strict=strict)
    model = make_model()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail_on_full_disk)
        if strict:
            with pytest.raises(OSError, match="disk full"):
                fit(model, best, 1.0)
        else:
            with pytest.warns(RuntimeWarning, match="disk full") as warned:
                fit(model, best, 1.0, 0.5)
            categories = [w.category for w in warned]
            assert categories.count(RuntimeWarning) == 1
    assert best.best is None and not path.exists()
    fit(model, best, 1.0)
    assert path.exists()


def test_the_best_lenet5_loads_safely(tmp_path, generator):
    model = compiled(LeNet5(3, (12, 12, 1)))
    fit(model, BestModelCheckpoint(tmp_path / "best.keras"), 1.0)
    images = generator.integers(0, 256, (5, 12, 12, 1))
    np.testing.assert_array_equal(
        load_model(tmp_path / "best.keras").predict(images, verbose=0),
        model.predict(images, verbose=0),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filepath": "best.h5"}, "ends in .keras"),
        ({"filepath": "no/such.keras"}, "`filepath`.*no/such.keras"),
        ({"monitor": "val_x"}, "`mode` must be.*monitor='val_x'"),
        ({"mode": "least"}, "`mode` must be.*mode='least'"),
    ],
)
def test_best_model_checkpoint_rejects(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        BestModelCheckpoint(**{"filepath": tmp_path / "a.keras"} | arguments)
