"""Bad images, labels and settings are rejected before the first step."""

import contextlib
import io
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
from tests.helpers import needs_tensorflow

IMAGES = (
    np.random.default_rng(98).integers(1, 256, (6, 12, 12, 1)).astype("uint8")
)
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

BAD_FREQS = [{"freq": value} for value in (0, -5, 1.5, "batch", None, True)]


def make_model():
    model = LeNet5(3, (12, 12, 1))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def make_dataset(images, labels, folder):
    datasets.image_dataset_from_array(images, labels, 2, num_classes=3)


def make_pictures(images, labels, folder):
    SamplePredictions(images, labels, 1, folder / "a.png", ["a", "b", "c"])


def fit_model(images, labels, folder, **kwargs):
    model = make_model()
    before = [weight.copy() for weight in model.get_weights()]
    try:
        model.fit(images, labels, verbose=0, **kwargs)
    finally:
        for weight, same in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, same)


def hold_out(images, labels, folder):
    held_out = HeldOutEvaluation(
        (images, labels), 1, at_start=True, filename=folder / "a.csv"
    )
    fit_model(IMAGES, LABELS, folder, callbacks=[held_out])


def train_by_command(images, labels, folder):
    path = folder.parent / "data.npz"
    good = {"x_test": IMAGES, "y_test": LABELS}
    np.savez(path, x_train=images, y_train=labels, **good)
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed):
        code = main(
            ["train", "--dataset", str(path), "--output", f"{folder}/o"]
        )
    error = printed.getvalue()
    assert code == 2
    assert error.startswith("keras-lenet: error: ") and error.count("\n") == 1
    raise ValueError(error)


# The bad labels and images that each entry point can detect.
REJECTED = {
    make_dataset: (BAD_LABELS.keys(), BAD_IMAGES.keys()),
    make_pictures: (
        BAD_LABELS.keys(),
        BAD_IMAGES.keys() - {"too large", "not scaled"},
    ),
    hold_out: (
        BAD_LABELS.keys(),
        {"more", "none", "NaN", "infinite", "words"},
    ),
    fit_model: (BAD_LABELS.keys() - {"fewer", "none"}, set()),
    train_by_command: (
        # The number of classes comes from the labels.
        BAD_LABELS.keys() - {"too large"},
        BAD_IMAGES.keys() - {"of many shapes"},
    ),
}


@pytest.mark.parametrize(
    ("entry", "kind", "name"),
    [
        pytest.param(
            entry,
            kind,
            name,
            marks=[needs_tensorflow]
            if entry in (make_dataset, train_by_command)
            else [],
        )
        for entry, names in REJECTED.items()
        for kind, rejected in zip(("labels", "images"), names, strict=True)
        for name in sorted(rejected)
    ],
)
def test_bad_images_and_labels_are_rejected(
    entry, kind, name, tmp_path, all_survive
):
    folder = tmp_path / "output"
    folder.mkdir()
    images, labels = IMAGES, LABELS
    if kind == "labels":
        labels = BAD_LABELS[name]
    else:
        images = BAD_IMAGES[name]
    with pytest.raises(ValueError) as info:
        entry(images, labels, folder)
    message = " ".join(str(info.value).split())
    assert re.search(r"`\w+`|data\.npz", message)
    assert re.search(r"must|expected", message)
    assert "Received: " in message
    assert list(folder.iterdir()) == []
    all_survive("bad images and labels, by entry", [True])


BAD_SETTINGS = {
    datasets.image_dataset_from_array: [
        *({"batch_size": value} for value in (0, -1, 2.5, "a", True)),
        *({"seed": value} for value in (-1, 2**64, 0.5, True)),
        {"batch_size": 7, "drop_remainder": True},
    ],
    HeldOutEvaluation: [
        *BAD_FREQS,
        {"sample_size": 0},
        {"sample_size": 7},
        {"batch_size": 0},
        {"seed": -1},
        {"filename": "no/such/folder.csv"},
    ],
    SamplePredictions: [
        *BAD_FREQS,
        {"filepath": "{steps}.png"},
        {"class_names": ["a", "b"]},
    ],
    ResumableTraining: [*BAD_FREQS, {"filepath": "no/such/folder.npz"}],
    BestModelCheckpoint: [
        {"filepath": "no/such/folder.keras"},
        {"mode": "least"},
    ],
    LeNet5: [
        {"num_classes": 0},
        {"num_classes": True},
        {"input_shape": (33, 28, 1)},
        {"input_shape": (1, 28, 28)},
        {"input_shape": (28, 28)},
    ],
    recipes.fast: [{"steps": 0}, {"steps": 10.0}],
}


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        pytest.param(
            make,
            setting,
            marks=[needs_tensorflow]
            if make is datasets.image_dataset_from_array
            else [],
        )
        for make, settings in BAD_SETTINGS.items()
        for setting in settings
    ],
)
def test_bad_settings_are_rejected(make, setting, tmp_path, all_survive):
    arguments = {
        datasets.image_dataset_from_array: {"images": IMAGES, "labels": LABELS},
        HeldOutEvaluation: {"data": (IMAGES, LABELS)},
        SamplePredictions: {"images": IMAGES, "labels": LABELS},
        ResumableTraining: {"filepath": tmp_path / "a.npz"},
        BestModelCheckpoint: {"filepath": tmp_path / "a.keras"},
    }.get(make, {})
    with pytest.raises(ValueError) as info:
        make(**arguments | setting)
    message = str(info.value)
    assert "Received: " in message
    name = next(iter(setting))
    names = {name, "labels"} if name == "class_names" else {name}
    named = any(f"`{name}`" in message for name in names)
    assert named or make is LeNet5, message
    assert list(tmp_path.iterdir()) == []
    all_survive("bad settings, by entry", [True])


def test_evaluation_sees_every_image_once(generator):
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
