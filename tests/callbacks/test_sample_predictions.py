import numpy as np
import pytest

from keras_lenet import SamplePredictions
from tests.callbacks.helpers import (
    Batches,
    assert_same_run,
    make_model,
    predictions_callback,
    record_drawn,
    train,
    undisturbed,
)
from tests.helpers import on_default_backend, run_python


@pytest.mark.parametrize(
    ("freq", "names"),
    [("epoch", ["1-8", "2-16"]), (6, ["1-6", "2-12"])],
)
def test_filenames_have_the_epoch_and_the_step(freq, names, data, tmp_path):
    train(data, [predictions_callback(tmp_path / "new", freq=freq)])
    found = sorted(path.stem for path in (tmp_path / "new").iterdir())
    assert found == names


def test_a_picture_shows_the_predictions(data, tmp_path, monkeypatch):
    drawn = record_drawn(monkeypatch)
    names = ["a", "b", "c"]
    callback = predictions_callback(tmp_path, class_names=names)
    model = make_model()
    model.fit(*data, verbose=0, callbacks=[callback])
    images, labels, outputs, class_names = drawn[-1]
    np.testing.assert_array_equal(images, data[0][:4])
    np.testing.assert_array_equal(labels, data[1][:4])
    expected = model.predict(data[0][:4], verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    assert class_names == names


def test_the_first_images_of_a_dataset_are_drawn(data, tmp_path):
    binary = (data[1] > 0).astype("float32")[:, np.newaxis]
    for count in (5, 40):
        batches = [(data[0][:count] * 1.0, binary[:count]), (data[0], None)]
        callback = SamplePredictions(batches, filepath=tmp_path / "a.png")
        drawn = min(count, 16)
        np.testing.assert_array_equal(callback.images, data[0][:drawn])
        np.testing.assert_array_equal(callback.labels, binary[:drawn, 0])


def test_the_run_continues_with_one_warning_if_drawing_fails(data, tmp_path):
    (tmp_path / "file").write_text("")
    callback = predictions_callback(
        tmp_path, filepath=tmp_path / "file" / "x.png", freq=1
    )
    with pytest.warns(
        RuntimeWarning, match="SamplePredictions failed at"
    ) as warned:
        run = train(data, [callback])
    assert [w.category for w in warned].count(RuntimeWarning) == 1
    assert_same_run(undisturbed(), run)


def test_a_picture_is_replaced_atomically(data, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def half(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("disk full")

    callback = predictions_callback(tmp_path, filepath=path)
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
    # Keras imports it if it can, so block the import.
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
    run_python(code, cwd=tmp_path)
    assert (tmp_path / "predictions-000001.png").exists()


X, Y = np.ones((4, 9, 9, 1), "uint8"), np.arange(4)


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
        ({"labels": None, "images": Batches()}, "first batch with shapes"),
        ({"filepath": None}, "`filepath`.*outside a notebook.*filepath=None"),
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
