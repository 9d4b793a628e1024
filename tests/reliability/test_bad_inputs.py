"""Bad images, labels and settings are refused before the first step."""

import re

import numpy as np
import pytest

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    LeNet5,
    ResumableTraining,
    SamplePredictions,
    datasets,
    recipes,
)
from keras_lenet.cli import main
from tests.helpers import HAS_TENSORFLOW

GENERATOR = np.random.default_rng()
IMAGES = GENERATOR.integers(1, 256, (6, 12, 12, 1)).astype("uint8")
LABELS = np.array([0, 1, 2, 0, 1, 2])


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


SCALED = (IMAGES / 255).astype("float32")
BAD_LABELS = {
    "negative": with_value(LABELS, 4, -1),
    "ignored by PyTorch": with_value(LABELS, 4, -100),
    "too large": with_value(LABELS, 4, 3),
    "a fraction": with_value(LABELS.astype("float32"), 4, 2.7),
    "NaN": with_value(LABELS.astype("float32"), 4, np.nan),
    "words": np.array(["a", "b", "c", "a", "b", "c"]),
    "fewer": LABELS[:5],
    "none": LABELS[:0],
}
BAD_IMAGES = {
    "more": np.concatenate([IMAGES, IMAGES]),
    "none": IMAGES[:0],
    "channels first": np.zeros((6, 3, 12, 12), "uint8"),
    "no pixels": np.zeros((6, 0, 12, 1), "uint8"),
    "too large": np.zeros((6, 33, 12, 1), "uint8"),
    "flat": IMAGES.reshape(6, 144),
    "not scaled": IMAGES.astype("float32"),
    "scaled twice": SCALED / 255,
    "NaN": with_value(SCALED, (2, 3, 4, 0), np.nan),
    "infinite": with_value(SCALED, (2, 3, 4, 0), np.inf),
    "negative": with_value(SCALED, (2, 3, 4, 0), -0.5),
    "integers": IMAGES.astype("int32"),
    "words": np.full((6, 12, 12, 1), "a"),
    "of many shapes": [np.zeros((12, 12)), np.zeros((13, 12))] * 3,
}


def make_model():
    model = LeNet5(3, (12, 12, 1))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def make_dataset(images, labels, folder):
    datasets.image_dataset_from_array(images, labels, 2, num_classes=3)


def make_pictures(images, labels, folder):
    SamplePredictions(images, labels, 1, folder / "a.png", ["a", "b", "c"])


def hold_out(images, labels, folder):
    held_out = HeldOutEvaluation(
        (images, labels), 1, at_start=True, filename=folder / "a.csv"
    )
    fit_model(IMAGES, LABELS, folder, callbacks=[held_out])


def fit_model(images, labels, folder, **kwargs):
    model = make_model()
    before = [weight.copy() for weight in model.get_weights()]
    try:
        model.fit(images, labels, verbose=0, **kwargs)
    finally:
        for weight, same in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, same)


def train_by_command(images, labels, folder, capsys):
    path = folder.parent / "data.npz"
    good = {"x_test": IMAGES, "y_test": LABELS}
    np.savez(path, x_train=images, y_train=labels, **good)
    assert (
        main(["train", "--dataset", str(path), "--output", f"{folder}/o"]) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("keras-lenet: error: ") and error.count("\n") == 1
    raise ValueError(error)


def cases():
    refusing = {
        make_dataset: (BAD_LABELS, BAD_IMAGES),
        make_pictures: (
            BAD_LABELS,
            {
                k: v
                for k, v in BAD_IMAGES.items()
                if k not in ("too large", "not scaled")
            },
        ),
        hold_out: (
            BAD_LABELS,
            {
                k: BAD_IMAGES[k]
                for k in ("more", "none", "NaN", "infinite", "words")
            },
        ),
        fit_model: (
            {k: v for k, v in BAD_LABELS.items() if k not in ("fewer", "none")},
            {},
        ),
        train_by_command: (
            # Which classes there are is known by their labels alone.
            {k: v for k, v in BAD_LABELS.items() if k != "too large"},
            {k: v for k, v in BAD_IMAGES.items() if k != "of many shapes"},
        ),
    }
    for entry, (labels, images) in refusing.items():
        for name, value in labels.items():
            yield entry, "labels", name, (IMAGES, value)
        for name, value in images.items():
            yield entry, "images", name, (value, LABELS)


def test_bad_images_and_labels_are_refused_by_every_entry(
    tmp_path, all_survive, capsys
):
    outcomes = []
    folder = tmp_path / "output"
    folder.mkdir()
    for entry, kind, name, arrays in cases():
        if entry in (make_dataset, train_by_command) and not HAS_TENSORFLOW:
            continue
        more = (capsys,) if entry is train_by_command else ()
        with pytest.raises(ValueError) as info:
            entry(*arrays, folder, *more)
        message = " ".join(str(info.value).split())
        case = (entry.__name__, kind, name, message)
        assert re.search(r"`\w+`|data\.npz", message), case
        assert re.search(r"must|expected", message), case
        assert "Received: " in message, case
        assert list(folder.iterdir()) == [], case
        outcomes.append(True)
    all_survive("bad images and labels, by entry", outcomes)


BAD_SETTINGS = [
    (datasets.image_dataset_from_array, {"batch_size": value})
    for value in (0, -1, 2.5, "a", True)
]
BAD_SETTINGS += [
    (datasets.image_dataset_from_array, setting)
    for setting in (
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 0.5},
        {"seed": True},
        {"batch_size": 7, "drop_remainder": True},
    )
]
BAD_SETTINGS += [
    (make, {"freq": value})
    for make in (HeldOutEvaluation, SamplePredictions, ResumableTraining)
    for value in (0, -5, 1.5, "batch", None, True)
]
BAD_SETTINGS += [
    (HeldOutEvaluation, setting)
    for setting in (
        {"sample_size": 0},
        {"sample_size": 7},
        {"batch_size": 0},
        {"seed": -1},
        {"filename": "no/such/folder.csv"},
    )
]
BAD_SETTINGS += [
    (SamplePredictions, {"filepath": "{steps}.png"}),
    (SamplePredictions, {"class_names": ["a", "b"]}),
    (ResumableTraining, {"filepath": "no/such/folder.npz"}),
    (BestModelCheckpoint, {"filepath": "no/such/folder.keras"}),
    (BestModelCheckpoint, {"mode": "least"}),
    (LeNet5, {"num_classes": 0}),
    (LeNet5, {"num_classes": True}),
    (LeNet5, {"input_shape": (33, 28, 1)}),
    (LeNet5, {"input_shape": (1, 28, 28)}),
    (LeNet5, {"input_shape": (28, 28)}),
    (recipes.fast, {"steps": 0}),
    (recipes.fast, {"steps": 10.0}),
]


def test_bad_settings_are_refused(tmp_path, all_survive):
    defaults = {
        datasets.image_dataset_from_array: (IMAGES, LABELS),
        HeldOutEvaluation: ((IMAGES, LABELS),),
        SamplePredictions: (IMAGES, LABELS),
    }
    outcomes = []
    for make, setting in BAD_SETTINGS:
        if make is datasets.image_dataset_from_array and not HAS_TENSORFLOW:
            continue
        named = {}
        if make is ResumableTraining:
            named["filepath"] = tmp_path / "a.npz"
        elif make is BestModelCheckpoint:
            named["filepath"] = tmp_path / "a.keras"
        with pytest.raises(ValueError) as info:
            make(*defaults.get(make, ()), **named | setting)
        name = next(iter(setting))
        message = str(info.value)
        assert "Received: " in message, (make, setting, message)
        names = {name, "labels"} if name == "class_names" else {name}
        named = any(f"`{name}`" in message for name in names)
        assert named or make is LeNet5, (setting, message)
        outcomes.append(True)
    assert list(tmp_path.iterdir()) == []
    all_survive("bad settings, by entry", outcomes)


def test_evaluation_sees_every_image_once_also_in_the_last_batch(generator):
    model = make_model()
    labels = generator.integers(0, 3, 23)
    images = generator.integers(0, 256, (23, 12, 12, 1)).astype("uint8")
    seen = []
    held_out = HeldOutEvaluation((images, labels), 1, batch_size=5)
    held_out.set_model(model)
    for x, _ in held_out._batches(held_out._sets["val_"], 1):
        seen.extend(x)
    np.testing.assert_array_equal(seen, images)
    predicted = model.predict(images, verbose=0)
    expected = -np.log(predicted[np.arange(23), labels]).mean()
    loss = model.evaluate(images, labels, batch_size=5, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
