import random
import warnings

import keras
import numpy as np
import pytest
from matplotlib.image import imsave

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    LeNet5,
    RandomDistortion,
    ResumableTraining,
    datasets,
)
from keras_lenet.callbacks.resumable_training import is_finished
from keras_lenet.files import FileFormatError
from keras_lenet.files.arrays import read_arrays, write_arrays
from tests.helpers import BACKEND, HAS_TENSORFLOW, needs_tensorflow

GENERATOR = np.random.default_rng(98)
IMAGES = GENERATOR.integers(0, 256, (310, 12, 12, 1)).astype("uint8")
LABELS = GENERATOR.integers(0, 3, 310)


def make_model(optimizer="adam", units=3, **kwargs):
    """A model with all kinds of state, which is traced quickly."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 5),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(units, activation="softmax"),
        ]
    )
    compile_(model, optimizer, **kwargs)
    return model


def compile_(model, optimizer="adam", **kwargs):
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **kwargs,
    )


class Stops(keras.callbacks.Callback):
    """Interrupts the training before a step."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_begin(self, batch, logs=None):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1


class Draws(keras.callbacks.Callback):
    """Draws from every random state there is."""

    def on_epoch_end(self, epoch=0, logs=None):
        self.drawn = [random.random(), np.random.rand()]  # noqa: NPY002
        if BACKEND == "torch":
            import torch

            self.drawn.append(torch.rand(()).item())


class StopsWithoutBeingSeen(Stops):
    """Lets `LeNet5` make several steps in one execution."""

    acts_only_at_freq = True
    freq = "epoch"


def train(
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
    """Trains 11 steps an epoch; returns all that a run can be told by."""
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
    draws = Draws()
    resumable = ResumableTraining(
        path, dataset if known else None, callbacks, **{"freq": 1} | kwargs
    )
    try:
        history = model.fit(
            dataset.repeat() if repeat else dataset,
            epochs=epochs,
            steps_per_epoch=repeat,
            callbacks=[held_out, draws, *callbacks, resumable, *after],
            verbose=0,
            shuffle=False,
        )
    except KeyboardInterrupt:
        return None
    draws.on_epoch_end()
    return {
        "drawn": draws.drawn,
        "weights": arrays(model.variables),
        "optimizer": arrays(model.optimizer.variables),
        "history": history.history,
        "epochs": history.epoch,
        "held out": held_out.history,
        "csv": path.with_suffix(".csv").read_text(),
    }


def arrays(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def are_same(run, other):
    try:
        np.testing.assert_equal(run, other)
    except AssertionError:
        return False
    return True


def interrupt_and_resume(path, step, make=make_model, **kwargs):
    """Trains once in one go and once with an interrupt, which is returned."""
    whole = train(path.with_name("whole.npz"), make, **kwargs)
    kwargs |= {"verbose": 0}
    stopped = train(path, make, after=[Stops(step)], **kwargs)
    assert stopped is None
    return whole, train(path, make, **kwargs)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.npz"


# Resuming


@needs_tensorflow
@pytest.mark.parametrize("step", [0, 1, 11, 17])
def test_a_resumed_training_becomes_the_one_in_one_go(step, path, capsys):
    whole = train(path.with_name("whole.npz"))
    assert capsys.readouterr().out == ""
    assert train(path, after=[Stops(step)]) is None
    resumed = train(path)
    np.testing.assert_equal(resumed, whole)
    expected = f"epoch {step // 11 + 1}, after {step} steps" if step else ""
    assert expected in capsys.readouterr().out


@needs_tensorflow
def test_it_resumes_a_repeated_dataset_in_epochs_of_any_length(path):
    # 13 steps begin in the middle of a pass of 11, the last of which is short.
    np.testing.assert_equal(*interrupt_and_resume(path, 30, repeat=13))


@needs_tensorflow
def test_it_resumes_augmented_images(path):
    whole, resumed = interrupt_and_resume(path, 17, augment=RandomDistortion())
    np.testing.assert_equal(resumed, whole)
    assert not are_same(train(path.with_name("plain.npz")), whole)


@needs_tensorflow
def test_lenet5_resumes_with_several_steps_in_an_execution(path):
    def make():
        model = LeNet5(3, (12, 12, 1))
        compile_(model)
        return model

    whole = train(path.with_name("whole.npz"), make, freq=4)
    after = [StopsWithoutBeingSeen(4)]
    assert train(path, make, freq=4, after=after) is None
    np.testing.assert_equal(train(path, make, freq=4, verbose=0), whole)


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras makes one step there")
def test_it_resumes_with_several_steps_in_an_execution(path):
    def make():
        return make_model(steps_per_execution=2)

    # Interrupted before the 8th execution.
    np.testing.assert_equal(*interrupt_and_resume(path, 7, make))


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras makes one step there")
def test_steps_of_an_execution_must_divide_those_that_were_made(path):
    train(path, after=[Stops(4)])
    model = make_model()
    model.steps_per_execution = 3
    with pytest.raises(ValueError, match=r"divides 4.*steps_per_execution=3"):
        train(path, model)


def test_other_data_are_resumed_from_the_beginning_of_an_epoch(path, capsys):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 11

        def __getitem__(self, index):
            part = slice(index * 30, (index + 1) * 30)
            return IMAGES[part], LABELS[part]

    kwargs = {"known": False, "freq": 2}
    whole = train(path.with_name("whole.npz"), data=Batches(), **kwargs)
    stops = Stops(17)
    assert train(path, data=Batches(), after=[stops], **kwargs) is None
    resumed = train(path, data=Batches(), **kwargs)
    np.testing.assert_equal(resumed, whole)
    assert "goes on in epoch 2, after 11 steps" in capsys.readouterr().out


@needs_tensorflow
def test_images_of_a_directory_are_resumed_from_the_beginning_of_an_epoch(
    path, tmp_path
):
    for index, label in enumerate(LABELS):
        file = tmp_path / "data" / str(label) / f"{index:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        imsave(file, IMAGES[index, ..., 0], cmap="gray", vmin=0, vmax=255)

    def data():
        return keras.utils.image_dataset_from_directory(
            tmp_path / "data",
            color_mode="grayscale",
            image_size=(12, 12),
            batch_size=30,
            shuffle=False,
            verbose=False,
        )

    kwargs = {"known": False, "freq": 2}
    whole = train(path.with_name("whole.npz"), data=data(), **kwargs)
    assert train(path, data=data(), after=[Stops(17)], **kwargs) is None
    assert read_arrays(path)[1]["step"] == 11
    np.testing.assert_equal(train(path, data=data(), **kwargs), whole)


@needs_tensorflow
def test_a_finished_training_says_so_and_trains_nothing(path, capsys):
    whole = train(path)
    assert is_finished(path)
    before = path.read_bytes()
    model = make_model()
    np.testing.assert_equal(train(path, model), whole)
    assert "the training finished, after 33 steps" in capsys.readouterr().out
    assert path.read_bytes() == before
    # Nothing of it is left in the model.
    history = model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    assert history.epoch == [0, 1]


@needs_tensorflow
def test_a_finished_training_goes_on_when_there_are_more_epochs(path):
    whole = train(path.with_name("whole.npz"), epochs=4)
    train(path, epochs=2)
    more = train(path, epochs=4, verbose=0)
    # It was evaluated at its end, which one in one go has not at step 22.
    assert 22 in more["held out"]["step"]
    for name in ("weights", "optimizer", "history", "epochs"):
        np.testing.assert_equal(more[name], whole[name])


@needs_tensorflow
def test_callbacks_that_are_given_go_on_too(path):
    def stopping():
        return keras.callbacks.EarlyStopping(
            "loss", patience=2, min_delta=100, restore_best_weights=True
        )

    whole = train(path.with_name("whole.npz"), epochs=9, callbacks=[stopping()])
    assert whole["epochs"] == [0, 1, 2]
    kwargs = {"epochs": 9, "verbose": 0}
    train(path, callbacks=[stopping()], after=[Stops(30)], **kwargs)
    for _ in range(2):
        # The second time it has stopped already.
        resumed = train(path, callbacks=[stopping()], **kwargs)
        np.testing.assert_equal(resumed, whole)


@needs_tensorflow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "data.seed: 7 saved, 8 now"),
        ({"batch_size": 31}, "data.batch_size: 30 saved, 31 now"),
        (
            {"augment": RandomDistortion(shift=2)},
            "data.augment.1.shift: 1 saved, 2 now",
        ),
        ({"augment": None}, "data.augment.0: 'RandomDistortion' saved"),
        ({"data": (255 - IMAGES, LABELS)}, "data.arrays.0: .* saved"),
        ({"data": (IMAGES, 2 - LABELS)}, "data.arrays.1: .* saved"),
        ({"units": 4}, r"model\..*units: 3 saved, 4 now"),
        ({"optimizer": "sgd"}, "compile.optimizer.*: 'Adam' saved, 'SGD' now"),
        ({"optimizer": keras.optimizers.Adam(0.5)}, "learning_rate: .*, 0.5"),
        ({"known": False}, "data.seed: 7 saved, None now"),
    ],
)
def test_a_state_of_another_training_is_refused(change, message, path):
    given = {"augment": RandomDistortion(shift=1)}
    train(path, after=[Stops(3)], **given)
    of_model = {
        name: change.pop(name)
        for name in ("units", "optimizer")
        if name in change
    }
    model = make_model(**of_model)
    before = path.read_bytes(), arrays(model.variables)
    with pytest.raises(ValueError, match=message):
        train(path, model, **given | change)
    np.testing.assert_equal(
        (path.read_bytes(), arrays(model.variables)), before
    )


@needs_tensorflow
def test_state_that_is_not_finite_never_replaces_one_that_is(path):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                weight = self.model.weights[0]
                weight.assign(np.full(weight.shape, np.nan))

    with pytest.warns(RuntimeWarning, match="22 steps trainable/0.*not finite"):
        train(path, callbacks=[Breaks()], freq=11)
    assert read_arrays(path)[1]["step"] == 11


@needs_tensorflow
def test_it_saves_and_ends_when_it_is_asked_to(path):
    class Asks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                resumable.interrupt()

    data = datasets.image_dataset_from_array(IMAGES, LABELS, 30)
    resumable = ResumableTraining(path, data, verbose=0)
    model = make_model()
    with pytest.raises(KeyboardInterrupt, match="after 5 steps"):
        model.fit(data, callbacks=[Asks(), resumable], verbose=0, shuffle=False)
    assert not is_finished(path)
    assert read_arrays(path)[1]["step"] == 5


@needs_tensorflow
def test_a_failing_disk_costs_one_warning_and_no_state(path, monkeypatch):
    whole = train(path.with_name("whole.npz"))
    train(path, after=[Stops(5)])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails)
        with pytest.warns(RuntimeWarning, match="disk full") as warned:
            resumed = train(path, verbose=0)
    assert len([w for w in warned if "Resumable" in str(w.message)]) == 1
    assert path.read_bytes() == before
    for name in ("weights", "history", "held out"):
        np.testing.assert_equal(resumed[name], whole[name])


def fails(*_):
    raise OSError(28, "disk full")


@needs_tensorflow
def test_an_error_in_saving_ends_the_training_when_asked_for(path, monkeypatch):
    monkeypatch.setattr(
        "keras_lenet.callbacks.resumable_training.write_arrays", fails
    )
    with pytest.raises(OSError, match="disk full"):
        train(path, strict=True)


@pytest.mark.parametrize("before", [False, True])
def test_it_must_be_the_last_callback(before, path):
    held_out = HeldOutEvaluation((IMAGES, LABELS))
    stopping = keras.callbacks.EarlyStopping("loss")
    resumable = ResumableTraining(path, callbacks=[stopping])
    callbacks = [stopping, resumable, held_out]
    if before:
        callbacks = [held_out, resumable, stopping]
    with pytest.raises(ValueError, match="must be the last"):
        make_model().fit(IMAGES, LABELS, callbacks=callbacks, verbose=0)
    assert not path.exists()


@needs_tensorflow
def test_files_of_others_are_left_alone(path):
    names = [".training.notes-new.npz", "training.npz.bak", ".training.1.npz"]
    for name in names:
        path.with_name(name).write_text("mine")
    train(path)
    for name in names:
        assert path.with_name(name).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filepath": "no/such/folder.npz"}, "`filepath`.*no/such/folder.npz"),
        ({"filepath": "."}, "`filepath` must be a file"),
        ({"filepath": "training.json"}, "ends in .npz"),
        ({"dataset": [1]}, "`dataset` must be what `image_dataset_from"),
        ({"callbacks": ["early"]}, "`callbacks`.*'early'"),
        ({"freq": 0}, "`freq`.*freq=0"),
    ],
)
def test_resumable_training_rejects(arguments, message, path):
    with pytest.raises(ValueError, match=message):
        ResumableTraining(**{"filepath": path} | arguments)


@needs_tensorflow
def test_a_dataset_that_was_changed_is_refused(path):
    data = datasets.image_dataset_from_array(IMAGES, LABELS)
    with pytest.raises(ValueError, match="before any change"):
        ResumableTraining(path, data.take(3))


def test_a_damaged_state_is_refused_by_name(path):
    path.write_bytes(b"PK")
    model = make_model()
    with pytest.raises(FileFormatError, match=r"training.npz: expected"):
        model.fit(IMAGES, LABELS, callbacks=[ResumableTraining(path)])
    write_arrays(path, {}, {})
    with pytest.raises(FileFormatError, match="something else"):
        model.fit(IMAGES, LABELS, callbacks=[ResumableTraining(path)])


# The best model


class Logs(keras.callbacks.Callback):
    """Gives values to monitor."""

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


def test_the_best_model_is_kept_through_restarts(tmp_path, capsys):
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
def test_what_is_better_is_known_by_the_name_or_given(
    monitor, mode, better, tmp_path
):
    best = BestModelCheckpoint(tmp_path / "a.keras", monitor, mode)
    best.set_model(make_model())
    for value in (2.0, 3.0, 1.0):
        best.on_epoch_end(0, {monitor: value})
    assert best.best == better


def fit_monitored(best, *callbacks, **kwargs):
    """Trains 3 epochs of 11 steps; returns what is warned of."""
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


def test_a_value_that_is_never_there_is_warned_of_once(tmp_path):
    held_out = HeldOutEvaluation((IMAGES, LABELS), "epoch")
    best = BestModelCheckpoint(tmp_path / "a.keras", "val_acc", mode="max")
    (message,) = fit_monitored(best, held_out, best)
    assert message == (
        "Can save best model only with val_acc available. No model is saved "
        "in epoch 1. Available metrics are: accuracy, loss, val_loss, "
        "val_accuracy. Did you mean 'val_accuracy'?"
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


def test_a_value_that_a_later_callback_gives_is_said_to_come_too_late(tmp_path):
    best = BestModelCheckpoint(tmp_path / "a.keras")
    held_out = HeldOutEvaluation((IMAGES, LABELS), "epoch")
    (message,) = fit_monitored(best, best, held_out)
    assert "`HeldOutEvaluation` must come before" in message
    assert best.best is None
    # Of the validation of `fit` there are values for all.
    validation = {"validation_data": (IMAGES, LABELS)}
    assert fit_monitored(best, best, held_out, **validation) == []
    assert best.best is not None


def test_an_epoch_without_an_evaluation_is_warned_of(tmp_path):
    best = BestModelCheckpoint(tmp_path / "a.keras")
    held_out = HeldOutEvaluation((IMAGES, LABELS), 15)
    (message,) = fit_monitored(best, held_out, best)
    assert "no evaluation in this epoch, with freq=15." in message
    assert best.best == min(held_out.history["val_loss"])


def test_the_file_of_the_best_model_is_no_template(tmp_path):
    for name in (
        "{epoch}.keras",
        "{val_loss:.2f}.keras",
        "{}.keras",
        "{.keras",
    ):
        with pytest.raises(
            ValueError, match=r"must be one file.*ModelCheckpoint`"
        ) as raised:
            BestModelCheckpoint(tmp_path / name)
        assert name in str(raised.value)
    fit(make_model(), BestModelCheckpoint(tmp_path / "{{a}}.keras"), 1.0)
    assert (tmp_path / "{a}.keras").exists()


def test_a_model_that_something_else_saved_is_never_replaced(tmp_path):
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
def test_a_model_that_is_not_finite_is_never_the_best(value, tmp_path):
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
def test_a_best_model_that_cannot_be_saved_is_tried_again(
    strict, tmp_path, monkeypatch
):
    path = tmp_path / "best.keras"
    best = BestModelCheckpoint(path, strict=strict)
    model = make_model()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails)
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


def test_a_lenet5_saved_as_the_best_loads_safely(tmp_path, generator):
    from keras_lenet.saving import load_model

    model = LeNet5(3, (12, 12, 1))
    compile_(model)
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
