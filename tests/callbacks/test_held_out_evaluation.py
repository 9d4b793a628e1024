import csv
import functools
import random
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from matplotlib.image import imread, imsave

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    LeNet5,
    SamplePredictions,
)
from tests.helpers import (
    BACKEND,
    HAS_TENSORFLOW,
    needs_tensorflow,
    on_default_backend,
)

# Keras refuses more than one step per execution on PyTorch.
STEPS_PER_EXECUTION = [1] if BACKEND == "torch" else [1, 3]


GENERATOR = np.random.default_rng(98)
DATA = (
    GENERATOR.integers(0, 256, (120, 12, 12, 1)).astype("uint8"),
    GENERATOR.integers(0, 3, 120),
)


@pytest.fixture
def data():
    return DATA


def make_model(steps_per_execution=1, layers=()):
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            *layers,
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def train(
    data, callbacks, steps_per_execution=1, epochs=2, layers=(), **kwargs
):
    """Trains 8 steps an epoch; returns everything a run can be told by."""
    keras.utils.set_random_seed(1)
    model = make_model(steps_per_execution, layers)
    if isinstance(data, tuple):
        kwargs |= {"x": data[0], "y": data[1], "batch_size": 16}
    else:
        kwargs |= {"x": data, "shuffle": False}
    history = model.fit(
        epochs=epochs, verbose=0, callbacks=callbacks, **kwargs
    ).history
    variables = [*model.weights, *model.optimizer.variables]
    state = [keras.ops.convert_to_numpy(v) for v in variables]
    after = [random.random(), np.random.rand()]  # noqa: NPY002
    if BACKEND == "torch":
        import torch

        after.append(torch.rand(()).item())
    return state, history, after


@functools.cache
def undisturbed(steps_per_execution=1):
    """The same run without callbacks."""
    return train(DATA, [], steps_per_execution)


def assert_same_run(run, other):
    for value, same in zip(run[0], other[0], strict=True):
        np.testing.assert_array_equal(value, same)
    for name, values in run[1].items():
        assert values == other[1][name], name
    assert run[2] == other[2]


def predictions_callback(data, folder, **kwargs):
    kwargs = {"filepath": folder / "{epoch}-{step}.png"} | kwargs
    return SamplePredictions(data[0][:4], data[1][:4], **kwargs)


class DrawsAtRandom(keras.utils.PyDataset):
    """A held-out set that uses every global random state there is."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return 2

    def __getitem__(self, index):
        random.random()
        np.random.rand()  # noqa: NPY002
        if BACKEND == "torch":
            import torch

            torch.rand(())
        return self.data


# The run is undisturbed


@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
@pytest.mark.parametrize("freq", [3, "epoch"])
def test_callbacks_leave_a_run_bit_for_bit_as_it_is(
    steps_per_execution, freq, data, tmp_path
):
    held_out = HeldOutEvaluation(
        data, freq, sample_size=40, at_start=True, at_end=True
    )
    callbacks = [held_out, predictions_callback(data, tmp_path, freq=freq)]
    assert_same_run(
        undisturbed(steps_per_execution),
        train(data, callbacks, steps_per_execution),
    )
    assert len(held_out.history["step"]) > 2
    assert len(list(tmp_path.iterdir())) >= 2


def test_callbacks_leave_a_run_with_validation_as_it_is(data, tmp_path):
    callbacks = [
        HeldOutEvaluation(data, 3),
        predictions_callback(data, tmp_path, freq=3),
    ]
    assert_same_run(
        train(data, [], validation_data=data),
        train(data, callbacks, validation_data=data),
    )


def test_data_that_draw_at_random_leave_a_run_as_it_is(data):
    held_out = HeldOutEvaluation(DrawsAtRandom(data), 3)
    assert_same_run(undisturbed(), train(data, [held_out]))


def test_layers_that_draw_at_random_in_inference_leave_a_run_as_it_is(data):
    class AlwaysNoisy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(3)

        def call(self, inputs):
            shape = keras.ops.shape(inputs)
            return inputs + keras.random.normal(shape, seed=self.generator)

    held_out = HeldOutEvaluation(data, 3, sample_size=50)
    assert_same_run(
        train(data, [], layers=[AlwaysNoisy()]),
        train(data, [held_out], layers=[AlwaysNoisy()]),
    )


def test_building_inside_an_evaluation_draws_what_training_would(data):
    class DrawsInBuild(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight((shape[-1], 3), "glorot_uniform")

        def call(self, inputs):
            return keras.ops.matmul(inputs / 255, self.kernel)

    def random_after(callbacks):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.layers.Flatten(), DrawsInBuild()])
        model.compile("adam", "mse")
        targets = np.eye(3)[data[1]]
        model.fit(data[0], targets, verbose=0, callbacks=callbacks)
        return random.random()

    held_out = HeldOutEvaluation((data[0], np.eye(3)[data[1]]), at_start=True)
    assert random_after([]) == random_after([held_out])


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's modes")
def test_layers_that_ask_torch_for_their_mode_are_told_inference(data):
    modes = []

    class AsksForMode(keras.layers.Layer):
        def call(self, inputs):
            modes.append(self.training)
            return inputs

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.asks, self.dense = AsksForMode(), keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(self.asks(keras.ops.reshape(inputs, (-1, 144))))

    model = Model()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    model(data[0])
    del modes[:]
    held_out = HeldOutEvaluation(data, 2)
    model.fit(*data, batch_size=16, verbose=0, callbacks=[held_out])
    # Two steps, one evaluation, and so on.
    assert modes[-12:] == [True, True, False] * 4


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's modes")
def test_layers_keep_their_mode_on_torch(data):
    model = make_model()
    model.layers[0].eval()
    modes = []

    class Modes(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            modes.append([m.training for m in self.model.modules()])

    held_out = HeldOutEvaluation(data, 1)
    model.fit(*data, verbose=0, callbacks=[Modes(), held_out, Modes()])
    assert modes[0::2] == modes[1::2]
    assert any(modes[-1])


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled")
@pytest.mark.parametrize("sample_size", [None, 50])
def test_the_model_is_compiled_once_for_all_evaluations(sample_size, data):
    traces = []

    class Counts(keras.layers.Layer):
        def call(self, inputs, training=False):
            if not training:
                traces.append(inputs.shape)
            return inputs

    keras.utils.set_random_seed(1)
    model = make_model(layers=[Counts()])
    del traces[:]
    held_out = HeldOutEvaluation(data, 1, sample_size=sample_size)
    model.fit(*data, epochs=1, batch_size=16, verbose=0, callbacks=[held_out])
    once = len(traces)
    model.fit(*data, epochs=2, batch_size=16, verbose=0, callbacks=[held_out])
    assert len(traces) == once <= 2


@pytest.mark.skipif(
    BACKEND == "tensorflow", reason="Keras always waits on TensorFlow"
)
def test_keras_need_not_wait_for_every_batch(data, tmp_path):
    callbacks = [HeldOutEvaluation(data), predictions_callback(data, tmp_path)]
    for callback in callbacks:
        assert keras.callbacks.CallbackList([callback])._async_train


# What is evaluated, and when


@pytest.mark.parametrize(
    ("steps_per_execution", "steps"),
    [(1, [5, 10, 15]), (3, [6, 11, 16])][: len(STEPS_PER_EXECUTION)],
)
def test_evaluations_come_at_the_first_chance_after_every_multiple_of_freq(
    steps_per_execution, steps, data
):
    # 8 steps an epoch: executions end at 3, 6, 8, 11, 14 and 16.
    held_out = HeldOutEvaluation(data, 5)
    train(data, [held_out], steps_per_execution)
    assert held_out.history["step"] == steps


@pytest.mark.parametrize(
    ("freq", "steps"), [(100, [0, 16]), (8, [0, 8, 16]), ("epoch", [0, 8, 16])]
)
def test_evaluations_at_start_and_end_are_made_once(freq, steps, data):
    held_out = HeldOutEvaluation(data, freq, at_start=True, at_end=True)
    train(data, [held_out])
    assert held_out.history["step"] == steps
    assert all(np.isnan(held_out.history[k][0]) for k in ("loss", "accuracy"))


@needs_tensorflow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("known", [True, False])
def test_steps_are_counted_when_the_length_of_the_data_is_not_known(
    known, data, tmp_path
):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    if not known:
        dataset = dataset.filter(lambda *_: True)
    held_out = HeldOutEvaluation(data, 4)
    pictures = predictions_callback(data, tmp_path, freq=4)
    assert_same_run(train(dataset, []), train(dataset, [held_out, pictures]))
    assert held_out.history["step"] == [4, 8, 12, 16]


@needs_tensorflow
@pytest.mark.skipif(BACKEND == "torch", reason="one step per execution only")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("kind", ["known", "unknown", "repeated"])
def test_steps_are_those_of_the_optimizer_with_several_per_execution(
    kind, data
):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(16)
    kwargs = {}
    if kind == "unknown":
        dataset = dataset.filter(lambda *_: True)
    if kind == "repeated":
        dataset, kwargs = dataset.repeat(), {"steps_per_epoch": 8}
    held_out = HeldOutEvaluation(data, "epoch")
    state, _, _ = train(dataset, [held_out], 3, **kwargs)
    iterations = next(v for v in state if v.dtype.kind == "i" and v.ndim == 0)
    assert held_out.history["step"] == [iterations // 2, iterations]


def test_steps_are_counted_when_training_stops_within_an_epoch(data):
    class StopsAt3(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    held_out = HeldOutEvaluation(data, 100, at_end=True)
    train(data, [held_out, StopsAt3()])
    assert held_out.history["step"] == [3]


def test_held_out_metrics_are_those_of_evaluate(data):
    x, y = data[0][:50], data[1][:50]
    weights = np.linspace(0, 2, 50, dtype="float32")
    held_out = HeldOutEvaluation(
        {"all": (x, y), "weighted": (x, y, weights)}, "epoch", batch_size=16
    )
    model = make_model()
    model.fit(*data, batch_size=16, verbose=0, callbacks=[held_out])
    for name, arrays in (("all", (x, y)), ("weighted", (x, y, weights))):
        expected = model.evaluate(
            *arrays[:2],
            sample_weight=arrays[2] if len(arrays) == 3 else None,
            verbose=0,
            return_dict=True,
        )
        for metric, value in expected.items():
            np.testing.assert_allclose(
                held_out.history[f"val_{name}_{metric}"], [value], rtol=1e-5
            )


def test_training_metrics_are_averages_over_the_steps_between(data):
    """The averages of Keras since the epoch began, taken apart by hand."""
    means = []

    class RunningMeans(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            means.append([logs["loss"], logs["accuracy"]])

    # 8 batches an epoch: 7 of 16 samples and one of 8.
    held_out = HeldOutEvaluation(data, 3)
    train(data, [held_out, RunningMeans()])
    seen = np.array([16, 32, 48, 64, 80, 96, 112, 120])
    sums = np.array(means).reshape(2, 8, 2) * seen[:, np.newaxis]
    batches = np.diff(sums, axis=1, prepend=0).reshape(16, 2)
    sizes = np.tile(np.diff(seen, prepend=0), 2)
    assert held_out.history["step"] == [3, 6, 9, 12, 15]
    for i, metric in enumerate(("loss", "accuracy")):
        expected = [
            batches[a : a + 3, i].sum() / sizes[a : a + 3].sum()
            for a in (0, 3, 6, 9, 12)
        ]
        np.testing.assert_allclose(
            held_out.history[metric], expected, rtol=1e-4
        )


@pytest.mark.skipif(
    BACKEND == "torch", reason="the validation of `fit` changes the run there"
)
def test_training_metrics_are_the_same_with_the_validation_of_fit(data):
    histories = []
    for validation_data in (None, data):
        held_out = HeldOutEvaluation(data, 3, at_end=True)
        train(data, [held_out], validation_data=validation_data)
        histories.append(held_out.history)
    assert histories[0] == histories[1]


def test_samples_are_fresh_and_a_function_of_the_seed(data):
    # The model stays the same, so another loss is that of another sample.
    def losses(seed):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((12, 12, 1)), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        held_out = HeldOutEvaluation(data, 2, sample_size=30, seed=seed)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(*data, batch_size=16, verbose=0, callbacks=[held_out])
        return held_out.history["val_loss"]

    assert len(set(losses(1))) == 4
    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_a_sample_of_all_is_all(data):
    held_out = HeldOutEvaluation(
        {"all": data, "sample": data}, "epoch", sample_size=120
    )
    train(data, [held_out])
    np.testing.assert_allclose(
        held_out.history["val_all_loss"],
        held_out.history["val_sample_loss"],
        rtol=1e-5,
    )


class Batches:
    """The least that a dataset can be."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def datasets_of(data):
    x, y = data
    yield [(x[:70], y[:70]), (x[70:], y[70:])]
    yield Batches((x[:70], y[:70]), (x[70:], y[70:]))
    yield DrawsAtRandom(data)
    if HAS_TENSORFLOW:
        import tensorflow as tf

        yield tf.data.Dataset.from_tensor_slices(data).batch(50)
    if BACKEND == "torch":
        import torch

        tensors = [torch.from_numpy(array) for array in data]
        dataset = torch.utils.data.TensorDataset(*tensors)
        yield torch.utils.data.DataLoader(dataset, 50, shuffle=True)


def test_datasets_are_evaluated_like_arrays_without_disturbing(data):
    arrays = HeldOutEvaluation(data, 4)
    train(data, [arrays])
    for dataset in datasets_of(data):
        held_out = HeldOutEvaluation(dataset, 4)
        assert_same_run(undisturbed(), train(data, [held_out]))
        for name, values in arrays.history.items():
            np.testing.assert_allclose(
                held_out.history[name], values, rtol=1e-4, err_msg=str(dataset)
            )


def test_a_list_of_arrays_is_what_it_is_for_validation_data(data):
    x, y = data
    weights = np.linspace(0, 2, len(x), dtype="float32")
    arrays = HeldOutEvaluation(data, 4)
    train(data, [arrays])
    weighted = HeldOutEvaluation((x, y, weights), 4)
    train(data, [weighted])
    assert weighted.history["val_loss"] != arrays.history["val_loss"]
    for given, expected in (
        ([x, y], arrays),
        ([x, y, weights], weighted),
        # These are batches.
        ([(x[:50], y[:50]), (x[50:], y[50:])], arrays),
        ([[x[:50], y[:50]], [x[50:], y[50:]]], arrays),
        ([(x, y, weights)], weighted),
    ):
        held_out = HeldOutEvaluation(given, 4)
        train(data, [held_out])
        np.testing.assert_allclose(
            held_out.history["val_loss"],
            expected.history["val_loss"],
            rtol=1e-4,
        )


def test_a_model_without_targets_is_evaluated_on_batches_without(data):
    class Reconstructs(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(144)

        def call(self, inputs):
            x = keras.ops.reshape(inputs, (-1, 144)) / 255
            self.add_loss(keras.ops.mean((self.dense(x) - x) ** 2))
            return x

    model = Reconstructs()
    model.compile("adam")
    held_out = HeldOutEvaluation([(data[0][:64],), (data[0][64:],)], "epoch")
    model.fit(data[0], verbose=0, callbacks=[held_out])
    assert len(held_out.history["val_loss"]) == 1
    assert held_out.history["val_loss"][0] > 0


@pytest.fixture
def directory(data, tmp_path):
    """A folder of images, one folder for each class."""
    folder = tmp_path / "data"
    for index, (image, label) in enumerate(zip(*data, strict=True)):
        path = folder / f"class {label}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, image[..., 0], cmap="gray", vmin=0, vmax=255)
    return folder


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("format", ["tf", "grain"])
@pytest.mark.parametrize("label_mode", ["int", "categorical"])
@needs_tensorflow
def test_callbacks_take_what_image_dataset_from_directory_returns(
    format, label_mode, directory, tmp_path, monkeypatch
):
    if format == "grain":
        pytest.importorskip("grain")
    dataset = keras.utils.image_dataset_from_directory(
        directory,
        label_mode=label_mode,
        color_mode="grayscale",
        image_size=(12, 12),
        batch_size=50,
        shuffle=False,
        format=format,
        verbose=False,
    )
    drawn = record_drawn(monkeypatch)
    held_out = HeldOutEvaluation(dataset, "epoch")
    pictures = SamplePredictions(dataset, filepath=tmp_path / "a.png")
    keras.utils.set_random_seed(1)
    model = make_model()
    prefix = "sparse_" if label_mode == "int" else ""
    model.compile(
        "adam", f"{prefix}categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        dataset,
        epochs=1,
        shuffle=False,
        verbose=0,
        callbacks=[held_out, pictures],
    )
    loss, accuracy = model.evaluate(dataset, verbose=0)
    np.testing.assert_allclose(held_out.history["val_loss"], [loss], rtol=1e-4)
    np.testing.assert_allclose(
        held_out.history["val_accuracy"], [accuracy], rtol=1e-4
    )

    images, labels, outputs, names = drawn[-1]
    files = sorted(directory.glob("*/*"))[:16]
    expected = np.stack([imread(path)[..., :1] * 255 for path in files])
    np.testing.assert_allclose(images, expected, atol=0.01)
    assert [names[label] for label in labels] == [p.parent.name for p in files]
    # The model is given the floats that it was trained on.
    expected = model.predict(dataset, verbose=0)[:16]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


def record_drawn(monkeypatch):
    """Returns a list of what `plot_predictions` is called with."""
    from keras_lenet import plots

    drawn = []
    original = plots.plot_predictions

    def plot_predictions(*args):
        drawn.append(args)
        return original(*args)

    monkeypatch.setattr(plots, "plot_predictions", plot_predictions)
    return drawn


# Where results go


def test_results_reach_history_and_callbacks_that_monitor(data, tmp_path):
    path = tmp_path / "best.keras"
    callbacks = [
        HeldOutEvaluation(data, 4),
        keras.callbacks.EarlyStopping(
            monitor="val_accuracy", patience=0, min_delta=1.1
        ),
        keras.callbacks.ModelCheckpoint(path, monitor="val_loss"),
    ]
    _, history, _ = train(data, callbacks, epochs=5)
    held_out = callbacks[0].history
    assert len(history["loss"]) == 2
    assert history["val_loss"] == held_out["val_loss"][1::2]
    assert history["val_accuracy"] == held_out["val_accuracy"][1::2]
    assert path.exists()


def test_results_are_missing_in_epochs_without_an_evaluation(data):
    held_out = HeldOutEvaluation(data, 12)
    _, history, _ = train(data, [held_out], epochs=4)
    assert held_out.history["step"] == [12, 24]
    assert history["val_loss"] == held_out.history["val_loss"]
    assert len(history["loss"]) == 4


def test_the_validation_of_fit_keeps_its_names(data):
    x, y = data[0][:16], data[1][:16]
    _, history, _ = train(
        data, [HeldOutEvaluation(data, 4)], validation_data=(x, y)
    )
    _, alone, _ = train(data, [], validation_data=(x, y))
    assert history == alone


def test_evaluations_are_written_to_a_csv_file_as_they_come(data, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("of an earlier training")
    lengths = []

    class Reads(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            lengths.append(len(path.read_text().splitlines()))

    held_out = HeldOutEvaluation(data, 4, filename=path)
    train(data, [held_out, Reads()])
    assert lengths == [3, 5]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, values in held_out.history.items():
        assert [float(row[name]) for row in rows] == values


def test_a_line_is_printed_at_every_evaluation_if_asked(data, capsys):
    train(data, [HeldOutEvaluation(data, 8)])
    assert capsys.readouterr().out == ""
    held_out = HeldOutEvaluation(data, 8, verbose=1)
    train(data, [held_out])
    first, _ = capsys.readouterr().out.splitlines()
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    values = {name: held_out.history[name][0] for name in names}
    assert first == "step 8: " + ", ".join(
        f"{name} {value:.4f}" for name, value in values.items()
    )


class Screen:
    """A terminal of few rows, and all lines that were ever on it."""

    def __init__(self, rows=6, columns=130):
        self.rows, self.columns = rows, columns
        self.row = self.column = 0
        self.lines = [""]

    def isatty(self):
        return True

    def flush(self):
        pass

    def write(self, text):
        for part in re.findall(r"\x1b\[\d*[A-Za-z]|.", text, re.DOTALL):
            getattr(self, f"_{NAMES.get(part[-1:], 'put')}")(part)

    @property
    def _top(self):
        return max(0, len(self.lines) - self.rows)

    def _feed(self, part):
        self.row += 1
        self.column = 0
        if self.row == len(self.lines):
            self.lines.append("")

    def _up_or_letter(self, part):
        if len(part) == 1:
            return self._put(part)
        self.row = max(self._top, self.row - 1)

    def _insert_or_letter(self, part):
        if len(part) == 1:
            return self._put(part)
        # What is below the last row is lost.
        full = len(self.lines) - self._top == self.rows
        self.lines.insert(self.row, "")
        if full:
            self.lines.pop()

    def _color_or_letter(self, part):
        if len(part) == 1:
            self._put(part)

    def _return(self, part):
        self.column = 0

    def _back(self, part):
        self.column = max(0, self.column - 1)

    def _put(self, part):
        if self.column == self.columns:
            self._feed(part)
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = (
            line[: self.column] + part + line[self.column + 1 :]
        )
        self.column += 1


NAMES = {
    "\n": "feed",
    "\r": "return",
    "\b": "back",
    "A": "up_or_letter",
    "L": "insert_or_letter",
    "m": "color_or_letter",
}


def test_lines_of_evaluations_stand_above_the_progress_bar(data, monkeypatch):
    screen = Screen()
    bars = []

    class Looks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch > 4:
                bars.append([line for line in screen.lines if line][-1])

    held_out = HeldOutEvaluation(data, 4, verbose=1)
    model = make_model()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", screen)
        # `held_out` prints before the next step.
        model.fit(*data, batch_size=16, epochs=2, callbacks=[held_out, Looks()])
    lines = [line.split(":")[0].strip() for line in screen.lines]
    bar = re.compile(r"8/8 ━+ \d+s \S+/step - accuracy")
    assert [line for line in lines if not bar.match(line)] == [
        "Epoch 1/2",
        "step 4",
        "step 8",
        "Epoch 2/2",
        "step 12",
        "step 16",
        "",
    ]
    printed = [line for line in screen.lines if line.startswith("step ")]
    assert all("val_accuracy" in line for line in printed)
    assert bars and all(re.match(r" ?\d/8 ━", bar) for bar in bars)


def test_a_line_takes_the_place_of_the_progress_bar_in_a_notebook(data, capsys):
    held_out = HeldOutEvaluation(data, 4, verbose=1)
    make_model().fit(*data, batch_size=16, callbacks=[held_out])
    printed = capsys.readouterr().out
    before, after = printed.split("step 4: ")
    assert before[-1] == "\r"
    drawn = before[:-1].rpartition("\r")[2]
    assert len(drawn) > 80
    assert len(after.partition("\n")[0]) > len(drawn)


def test_history_starts_anew_with_every_training(data):
    held_out = HeldOutEvaluation(data, 8)
    for _ in range(2):
        train(data, [held_out], epochs=1)
        assert held_out.history["step"] == [8]


def test_an_interrupted_training_leaves_nothing_behind(data):
    class Interrupts(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 4:
                raise KeyboardInterrupt

    model = make_model()
    used, new = (HeldOutEvaluation(data, 3, at_start=True) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data, batch_size=16, callbacks=[used, Interrupts()])
    model.fit(*data, batch_size=16, verbose=0, callbacks=[used, new])
    np.testing.assert_equal(used.history, new.history)


# Pictures


@pytest.mark.parametrize(
    ("freq", "names"),
    [("epoch", ["1-8", "2-16"]), (6, ["1-6", "2-12"])],
)
def test_pictures_are_named_by_epoch_and_step(freq, names, data, tmp_path):
    train(data, [predictions_callback(data, tmp_path / "new", freq=freq)])
    found = sorted(path.stem for path in (tmp_path / "new").iterdir())
    assert found == names


def test_a_picture_shows_what_the_model_predicts(data, tmp_path, monkeypatch):
    drawn = record_drawn(monkeypatch)
    names = ["a", "b", "c"]
    callback = predictions_callback(data, tmp_path, class_names=names)
    model = make_model()
    model.fit(*data, verbose=0, callbacks=[callback])
    images, labels, outputs, class_names = drawn[-1]
    np.testing.assert_array_equal(images, data[0][:4])
    np.testing.assert_array_equal(labels, data[1][:4])
    expected = model.predict(data[0][:4], verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    assert class_names == names


def test_pictures_of_a_dataset_are_the_first_of_its_first_batch(data, tmp_path):
    binary = (data[1] > 0).astype("float32")[:, np.newaxis]
    for count in (5, 40):
        batches = [(data[0][:count] * 1.0, binary[:count]), (data[0], None)]
        callback = SamplePredictions(batches, filepath=tmp_path / "a.png")
        drawn = min(count, 16)
        np.testing.assert_array_equal(callback.images, data[0][:drawn])
        np.testing.assert_array_equal(callback.labels, binary[:drawn, 0])


def test_looking_at_a_dataset_draws_no_random_numbers(data):
    def after():
        drawn = [random.random(), np.random.rand()]  # noqa: NPY002
        if BACKEND == "torch":
            import torch

            drawn.append(torch.rand(()).item())
        return drawn

    keras.utils.set_random_seed(1)
    expected = after()
    keras.utils.set_random_seed(1)
    SamplePredictions(DrawsAtRandom(data))
    assert after() == expected


def test_training_goes_on_with_one_warning_when_drawing_fails(data, tmp_path):
    (tmp_path / "file").write_text("")
    callback = predictions_callback(
        data, tmp_path, filepath=tmp_path / "file" / "x.png", freq=1
    )
    with pytest.warns(
        RuntimeWarning, match="SamplePredictions failed at"
    ) as warned:
        run = train(data, [callback])
    assert [w.category for w in warned].count(RuntimeWarning) == 1
    assert_same_run(undisturbed(), run)


def test_a_picture_is_replaced_whole_or_not_at_all(data, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def half(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    callback = predictions_callback(data, tmp_path, filepath=path)
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", half)
        with pytest.warns(RuntimeWarning, match="disk full"):
            train(data, [callback], epochs=1)
    assert path.read_bytes() == b"old"
    train(data, [callback], epochs=1)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == [path]


@on_default_backend
def test_pictures_never_use_pyplot(tmp_path):
    # Keras itself imports it where it can.
    code = """
import sys
sys.modules["matplotlib.pyplot"] = None
import numpy as np
from keras_lenet import LeNet5, SamplePredictions
model = LeNet5()
model.compile("adam", "sparse_categorical_crossentropy")
x = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("uint8")
y = np.arange(4)
model.fit(x, y, verbose=0, callbacks=[SamplePredictions(x, y)])
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "predictions-000001.png").exists()


# What is refused


X, Y = np.ones((4, 9, 9, 1), "uint8"), np.arange(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"freq": 0}, "`freq` must be a positive number.*freq=0"),
        ({"freq": 2.5}, "`freq`.*Received: freq=2.5"),
        ({"freq": "batch"}, "'epoch'. Received: freq='batch'"),
        ({"freq": True}, "Received: freq=True"),
        ({"sample_size": 0}, "`sample_size` must be a positive integer"),
        ({"sample_size": 5}, "sample_size=5 and 4 samples"),
        ({"batch_size": -1}, "`batch_size` must be a positive integer"),
        ({"seed": -1}, "`seed` must be an integer.*Received: seed=-1"),
        ({"seed": "98"}, "Received: seed='98'"),
        ({"data": (X, Y[:3])}, r"`data`.*same length.*\(4, 9, 9, 1\), \(3,\)"),
        ({"data": (X[:0], Y[:0])}, r"at least 1.*\(0,\)"),
        ({"data": (X,)}, "Received: 1 of the shapes"),
        ({"data": (X, [0, 1, 2, 3])}, r"arrays of the same.*\(\)"),
        ({"data": X[0, 0, 0, 0]}, r"Received: one array of shape \(\)"),
        ({"data": X}, r"\(x, y\).*one array of shape \(4, 9, 9, 1\)"),
        ({"data": "digits"}, "dataset that can be gone through"),
        ({"data": [X, Y[:3]]}, r"`data`.*same length.*\(4, 9, 9, 1\), \(3,\)"),
        ({"data": [X]}, "Received: 1 of the shapes"),
        ({"data": {"mine": [X, [0, 1, 2, 3]]}}, r"`data\['mine'\]`.*\(\)"),
        ({"filename": "."}, "`filename` must be a file"),
        ({"data": {}}, "`data` must not be empty"),
        ({"data": {"mine": (X, Y[:3])}}, r"`data\['mine'\]`"),
        ({"data": 3}, "dataset that can be gone through"),
        ({"data": iter([(X, Y)])}, "many times"),
        ({"data": Batches(), "sample_size": 2}, "needs `data` of arrays"),
        ({"filename": "no/such/folder.csv"}, "`filename`.*no/such/folder.csv"),
    ],
)
def test_held_out_evaluation_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeldOutEvaluation(**{"data": (X, Y), **arguments})


@needs_tensorflow
def test_held_out_evaluation_rejects_what_has_no_end():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors((X, Y)).repeat()
    with pytest.raises(ValueError, match=r"infinite dataset.*`repeat"):
        HeldOutEvaluation(dataset)
    single = tf.data.Dataset.from_tensor_slices((X, Y))
    with pytest.raises(ValueError, match=r"must yield batches.*`batch`"):
        HeldOutEvaluation(single)


def test_held_out_evaluation_says_that_there_was_nothing_to_evaluate(data):
    with pytest.warns(RuntimeWarning, match="at least one batch"):
        train(data, [HeldOutEvaluation(Batches(), 1)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"freq": 0}, "`freq` must be a positive number"),
        ({"labels": Y[:3]}, "4 images and 3 labels"),
        ({"images": X * 255.5}, r"in \[0, 255\].*from 255.5 to 255.5"),
        ({"images": X * -0.5}, r"in \[0, 1\]"),
        ({"images": X * 1.5, "labels": Y[:3]}, "4 images and 3 labels"),
        ({"labels": None}, "`labels` must be given.*type ndarray"),
        ({"labels": None, "images": iter([(X, Y)])}, "`labels` must be given"),
        ({"labels": None, "images": [X]}, r"batches `\(images, labels\)`"),
        ({"labels": None, "images": [(X[0], Y[0])]}, r"\[\(9, 9, 1\), \(\)\]"),
        ({"labels": None, "images": Batches()}, "first batch of the shapes"),
        ({"filepath": None}, "`filepath`.*no notebook runs.*filepath=None"),
        ({"class_names": ["a", "b"]}, "from 0 to 1. Received: 2"),
        ({"filepath": "{loss}.png"}, r"\{step\}.*Received: filepath"),
        ({"images": np.ones((4, 9, 9, 2), "uint8")}, "1 or 3 channels"),
        ({"filepath": "{step.foo}.png"}, r"Received: filepath"),
        ({"filepath": "{}.png"}, r"\{step\}.*Received: filepath"),
        ({"filepath": "{step:q}.png"}, "Received: filepath"),
    ],
)
def test_sample_predictions_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        SamplePredictions(**{"images": X, "labels": Y, **arguments})


# The order of callbacks


def monitoring(folder):
    keras_callbacks = keras.callbacks
    return [
        BestModelCheckpoint(folder / "best.keras"),
        keras_callbacks.EarlyStopping("val_accuracy"),
        keras_callbacks.ReduceLROnPlateau("val_loss"),
        keras_callbacks.ModelCheckpoint(
            folder / "b.keras", save_best_only=True
        ),
    ]


@functools.cache
def small_lenet5():
    model = LeNet5(3, (12, 12, 1))
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def test_lenet5_refuses_to_monitor_what_a_later_callback_evaluates(
    data, tmp_path
):
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


class GivesValues(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = logs["val_accuracy"] = 1.0


def test_lenet5_accepts_what_is_monitored_in_another_way(data, tmp_path):
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
    fit(GivesValues(), *monitoring(tmp_path), held_out())
    fit(
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda _, logs: GivesValues().on_epoch_end(0, logs)
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


def test_both_work_with_lenet5(digits, tmp_path):
    _, (x, y) = digits
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    held_out = HeldOutEvaluation((x, y), 2)
    pictures = SamplePredictions(x[:6], y[:6], filepath=tmp_path / "{step}.png")
    model.fit(x, y, batch_size=90, verbose=0, callbacks=[held_out, pictures])
    assert held_out.history["step"] == [2, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["4.png"]
