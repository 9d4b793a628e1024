"""Data, models and runs for the tests of callbacks."""

import functools
import random

import keras
import numpy as np

from keras_lenet import (
    HeldOutEvaluation,
    ResumableTraining,
    SamplePredictions,
    datasets,
)
from keras_lenet.plots import plot_predictions
from tests.helpers import BACKEND, HAS_TENSORFLOW

# Keras rejects more than one step per execution on PyTorch.
STEPS_PER_EXECUTION = [1] if BACKEND == "torch" else [1, 3]

GENERATOR = np.random.default_rng(98)
IMAGES = GENERATOR.integers(0, 256, (310, 12, 12, 1)).astype("uint8")
LABELS = GENERATOR.integers(0, 3, 310)
DATA = IMAGES[:120], LABELS[:120]


def compiled(model, optimizer="adam", **kwargs):
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **kwargs,
    )
    return model


def make_model(steps_per_execution=1, layers=(), units=3, optimizer="adam"):
    """Returns a model with all kinds of state that is traced quickly."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            *layers,
            keras.layers.Dense(units, activation="softmax"),
        ]
    )
    return compiled(model, optimizer, steps_per_execution=steps_per_execution)


def values_of(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def draw_random():
    """Draws a number from every global random generator."""
    drawn = [random.random(), np.random.rand()]  # noqa: NPY002
    if BACKEND == "torch":
        import torch

        drawn.append(torch.rand(()).item())
    return drawn


class Batches:
    """A minimal dataset."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class DrawsAtRandom(keras.utils.PyDataset):
    """A dataset that draws from every global random generator."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return 2

    def __getitem__(self, index):
        draw_random()
        return self.data


def train(
    data, callbacks, steps_per_execution=1, epochs=2, layers=(), **kwargs
):
    """Trains 8 steps an epoch; returns all of a run's results."""
    keras.utils.set_random_seed(1)
    model = make_model(steps_per_execution, layers)
    if isinstance(data, tuple):
        kwargs |= {"x": data[0], "y": data[1], "batch_size": 16}
    else:
        kwargs |= {"x": data, "shuffle": False}
    history = model.fit(
        epochs=epochs, verbose=0, callbacks=callbacks, **kwargs
    ).history
    state = values_of([*model.weights, *model.optimizer.variables])
    return state, history, draw_random()


@functools.cache
def undisturbed(steps_per_execution=1):
    """Returns the results of the same run without callbacks."""
    return train(DATA, [], steps_per_execution)


def assert_same_run(run, other):
    for value, same in zip(run[0], other[0], strict=True):
        np.testing.assert_array_equal(value, same)
    for name, values in run[1].items():
        assert values == other[1][name], name
    assert run[2] == other[2]


def predictions_callback(folder, **kwargs):
    kwargs = {"filepath": folder / "{epoch}-{step}.png"} | kwargs
    return SamplePredictions(IMAGES[:4], LABELS[:4], **kwargs)


def record_drawn(monkeypatch):
    """Returns a list that collects the arguments of `plot_predictions`."""
    drawn = []

    def record(*args):
        drawn.append(args)
        return plot_predictions(*args)

    monkeypatch.setattr(
        "keras_lenet.callbacks.sample_predictions.plot_predictions", record
    )
    return drawn


class Draws(keras.callbacks.Callback):
    """Draws random numbers at the end of every epoch."""

    def on_epoch_end(self, epoch, logs=None):
        draw_random()


class Stops(keras.callbacks.Callback):
    """Interrupts the run before a step."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_begin(self, batch, logs=None):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1


def train_resumable(
    path,
    model=None,
    data=(IMAGES, LABELS),
    seed=7,
    batch_size=30,
    callbacks=(),
    after=(),
    epochs=3,
    repeat=None,
    known=True,
    augment=None,
    **kwargs,
):
    """Trains 11 steps an epoch; returns all of a run's results.

    Returns `None` if the run is interrupted.
    """
    keras.utils.set_random_seed(1)
    if not isinstance(model, keras.Model):
        model = (model or make_model)()
    dataset = data
    if HAS_TENSORFLOW and isinstance(data, tuple):
        dataset = datasets.image_dataset_from_array(
            *data, batch_size, shuffle=True, seed=seed, augment=augment
        )
    held_out = HeldOutEvaluation(
        (IMAGES[:50], LABELS[:50]),
        freq=4,
        sample_size=20,
        seed=3,
        at_start=True,
        at_end=True,
        filename=path.with_suffix(".csv"),
    )
    resumable = ResumableTraining(
        path, dataset if known else None, callbacks, **{"freq": 1} | kwargs
    )
    try:
        history = model.fit(
            dataset.repeat() if repeat else dataset,
            epochs=epochs,
            steps_per_epoch=repeat,
            callbacks=[held_out, Draws(), *callbacks, resumable, *after],
            verbose=0,
            shuffle=False,
        )
    except KeyboardInterrupt:
        return None
    return {
        "drawn": draw_random(),
        "weights": values_of(model.variables),
        "optimizer": values_of(model.optimizer.variables),
        "history": history.history,
        "epochs": history.epoch,
        "held out": held_out.history,
        "csv": path.with_suffix(".csv").read_text(),
    }


def are_same(run, other):
    try:
        np.testing.assert_equal(run, other)
    except AssertionError:
        return False
    return True


def fail_on_full_disk(*_):
    raise OSError(28, "disk full")
