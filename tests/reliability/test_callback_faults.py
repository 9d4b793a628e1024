"""Callbacks that fail do not hurt the training."""

import functools
import logging
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, SamplePredictions, plots
from keras_lenet.callbacks.isolation import get_values, set_values
from tests.helpers import on_default_backend, run_python

GENERATOR = np.random.default_rng()
IMAGES = GENERATOR.integers(0, 256, (120, 12, 12, 1)).astype("uint8")
LABELS = GENERATOR.integers(0, 3, 120)


class Data(keras.utils.PyDataset):
    """Held-out data that fail in a way."""

    def __init__(self, fail):
        super().__init__()
        self.fail = fail

    def __len__(self):
        return 2

    def __getitem__(self, index):
        # Changes what it can first.
        np.random.rand()  # noqa: NPY002
        if index:
            self.fail()
        return IMAGES[:20], LABELS[:20]


@functools.cache
def make_model():
    """Returns a model and all its variables with their first values."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    # Builds it, for which JAX and PyTorch take a batch.
    model.fit(IMAGES, LABELS, batch_size=15, verbose=0)
    variables = [*model.variables, *model.optimizer.variables]
    return model, variables, get_values(variables)


def train(*callbacks):
    """Trains 8 steps; returns all that a run can be told by."""
    model, variables, start = make_model()
    set_values(variables, start)
    keras.utils.set_random_seed(1)
    history = model.fit(
        IMAGES, LABELS, batch_size=15, verbose=0, callbacks=list(callbacks)
    ).history
    return get_values(variables), {
        key: history[key] for key in ("loss", "accuracy")
    }


def raises(error):
    def fail(*_, **__):
        raise error

    return fail


ENDS = [StopIteration("end")]
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    ENDS.append(tf.errors.OutOfRangeError(None, None, "end"))
else:
    ENDS.append(StopIteration())


def held_out(fail, **kwargs):
    return HeldOutEvaluation(Data(fail), 1, **kwargs)


def pictures(folder, **kwargs):
    return SamplePredictions(
        IMAGES[:4], LABELS[:4], 1, folder / "{step}.png", **kwargs
    )


def test_a_failing_callback_leaves_the_training_as_it_is(
    tmp_path, all_survive, monkeypatch, caplog
):
    undisturbed = train()
    (tmp_path / "file").write_text("")
    full_disk = OSError(28, "No space left on device")

    def in_evaluation(error):
        return lambda patch: held_out(raises(error))

    def in_drawing(target, name, error):
        def make(patch):
            patch.setattr(target, name, raises(error))
            return pictures(tmp_path)

        return make

    def writing_csv(patch):
        patch.setattr(os, "fsync", raises(full_disk))
        return HeldOutEvaluation(
            (IMAGES, LABELS), 1, filename=tmp_path / "a.csv"
        )

    faults = {
        "data raise": in_evaluation(ValueError("bad")),
        "data end": in_evaluation(ENDS[0]),
        "TensorFlow's data end": in_evaluation(ENDS[1]),
        "no memory": in_evaluation(MemoryError()),
        "wrong shape": lambda patch: HeldOutEvaluation(
            (IMAGES[:, :5], LABELS), 1
        ),
        "no data": lambda patch: HeldOutEvaluation([], 1),
        "full disk for CSV": writing_csv,
        "drawing fails": in_drawing(
            plots, "plot_predictions", RuntimeError("font")
        ),
        "full disk for a picture": in_drawing(os, "fsync", full_disk),
        "renaming fails": in_drawing(Path, "replace", PermissionError()),
        "folder is a file": lambda patch: pictures(tmp_path / "file"),
        "images of another shape": lambda patch: SamplePredictions(
            IMAGES[:4, :5], LABELS[:4], 1, tmp_path / "{step}.png"
        ),
    }
    outcomes = []
    for name, make in faults.items():
        caplog.clear()
        with monkeypatch.context() as patch:
            callback = make(patch)
            with pytest.warns(RuntimeWarning, match="failed at step") as warned:
                disturbed = train(callback)
        np.testing.assert_equal(disturbed, undisturbed, name)
        said = [w for w in warned if "failed at step" in str(w.message)]
        assert len(said) == 1, name
        logged = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert [bool(record.exc_info) for record in logged] == [True], name
        outcomes.append(True)
    all_survive("faults in callbacks", outcomes)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("bad"), ValueError),
        # Keras would take these for the end of the epoch.
        (ENDS[0], RuntimeError),
        (ENDS[1], RuntimeError),
    ],
)
def test_a_strict_callback_ends_the_training(error, raised, tmp_path):
    with pytest.raises(raised):
        train(held_out(raises(error), strict=True))


def test_a_strict_picture_ends_the_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        train(pictures(tmp_path / "file", strict=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_never_swallowed(error):
    with pytest.raises(error):
        train(held_out(raises(error())))


def test_a_failed_evaluation_is_tried_again_when_it_is_due(generator):
    failures = [ValueError("once")]

    def fail():
        if failures:
            raise failures.pop()

    callback = held_out(fail)
    with pytest.warns(RuntimeWarning, match=r"at step 1: .*once"):
        train(callback)
    assert callback.history["step"] == [2, 3, 4, 5, 6, 7, 8]
    alone = held_out(lambda: None)
    train(alone)
    np.testing.assert_equal(
        callback.history["val_loss"], alone.history["val_loss"][1:]
    )


@on_default_backend
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_many_pictures_take_no_memory(tmp_path, full, all_survive):
    code = """
import sys
import numpy as np
from keras_lenet import LeNet5, SamplePredictions

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

images = np.random.default_rng().integers(0, 256, (2, 28, 28, 1))
callback = SamplePredictions(
    images.astype("uint8"), np.arange(2), 1, sys.argv[1] + "/a.png"
)
model = LeNet5()
model.compile("adam", "sparse_categorical_crossentropy")
callback.set_model(model)
callback.on_train_begin()
for step in range(5):
    callback.look(step, 0)
before = memory()
for step in range(int(sys.argv[2])):
    callback.look(step, 0)
print(memory() - before)
"""
    number = 500 if full else 60
    added = float(run_python(code, str(tmp_path), str(number)))
    assert added < 20
    all_survive("pictures", [True] * number)
