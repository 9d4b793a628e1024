"""Failing callbacks leave the run unchanged."""

import functools
import logging
import sys

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, SamplePredictions
from keras_lenet.callbacks.isolation import get_values, set_values
from tests.helpers import on_default_backend, run_python

GENERATOR = np.random.default_rng(98)
IMAGES = GENERATOR.integers(0, 256, (120, 12, 12, 1)).astype("uint8")
LABELS = GENERATOR.integers(0, 3, 120)


class FailingData(keras.utils.PyDataset):
    """Held-out data that call `fail` before their second batch."""

    def __init__(self, fail):
        super().__init__()
        self.fail = fail

    def __len__(self):
        return 2

    def __getitem__(self, index):
        # Change a global state before failing.
        np.random.rand()  # noqa: NPY002
        if index:
            self.fail()
        return IMAGES[:20], LABELS[:20]


@functools.cache
def make_model():
    """Returns a model, and all its variables with their initial values."""
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
    # JAX and PyTorch build the model with a batch.
    model.fit(IMAGES, LABELS, batch_size=15, verbose=0)
    variables = [*model.variables, *model.optimizer.variables]
    return model, variables, get_values(variables)


def train(*callbacks):
    """Trains 8 steps; returns all of a run's results."""
    model, variables, start = make_model()
    set_values(variables, start)
    keras.utils.set_random_seed(1)
    history = model.fit(
        IMAGES, LABELS, batch_size=15, verbose=0, callbacks=list(callbacks)
    ).history
    return get_values(variables), {
        key: history[key] for key in ("loss", "accuracy")
    }


@functools.cache
def train_undisturbed():
    return train()


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
    return HeldOutEvaluation(FailingData(fail), 1, **kwargs)


def pictures(folder, **kwargs):
    return SamplePredictions(
        IMAGES[:4], LABELS[:4], 1, folder / "{step}.png", **kwargs
    )


FULL_DISK = OSError(28, "No space left on device")
# Functions that return a callback which fails in every step.
FAULTS = {
    "data raise": lambda folder: held_out(raises(ValueError("bad"))),
    "data end": lambda folder: held_out(raises(ENDS[0])),
    "TensorFlow's data end": lambda folder: held_out(raises(ENDS[1])),
    "no memory": lambda folder: held_out(raises(MemoryError())),
    "wrong shape": lambda folder: HeldOutEvaluation((IMAGES[:, :5], LABELS), 1),
    "no data": lambda folder: HeldOutEvaluation([], 1),
    "folder is a file": lambda folder: pictures(folder / "file"),
    "images of another shape": lambda folder: SamplePredictions(
        IMAGES[:4, :5], LABELS[:4], 1, folder / "{step}.png"
    ),
}


def write_csv(folder):
    return HeldOutEvaluation((IMAGES, LABELS), 1, filename=folder / "a.csv")


# The function to replace, the error that it raises, and the callback.
PATCHES = {
    "full disk for CSV": ("os.fsync", FULL_DISK, write_csv),
    "drawing fails": (
        "keras_lenet.callbacks.sample_predictions.plot_predictions",
        RuntimeError("font"),
        pictures,
    ),
    "full disk for a picture": ("os.fsync", FULL_DISK, pictures),
    "renaming fails": ("pathlib.Path.replace", PermissionError(), pictures),
}


@pytest.mark.parametrize("name", [*FAULTS, *PATCHES])
def test_a_failing_callback_leaves_the_run_unchanged(
    name, tmp_path, all_survive, monkeypatch, caplog
):
    undisturbed = train_undisturbed()
    (tmp_path / "file").write_text("")
    caplog.clear()
    with monkeypatch.context() as patch:
        make = FAULTS.get(name)
        if name in PATCHES:
            target, error, make = PATCHES[name]
            patch.setattr(target, raises(error))
        callback = make(tmp_path)
        with pytest.warns(RuntimeWarning, match="failed at step") as warned:
            disturbed = train(callback)
    np.testing.assert_equal(disturbed, undisturbed)
    messages = [str(warning.message) for warning in warned]
    assert sum("failed at step" in message for message in messages) == 1
    logged = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [bool(record.exc_info) for record in logged] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    all_survive("faults in callbacks", [True])


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("bad"), ValueError),
        # Keras would take these errors for the end of the epoch.
        (ENDS[0], RuntimeError),
        (ENDS[1], RuntimeError),
    ],
)
def test_a_strict_callback_ends_the_run(error, raised, tmp_path):
    with pytest.raises(raised):
        train(held_out(raises(error), strict=True))


def test_a_strict_picture_ends_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        train(pictures(tmp_path / "file", strict=True))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_never_swallowed(error):
    with pytest.raises(error):
        train(held_out(raises(error())))


def test_a_failed_evaluation_is_tried_again_when_next_due():
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

images = np.random.default_rng(98).integers(0, 256, (2, 28, 28, 1))
callback = SamplePredictions(
    images.astype("uint8"), np.arange(2), 1, sys.argv[1] + "/a.png"
)
model = LeNet5()
model.compile("adam", "sparse_categorical_crossentropy")
callback.set_model(model)
callback.on_train_begin()
for step in range(5):
    callback.on_interval(step, 0)
before = memory()
for step in range(int(sys.argv[2])):
    callback.on_interval(step, 0)
print(memory() - before)
"""
    number = 500 if full else 60
    added = float(run_python(code, str(tmp_path), str(number)))
    assert added < 30
    all_survive("pictures", [True] * number)
