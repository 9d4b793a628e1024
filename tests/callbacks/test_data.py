import keras
import numpy as np
import pytest
from matplotlib.image import imread, imsave

from keras_lenet import HeldOutEvaluation, SamplePredictions
from tests.callbacks.helpers import (
    Batches,
    DrawsAtRandom,
    assert_same_run,
    make_model,
    record_drawn,
    train,
    undisturbed,
)
from tests.helpers import BACKEND, HAS_TENSORFLOW, needs_tensorflow


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


def test_datasets_are_evaluated_like_arrays_and_leave_the_run_unchanged(data):
    arrays = HeldOutEvaluation(data, 4)
    train(data, [arrays])
    for dataset in datasets_of(data):
        held_out = HeldOutEvaluation(dataset, 4)
        assert_same_run(undisturbed(), train(data, [held_out]))
        for name, values in arrays.history.items():
            np.testing.assert_allclose(
                held_out.history[name], values, rtol=1e-4, err_msg=str(dataset)
            )


def test_a_list_of_arrays_means_the_same_as_in_validation_data(data):
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
        # These lists are datasets of batches.
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


def test_batches_without_targets_are_evaluated(data):
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
    """Returns a folder of images, with one folder for each class."""
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
def test_callbacks_accept_image_dataset_from_directory(
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
    # The model receives the floats that it was trained on.
    expected = model.predict(dataset, verbose=0)[:16]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


@needs_tensorflow
def test_infinite_datasets_and_datasets_of_single_samples_are_rejected(data):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(data).repeat()
    with pytest.raises(ValueError, match=r"infinite dataset.*`repeat"):
        HeldOutEvaluation(dataset)
    single = tf.data.Dataset.from_tensor_slices(data)
    with pytest.raises(ValueError, match=r"must yield batches.*`batch`"):
        HeldOutEvaluation(single)


def test_an_empty_dataset_is_warned_about(data):
    with pytest.warns(RuntimeWarning, match="at least one batch"):
        train(data, [HeldOutEvaluation(Batches(), 1)])
