import csv

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, LeNet5, SamplePredictions
from tests.callbacks.helpers import Batches, compiled, make_model, train
from tests.helpers import BACKEND


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


@pytest.mark.parametrize(
    ("freq", "steps"), [(100, [0, 16]), (8, [0, 8, 16]), ("epoch", [0, 8, 16])]
)
def test_evaluations_at_start_and_end_run_once(freq, steps, data):
    held_out = HeldOutEvaluation(data, freq, at_start=True, at_end=True)
    train(data, [held_out])
    assert held_out.history["step"] == steps
    assert all(np.isnan(held_out.history[k][0]) for k in ("loss", "accuracy"))


def test_held_out_metrics_equal_those_of_evaluate(data):
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
    """Derives them by hand from Keras' averages since the epoch's beginning."""
    means = []

    class RunningMeans(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            means.append([logs["loss"], logs["accuracy"]])

    # An epoch has 8 batches: 7 of 16 samples and one of 8.
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
def test_the_validation_of_fit_leaves_training_metrics_unchanged(data):
    histories = []
    for validation_data in (None, data):
        held_out = HeldOutEvaluation(data, 3, at_end=True)
        train(data, [held_out], validation_data=validation_data)
        histories.append(held_out.history)
    assert histories[0] == histories[1]


def test_every_evaluation_draws_a_sample_that_the_seed_determines(data):
    # The learning rate is 0, so the loss differs only if the sample does.
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


def test_a_sample_may_have_all_samples(data):
    held_out = HeldOutEvaluation(
        {"all": data, "sample": data}, "epoch", sample_size=120
    )
    train(data, [held_out])
    np.testing.assert_allclose(
        held_out.history["val_all_loss"],
        held_out.history["val_sample_loss"],
        rtol=1e-5,
    )


def test_results_reach_history_and_later_callbacks(data, tmp_path):
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


def test_the_validation_of_fit_takes_precedence_in_the_logs(data):
    x, y = data[0][:16], data[1][:16]
    _, history, _ = train(
        data, [HeldOutEvaluation(data, 4)], validation_data=(x, y)
    )
    _, alone, _ = train(data, [], validation_data=(x, y))
    assert history == alone


def test_every_evaluation_updates_the_csv_file(data, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("from an earlier run")
    lengths = []

    class ReadsFile(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            lengths.append(len(path.read_text().splitlines()))

    held_out = HeldOutEvaluation(data, 4, filename=path)
    train(data, [held_out, ReadsFile()])
    assert lengths == [3, 5]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, values in held_out.history.items():
        assert [float(row[name]) for row in rows] == values


def test_history_starts_again_in_every_run(data):
    held_out = HeldOutEvaluation(data, 8)
    for _ in range(2):
        train(data, [held_out], epochs=1)
        assert held_out.history["step"] == [8]


def test_an_interrupted_run_does_not_affect_the_next(data):
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
        ({"data": (X,)}, "Received: a tuple of length 1, with shapes"),
        ({"data": (X, [0, 1, 2, 3])}, r"arrays of the same.*\(\)"),
        ({"data": X[0, 0, 0, 0]}, r"Received: one array of shape \(\)"),
        ({"data": X}, r"\(x, y\).*one array of shape \(4, 9, 9, 1\)"),
        ({"data": "digits"}, "dataset that can be iterated over"),
        ({"data": [X, Y[:3]]}, r"`data`.*same length.*\(4, 9, 9, 1\), \(3,\)"),
        ({"data": [X]}, "Received: a tuple of length 1, with shapes"),
        ({"data": {"mine": [X, [0, 1, 2, 3]]}}, r"`data\['mine'\]`.*\(\)"),
        ({"filename": "."}, "`filename` must be a file"),
        ({"data": {}}, "`data` must not be empty"),
        ({"data": {"mine": (X, Y[:3])}}, r"`data\['mine'\]`"),
        ({"data": 3}, "dataset that can be iterated over"),
        ({"data": iter([(X, Y)])}, "iterated over repeatedly"),
        ({"data": Batches(), "sample_size": 2}, "needs `data` of arrays"),
        ({"filename": "no/such/folder.csv"}, "`filename`.*no/such/folder.csv"),
    ],
)
def test_held_out_evaluation_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        HeldOutEvaluation(**{"data": (X, Y), **arguments})


def test_held_out_evaluation_and_sample_predictions_work_with_lenet5(
    digits, tmp_path
):
    _, (x, y) = digits
    model = compiled(LeNet5())
    held_out = HeldOutEvaluation((x, y), 2)
    pictures = SamplePredictions(x[:6], y[:6], filepath=tmp_path / "{step}.png")
    model.fit(x, y, batch_size=90, verbose=0, callbacks=[held_out, pictures])
    assert held_out.history["step"] == [2, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["4.png"]
