"""`train`, called from Python."""

import os
import re
import signal
import threading

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, LeNet5, OriginalLeNet5, train
from keras_lenet.training import TrainingInterrupted
from tests.helpers import needs_tensorflow, once

TINY = {"steps": 4, "eval_every": 2, "eval_size": 20, "verbose": 0}


@needs_tensorflow
def test_train_returns_the_model_its_history_accuracy_and_files(
    tmp_path, digits, capsys
):
    result = train(output=tmp_path, **TINY)
    assert capsys.readouterr().out == ""
    assert isinstance(result.model, LeNet5)
    assert result.history["step"] == [2, 4]
    assert {"accuracy", "val_accuracy"} <= result.history.keys()
    _, (x_test, y_test) = digits
    predicted = result.model.predict(x_test, verbose=0).argmax(axis=1)
    assert result.accuracy == pytest.approx(np.mean(predicted == y_test))
    assert sorted(result.files) == sorted(tmp_path.iterdir())
    saved = keras.saving.load_model(tmp_path / "model.keras")
    for weight, expected in zip(
        saved.get_weights(), result.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight, expected)


@once
@needs_tensorflow
def test_the_recipe_decides_the_model(tmp_path):
    numbers = {**TINY, "batch_size": 20}
    result = train(recipe="paper", output=tmp_path, **numbers)
    assert isinstance(result.model, OriginalLeNet5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"recipe": "slow"}, "`recipe` must be one of .*recipe='slow'"),
        ({"recipe": ["fast"]}, "`recipe` must be one of .*recipe="),
        ({"model": "lenet4"}, "`model` must be one of .*model='lenet4'"),
        (
            {"model": "original", "recipe": "fast"},
            "`recipe` must be one for the model 'original': paper.*'fast'",
        ),
        (
            {"start_from": "gone"},
            "`start_from` must be a preset.*gone: no such",
        ),
        ({"start_from": 3}, "`start_from` must be a preset"),
        ({"start_from": "original"}, "`start_from` must be a LeNet5"),
        ({"start_from": "mnist", "model": "original"}, "`start_from` needs a"),
        ({"steps": 0}, "`steps` must be a positive integer.*steps=0"),
        ({"eval_size": 0}, "`eval_size` must be a positive integer"),
        ({"batch_size": 9999}, "`batch_size` must be at most the number of"),
    ],
)
def test_a_wrong_argument_raises_before_anything_is_written(
    arguments, match, tmp_path
):
    output = tmp_path / "run"
    with pytest.raises(ValueError, match=match):
        train(**{**TINY, "output": output, **arguments})
    assert not output.exists()


@needs_tensorflow
def test_train_works_in_another_thread(tmp_path):
    results = []
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def target():
        results.append(train(output=tmp_path, **TINY))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    assert results[0].history["step"] == [2, 4]
    assert handlers == [
        signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
    ]


@needs_tensorflow
def test_resume_continues_an_interrupted_run_exactly(tmp_path, monkeypatch):
    whole = train(output=tmp_path / "whole", **TINY)
    on_interval = HeldOutEvaluation.on_interval

    def interrupt(self, step, epoch):
        on_interval(self, step, epoch)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(HeldOutEvaluation, "on_interval", interrupt)
        with pytest.raises(TrainingInterrupted) as interrupted:
            train(output=output, **TINY)
    assert interrupted.value.number == signal.SIGTERM
    assert interrupted.value.path == output / "training.npz"
    assert not (output / "model.keras").exists()

    message = re.escape("training.npz: expected no interrupted run")
    with pytest.raises(ValueError, match=message):
        train(output=output, **TINY)
    with pytest.raises(ValueError, match="a run with another `seed`"):
        train(output=output, resume=True, seed=1, **TINY)
    resumed = train(output=output, resume=True, **TINY)
    assert resumed.history == whole.history
    for weight, expected in zip(
        resumed.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weight, expected)


@needs_tensorflow
def test_a_finished_run_is_overwritten_or_resumed(tmp_path):
    first = train(output=tmp_path, **TINY)
    again = train(output=tmp_path, **{**TINY, "seed": 1})
    assert again.history["loss"] != first.history["loss"]
    resumed = train(output=tmp_path, resume=True, **{**TINY, "seed": 1})
    assert resumed.history == again.history
    assert resumed.accuracy == again.accuracy
