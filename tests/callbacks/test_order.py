import functools

import keras
import numpy as np
import pytest

from keras_lenet import BestModelCheckpoint, HeldOutEvaluation, LeNet5
from tests.callbacks.helpers import compiled


def monitoring(folder):
    return [
        BestModelCheckpoint(folder / "best.keras"),
        keras.callbacks.EarlyStopping("val_accuracy"),
        keras.callbacks.ReduceLROnPlateau("val_loss"),
        keras.callbacks.ModelCheckpoint(
            folder / "b.keras", save_best_only=True
        ),
    ]


@functools.cache
def small_lenet5():
    return compiled(LeNet5(3, (12, 12, 1)))


def test_lenet5_rejects_monitoring_values_of_a_later_evaluation(data, tmp_path):
    model = small_lenet5()
    before = model.get_weights()
    for callback in monitoring(tmp_path):
        name = type(callback).__name__
        message = rf"come before `{name}`.*\['{name}', 'HeldOutEvaluation'\]"
        with pytest.raises(ValueError, match=message):
            model.fit(*data, callbacks=[callback, HeldOutEvaluation(data)])
    np.testing.assert_equal(model.get_weights(), before)
    later = HeldOutEvaluation({"mine": data})
    named = keras.callbacks.EarlyStopping("val_mine_loss", mode="min")
    with pytest.raises(ValueError, match="monitor='val_mine_loss'"):
        other = HeldOutEvaluation({"a": data})
        model.fit(*data, callbacks=[other, named, later])


class ProvidesValues(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = logs["val_accuracy"] = 1.0


def test_lenet5_accepts_monitoring_values_of_any_other_source(data, tmp_path):
    model = small_lenet5()

    def fit(*callbacks, **kwargs):
        model.fit(
            *data, batch_size=60, verbose=0, callbacks=list(callbacks), **kwargs
        )

    def held_out():
        return HeldOutEvaluation(data, "epoch")

    fit(held_out(), *monitoring(tmp_path), held_out())
    fit(*monitoring(tmp_path), held_out(), validation_data=data)
    fit(*monitoring(tmp_path), held_out(), validation_split=0.5)
    fit(ProvidesValues(), *monitoring(tmp_path), held_out())
    fit(
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda _, logs: ProvidesValues().on_epoch_end(0, logs)
        ),
        *monitoring(tmp_path),
        held_out(),
    )
    fit(
        keras.callbacks.EarlyStopping("loss"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        held_out(),
    )
    assert (tmp_path / "1.keras").exists()
