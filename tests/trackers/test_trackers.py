"""Trackers get all that `fit` reports, and cost no steps per execution."""

import csv
import warnings

import keras
import numpy as np
import pytest

from keras_lenet import (
    HeldOutEvaluation,
    LeNet5,
    ResumableTraining,
    SamplePredictions,
    datasets,
    train,
)
from keras_lenet.models.steps_per_execution import choose_steps
from keras_lenet.trackers import (
    TRACKERS,
    CSVTracker,
    TensorBoardTracker,
    Tracker,
)
from keras_lenet.training import TRACKER_PACKAGES
from tests.callbacks.helpers import DATA, IMAGES, LABELS, make_model
from tests.helpers import (
    BACKEND,
    needs_tensorflow,
    on_default_backend,
    on_torch,
)
from tests.trackers import readers

HELD_OUT = IMAGES[200:], LABELS[200:]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    # trackio reads it when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path


class Recorder(Tracker):
    """Keeps what it gets."""

    def __init__(self, strict=False):
        super().__init__(strict)
        self.calls = []

    def open(self):
        self.calls.append("open")

    def log_scalars(self, values, step):
        self.calls.append((step, values))

    def log_image(self, name, image, step):
        assert image.dtype == "uint8" and image.shape[2] == 3
        assert image.std() > 10
        self.calls.append((step, name))

    def close(self):
        self.calls.append("close")

    @property
    def values(self):
        return {
            (call[0], name): value
            for call in self.calls
            if isinstance(call, tuple) and isinstance(call[1], dict)
            for name, value in call[1].items()
        }


def fit(callbacks, model=None, **kwargs):
    """Trains for 2 epochs of 6 steps."""
    model = model or make_model()
    return model.fit(
        *DATA,
        batch_size=20,
        **{"epochs": 2, "verbose": 0, "callbacks": callbacks, **kwargs},
    )


def expected_values(held_out, history):
    """Returns what a tracker of 2 epochs of 6 steps must have."""
    steps = held_out.history["step"]
    evaluations = {
        (step, name): value
        for name, values in held_out.history.items()
        if name != "step"
        for step, value in zip(steps, values, strict=True)
    }
    epochs = {
        (6 * (epoch + 1), f"epoch_{name}"): values[epoch]
        for name, values in history.history.items()
        for epoch in range(2)
    }
    return {**evaluations, **epochs}


@pytest.mark.parametrize(
    "name",
    [
        "tensorboard",
        *(
            pytest.param(name, marks=on_torch)
            for name in TRACKERS
            if name != "tensorboard"
        ),
    ],
)
def test_every_evaluation_and_picture_is_found_again(name, folder):
    held_out = HeldOutEvaluation(HELD_OUT, freq=4, at_end=True, strict=True)
    pictures = SamplePredictions(
        IMAGES[:3], LABELS[:3], freq=4, filepath="{step}.png", strict=True
    )
    tracker = TRACKERS[name](folder)
    tracker.strict = True
    history = fit([held_out, pictures, tracker])
    scalars, images = getattr(readers, f"read_{name}")(folder)
    expected = expected_values(held_out, history)
    assert scalars.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(scalars[key], value, rtol=1e-6)
    if images is not None:
        assert images == {(step, "predictions") for step in (4, 8, 12)}


@on_torch
@pytest.mark.parametrize("first", [True, False])
def test_a_tracker_may_stand_anywhere_in_the_list(first):
    tracker = Recorder(strict=True)
    held_out = HeldOutEvaluation(HELD_OUT, freq=5, at_end=True)
    fit([tracker, held_out] if first else [held_out, tracker])
    assert {step for step, _ in tracker.values} == {5, 6, 10, 12}
    assert (12, "val_loss") in tracker.values
    assert tracker.calls[0] == "open" and tracker.calls[-1] == "close"
    assert tracker.calls.count("open") == tracker.calls.count("close")


@on_torch
def test_several_pictures_have_names_of_their_own(tmp_path):
    tracker = Recorder(strict=True)
    pictures = [
        SamplePredictions(
            IMAGES[:2], LABELS[:2], filepath=str(tmp_path / name), strict=True
        )
        for name in ("1.png", "2.svg")
    ]
    fit([*pictures, tracker], epochs=1)
    assert (6, "predictions_1") in tracker.calls
    assert (6, "predictions_2") in tracker.calls


@on_torch
def test_each_fit_has_its_own_trackers():
    first, second = Recorder(), Recorder()
    model = make_model()
    fit([first, HeldOutEvaluation(HELD_OUT, freq=6)], model, epochs=1)
    held_out = HeldOutEvaluation(HELD_OUT, freq=6)
    fit([second, held_out], model, epochs=1)
    assert {step for step, _ in first.values} == {6}
    # Steps count from the beginning of a `fit`.
    assert {step for step, _ in second.values} == {6}
    assert second.values[6, "val_loss"] == held_out.history["val_loss"][0]
    assert first.values[6, "val_loss"] != second.values[6, "val_loss"]


class Failing(Recorder):
    def log_scalars(self, values, step):
        if step == 4:
            raise StopIteration("no network")
        super().log_scalars(values, step)


def test_a_tracker_that_fails_ends_no_training():
    tracker, other = Failing(), Recorder()
    held_out = HeldOutEvaluation(HELD_OUT, freq=4, strict=True)
    with pytest.warns(RuntimeWarning, match="Failing failed at step 4") as got:
        history = fit([held_out, tracker, other])
    assert sum(each.category is RuntimeWarning for each in got) == 1
    assert len(history.history["loss"]) == 2
    assert {step for step, _ in tracker.values} == {6, 8, 12}
    assert {step for step, _ in other.values} == {4, 6, 8, 12}


@on_torch
@pytest.mark.parametrize("strict", [True, False])
def test_a_strict_tracker_that_fails_ends_training(strict):
    # Whether or not the callback that calls it is strict.
    held_out = HeldOutEvaluation(HELD_OUT, freq=4, strict=strict)
    with (
        warnings.catch_warnings(),
        pytest.raises(RuntimeError, match="no network"),
    ):
        fit([held_out, Failing(strict=True)])
    assert held_out.history["step"] == [4]


class Subclass(keras.callbacks.TensorBoard):
    def on_train_batch_end(self, batch, logs=None):
        pass


def with_own_hook(callback):
    callback.on_train_batch_end = lambda batch, logs=None: None
    return callback


@pytest.mark.parametrize(
    "make, steps",
    [
        (Recorder, 20),
        (keras.callbacks.TensorBoard, 20),
        (lambda: keras.callbacks.TensorBoard(histogram_freq=1), 20),
        (lambda: keras.callbacks.TensorBoard(update_freq="batch"), 1),
        (lambda: keras.callbacks.TensorBoard(update_freq=100), 1),
        (lambda: keras.callbacks.TensorBoard(write_steps_per_second=True), 1),
        (Subclass, 1),
        (lambda: with_own_hook(keras.callbacks.TensorBoard()), 1),
        (lambda: with_own_hook(Recorder()), 1),
    ],
)
def test_trackers_of_epochs_leave_the_steps_per_execution(make, steps):
    chosen = choose_steps(np.ones((640, 1)), callbacks=[make()])
    assert chosen == steps


@on_default_backend
def test_the_profiler_of_tensorboard_needs_every_step(tmp_path):
    callback = keras.callbacks.TensorBoard(tmp_path, profile_batch=2)
    assert choose_steps(np.ones((640, 1)), callbacks=[callback]) == 1


@on_torch
@pytest.mark.parametrize("freq, steps", [("epoch", 20), ("batch", 1), (5, 1)])
def test_the_metrics_logger_of_wandb_acts_on_epochs(freq, steps, folder):
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    # Not `mode="disabled"`, which would stay so for the other tests.
    with wandb.init():
        callback = WandbMetricsLogger(log_freq=freq)
        chosen = choose_steps(np.ones((640, 1)), callbacks=[callback])
    assert chosen == steps


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="makes one step per execution")
def test_tensorboard_of_keras_gets_every_epoch(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )
    from tensorboard.util.tensor_util import make_ndarray

    model = LeNet5()
    model.compile("adam", "sparse_categorical_crossentropy")
    (x, y), _ = datasets.load_data("digits")
    history = model.fit(
        x[:320],
        y[:320],
        epochs=2,
        verbose=0,
        callbacks=[keras.callbacks.TensorBoard(tmp_path)],
    )
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    logged = [
        make_ndarray(e.tensor_proto) for e in events.Tensors("epoch_loss")
    ]
    np.testing.assert_allclose(logged, history.history["loss"])


def test_the_weights_are_those_without_trackers(folder):
    weights = []
    for trackers in ([], [TensorBoardTracker("logs"), CSVTracker("log.csv")]):
        keras.utils.set_random_seed(3)
        model = LeNet5()
        model.compile("adam", "sparse_categorical_crossentropy")
        (x, y), test = datasets.load_data("digits")
        held_out = HeldOutEvaluation(test, freq=2, sample_size=50, seed=1)
        model.fit(x[:320], y[:320], verbose=0, callbacks=[held_out, *trackers])
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations == 9:
            raise KeyboardInterrupt


@on_torch
@pytest.mark.parametrize("name", ["csv", "tensorboard"])
def test_a_resumed_run_is_logged_as_if_never_interrupted(name, folder):
    def run(*others):
        keras.utils.set_random_seed(5)
        held_out = HeldOutEvaluation(HELD_OUT, freq=2, seed=1, strict=True)
        tracker = TRACKERS[name](folder)
        tracker.strict = True
        resumable = ResumableTraining("run.npz", freq="epoch", strict=True)
        history = fit([held_out, tracker, resumable, *others])
        return expected_values(held_out, history)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupt())
    expected = run()
    scalars, _ = getattr(readers, f"read_{name}")(folder)
    assert scalars.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(scalars[key], value, rtol=1e-6)


@on_torch
@pytest.mark.parametrize("name", ["csv", "tensorboard"])
def test_a_new_run_replaces_an_earlier_one(name, folder):
    tracker = TRACKERS[name](folder)
    fit([HeldOutEvaluation(HELD_OUT, freq=2, at_start=True), tracker])
    held_out = HeldOutEvaluation(HELD_OUT, freq=4)
    history = fit([held_out, tracker])
    scalars, _ = getattr(readers, f"read_{name}")(folder)
    expected = expected_values(held_out, history)
    assert scalars.keys() == expected.keys()


@on_torch
def test_a_run_of_the_user_is_continued(folder):
    import mlflow
    import wandb

    mlflow.set_experiment("mine")
    with mlflow.start_run() as started, wandb.init(project="mine") as run:
        trackers = [TRACKERS["mlflow"](folder), TRACKERS["wandb"](folder)]
        fit(trackers, epochs=1)
        assert [t.run_id for t in trackers] == [started.info.run_id, run.id]
        assert mlflow.active_run() is not None and wandb.run is run
    metrics = mlflow.get_run(started.info.run_id).data.metrics
    assert set(metrics) == {"epoch_loss", "epoch_accuracy"}


@on_torch
@pytest.mark.parametrize("name", sorted(set(TRACKERS) - {"csv"}))
def test_a_missing_package_is_named(name, folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"keras-lenet\[{name}\]"):
        TRACKERS[name](folder)
    with pytest.raises(ImportError, match=rf"keras-lenet\[{name}\]"):
        train(log=[name], output=folder)
    assert not list(folder.iterdir())


@needs_tensorflow
def test_train_logs_by_name(folder):
    result = train(steps=10, log=["csv", "tensorboard"], output="run")
    values, _ = readers.read_csv(folder / "run")
    events, images = readers.read_tensorboard(folder / "run")
    assert values.keys() == events.keys()
    assert images == {(10, "predictions")}
    steps = result.history["step"]
    found = [values[step, "val_loss"] for step in steps]
    np.testing.assert_allclose(found, result.history["val_loss"])
    assert result.files[-2:] == [
        folder.relative_to(folder) / "run" / name
        for name in ("log.csv", "tensorboard")
    ]


@on_torch
@pytest.mark.parametrize("log", ["csv", ["csv", "csv"], ["excel"]])
@on_torch
def test_train_checks_the_names_of_trackers(log, folder):
    with pytest.raises(ValueError, match="`log` must be a list of different"):
        train(log=log, output=folder)


@on_torch
def test_the_names_of_trackers_are_the_same_everywhere():
    assert list(TRACKER_PACKAGES) == list(TRACKERS)


@on_torch
def test_a_csv_file_has_a_line_for_each_value(folder):
    fit([CSVTracker("log.csv")], epochs=1)
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "name", "value"]
    assert [row[:2] for row in rows[1:]] == [
        ["6", "epoch_accuracy"],
        ["6", "epoch_loss"],
    ]
    with pytest.raises(ValueError, match="`filename` must be a file"):
        CSVTracker(folder)
