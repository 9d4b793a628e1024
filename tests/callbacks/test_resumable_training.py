import keras
import numpy as np
import pytest
from matplotlib.image import imsave

from keras_lenet import (
    HeldOutEvaluation,
    LeNet5,
    RandomDistortion,
    ResumableTraining,
    datasets,
)
from keras_lenet.callbacks.resumable_training import is_finished
from keras_lenet.files import FileFormatError
from keras_lenet.files.arrays import read_arrays, write_arrays
from tests.callbacks.helpers import (
    IMAGES,
    LABELS,
    Stops,
    are_same,
    compiled,
    fail_on_full_disk,
    make_model,
    values_of,
)
from tests.callbacks.helpers import train_resumable as train
from tests.helpers import BACKEND, needs_tensorflow


class StopsBetweenExecutions(Stops):
    """Lets `LeNet5` make several steps in one execution."""

    acts_only_at_freq = True
    freq = "epoch"


def interrupt_and_resume(path, step, make=make_model, **kwargs):
    """Returns the results of an uninterrupted and a resumed run."""
    whole = train(path.with_name("whole.npz"), make, **kwargs)
    kwargs |= {"verbose": 0}
    stopped = train(path, make, after=[Stops(step)], **kwargs)
    assert stopped is None
    return whole, train(path, make, **kwargs)


@needs_tensorflow
@pytest.mark.parametrize("step", [0, 1, 11, 17])
def test_a_resumed_run_equals_an_uninterrupted_one(step, path, capsys):
    whole = train(path.with_name("whole.npz"))
    assert capsys.readouterr().out == ""
    assert train(path, after=[Stops(step)]) is None
    resumed = train(path)
    np.testing.assert_equal(resumed, whole)
    expected = f"epoch {step // 11 + 1}, after {step} steps" if step else ""
    assert expected in capsys.readouterr().out


@needs_tensorflow
def test_it_leaves_a_run_unchanged(path):
    def run(make_callbacks):
        keras.utils.set_random_seed(1)
        model = make_model()
        dataset = datasets.image_dataset_from_array(
            IMAGES, LABELS, 30, shuffle=True, seed=7
        )
        model.fit(
            dataset,
            epochs=2,
            shuffle=False,
            verbose=0,
            callbacks=make_callbacks(dataset),
        )
        return model.get_weights()

    without = run(lambda dataset: [])
    with_it = run(lambda dataset: [ResumableTraining(path, dataset, freq=4)])
    np.testing.assert_equal(with_it, without)


@needs_tensorflow
def test_a_repeated_dataset_is_resumed_in_epochs_of_any_length(path):
    # Epochs of 13 steps begin in the middle of the dataset's 11 batches, the
    # last of which is smaller.
    np.testing.assert_equal(*interrupt_and_resume(path, 30, repeat=13))


@needs_tensorflow
def test_augmentation_is_resumed(path):
    whole, resumed = interrupt_and_resume(path, 17, augment=RandomDistortion())
    np.testing.assert_equal(resumed, whole)
    assert not are_same(train(path.with_name("plain.npz")), whole)


@needs_tensorflow
def test_lenet5_resumes_with_several_steps_in_an_execution(path):
    def make():
        return compiled(LeNet5(3, (12, 12, 1)))

    whole = train(path.with_name("whole.npz"), make, freq=4)
    after = [StopsBetweenExecutions(4)]
    assert train(path, make, freq=4, after=after) is None
    np.testing.assert_equal(train(path, make, freq=4, verbose=0), whole)


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="one step per execution only")
def test_several_steps_per_execution_are_resumed(path):
    def make():
        return make_model(steps_per_execution=2)

    # The interrupt comes before the 8th execution.
    np.testing.assert_equal(*interrupt_and_resume(path, 7, make))


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="one step per execution only")
def test_steps_per_execution_must_divide_the_steps_made(path):
    train(path, after=[Stops(4)])
    model = make_model()
    model.steps_per_execution = 3
    with pytest.raises(ValueError, match=r"divides 4,.*steps_per_execution=3"):
        train(path, model)


def test_other_data_are_resumed_at_the_beginning_of_an_epoch(path, capsys):
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
    assert "resuming in epoch 2, after 11 steps" in capsys.readouterr().out


@needs_tensorflow
def test_images_of_a_directory_are_resumed_at_the_beginning_of_an_epoch(
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
def test_a_finished_run_is_reported_and_not_trained(path, capsys):
    whole = train(path)
    assert is_finished(path)
    before = path.read_bytes()
    model = make_model()
    np.testing.assert_equal(train(path, model), whole)
    assert f"{path}: finished, after 33 steps" in capsys.readouterr().out
    assert path.read_bytes() == before
    # The next `fit` of the model starts at the first epoch.
    history = model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    assert history.epoch == [0, 1]


@needs_tensorflow
def test_a_finished_run_continues_if_there_are_more_epochs(path):
    whole = train(path.with_name("whole.npz"), epochs=4)
    train(path, epochs=2)
    more = train(path, epochs=4, verbose=0)
    # `at_end` evaluates at step 22, where a single run is not at its end.
    assert 22 in more["held out"]["step"]
    for name in ("weights", "optimizer", "history", "epochs"):
        np.testing.assert_equal(more[name], whole[name])


@needs_tensorflow
def test_the_state_of_given_callbacks_is_resumed(path):
    def stopping():
        return keras.callbacks.EarlyStopping(
            "loss", patience=2, min_delta=100, restore_best_weights=True
        )

    whole = train(path.with_name("whole.npz"), epochs=9, callbacks=[stopping()])
    assert whole["epochs"] == [0, 1, 2]
    kwargs = {"epochs": 9, "verbose": 0}
    train(path, callbacks=[stopping()], after=[Stops(30)], **kwargs)
    for _ in range(2):
        # In the second iteration the run has already stopped.
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
        ({"known": False}, "data.seed: 7 saved, 'nothing' now"),
    ],
)
def test_the_state_of_another_run_is_rejected(change, message, path):
    given = {"augment": RandomDistortion(shift=1)}
    train(path, after=[Stops(3)], **given)
    model_arguments = {
        name: change.pop(name)
        for name in ("units", "optimizer")
        if name in change
    }
    model = make_model(**model_arguments)
    before = path.read_bytes(), values_of(model.variables)
    with pytest.raises(ValueError, match=message):
        train(path, model, **given | change)
    np.testing.assert_equal(
        (path.read_bytes(), values_of(model.variables)), before
    )


@needs_tensorflow
def test_other_callbacks_are_another_run(path):
    def plateau():
        return keras.callbacks.ReduceLROnPlateau(monitor="loss")

    stopping = keras.callbacks.EarlyStopping(monitor="loss")
    train(path, callbacks=[stopping], after=[Stops(3)])
    for callbacks in ([plateau()], [], [stopping, plateau()]):
        with pytest.raises(ValueError, match=r"callbacks\.\d\..*'nothing'"):
            train(path, callbacks=callbacks)


@needs_tensorflow
def test_given_callbacks_see_each_step_once(path):
    class Counts(keras.callbacks.Callback):
        begun = ended = 0

        def on_train_batch_begin(self, batch, logs=None):
            self.begun += 1

        def on_train_batch_end(self, batch, logs=None):
            self.ended += 1

    files = path.with_name("{epoch}-{batch}.weights.h5")
    last = path.with_name("1-9.weights.h5")

    def callbacks():
        # Saves after the third, sixth and ninth step of an epoch.
        return Counts(), keras.callbacks.ModelCheckpoint(
            files, save_weights_only=True, save_freq=3
        )

    train(path, callbacks=callbacks(), after=[Stops(10)])
    assert last.is_file()
    for file in path.parent.glob("1-*.weights.h5"):
        file.write_bytes(b"of an earlier step")
    counts, checkpoint = callbacks()
    train(path, callbacks=[counts, checkpoint])
    assert counts.begun == counts.ended == 33
    assert last.read_bytes() == b"of an earlier step"
    assert path.with_name("2-1.weights.h5").is_file()


@needs_tensorflow
def test_a_given_callback_keeps_hooks_of_its_own(path):
    def run(seen, **kwargs):
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(batch)
        )
        train(path, callbacks=[callback], epochs=2, **kwargs)
        return seen

    before = run([], after=[Stops(5)])
    assert before + run([]) == 2 * list(range(11))


class Shares(keras.metrics.Metric):
    """Sums the outputs of each of three classes."""

    def __init__(self):
        super().__init__(name="shares")
        self.total = self.add_weight((3,), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(keras.ops.sum(y_pred, axis=0))

    def result(self):
        return 1 * self.total


@needs_tensorflow
def test_metrics_with_a_value_for_each_class_are_resumed(path):
    def make():
        model = make_model()
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, metrics=[Shares()])
        return model

    whole, resumed = interrupt_and_resume(path, 5, make)
    assert np.shape(whole["history"]["shares"]) == (3, 3)
    np.testing.assert_equal(resumed, whole)


@needs_tensorflow
def test_accumulated_steps_count_as_steps(path):
    def make():
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        return make_model(1 if BACKEND == "torch" else 4, optimizer=optimizer)

    result = train(path, make)
    assert read_arrays(path)[1]["step"] == 33
    assert result is not None


@needs_tensorflow
def test_best_weights_in_bfloat16_are_resumed(path):
    def make():
        keras.config.set_dtype_policy("bfloat16")
        try:
            return make_model()
        finally:
            keras.config.set_dtype_policy("float32")

    def stopping():
        return keras.callbacks.EarlyStopping(
            monitor="loss", restore_best_weights=True
        )

    train(path, make, callbacks=[stopping()], after=[Stops(12)], epochs=2)
    assert train(path, make, callbacks=[stopping()], epochs=2) is not None


@needs_tensorflow
def test_an_interrupt_before_the_first_step_counts(path):
    class Interrupts(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            resumable.interrupt()

    data = datasets.image_dataset_from_array(IMAGES, LABELS, 30)
    resumable = ResumableTraining(path, data, verbose=0)
    kwargs = {"verbose": 0, "shuffle": False}
    model = make_model()
    with pytest.raises(KeyboardInterrupt, match="after 0 steps"):
        model.fit(data, callbacks=[Interrupts(), resumable], **kwargs)
    model.fit(data, callbacks=[resumable], **kwargs)
    assert is_finished(path)


@needs_tensorflow
def test_a_non_finite_state_is_never_saved(path):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                weight = self.model.weights[0]
                weight.assign(np.full(weight.shape, np.nan))

    with pytest.warns(RuntimeWarning, match="22 steps trainable/0.*not finite"):
        train(path, callbacks=[Breaks()], freq=11)
    assert read_arrays(path)[1]["step"] == 11


@needs_tensorflow
def test_interrupt_saves_and_ends_the_run(path):
    class Interrupts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                resumable.interrupt()

    data = datasets.image_dataset_from_array(IMAGES, LABELS, 30)
    resumable = ResumableTraining(path, data, verbose=0)
    model = make_model()
    with pytest.raises(KeyboardInterrupt, match="after 5 steps"):
        model.fit(
            data, callbacks=[Interrupts(), resumable], verbose=0, shuffle=False
        )
    assert not is_finished(path)
    assert read_arrays(path)[1]["step"] == 5


@needs_tensorflow
def test_a_full_disk_causes_one_warning_and_keeps_the_file(path, monkeypatch):
    whole = train(path.with_name("whole.npz"))
    train(path, after=[Stops(5)])
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail_on_full_disk)
        with pytest.warns(RuntimeWarning, match="disk full") as warned:
            resumed = train(path, verbose=0)
    assert len([w for w in warned if "Resumable" in str(w.message)]) == 1
    assert path.read_bytes() == before
    for name in ("weights", "history", "held out"):
        np.testing.assert_equal(resumed[name], whole[name])


@needs_tensorflow
def test_strict_raises_errors_in_saving(path, monkeypatch):
    monkeypatch.setattr(
        "keras_lenet.callbacks.resumable_training.write_arrays",
        fail_on_full_disk,
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
def test_files_with_similar_names_are_left_alone(path):
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
def test_a_changed_dataset_is_rejected(path):
    data = datasets.image_dataset_from_array(IMAGES, LABELS)
    with pytest.raises(ValueError, match="before any change"):
        ResumableTraining(path, data.take(3))


def test_a_damaged_file_is_rejected_with_its_name(path):
    path.write_bytes(b"PK")
    model = make_model()
    with pytest.raises(FileFormatError, match=r"training.npz: expected"):
        model.fit(IMAGES, LABELS, callbacks=[ResumableTraining(path)])
    write_arrays(path, {}, {})
    with pytest.raises(FileFormatError, match="something else"):
        model.fit(IMAGES, LABELS, callbacks=[ResumableTraining(path)])
