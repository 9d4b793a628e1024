import sys
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest

from keras_lenet.datasets import DATASETS, load_data
from tests.helpers import HAS_TENSORFLOW, needs_tensorflow, once

FROM_TFDS = [name for name, info in DATASETS.items() if info.url]
IN_KERAS = [name for name, info in DATASETS.items() if info.is_in_keras]
SHAPES = {"28x28 grey": (28, 28, 1), "32x32 colour": (32, 32, 3)}


@once
@needs_tensorflow
@pytest.mark.parametrize("name", FROM_TFDS)
def test_the_error_without_a_network_suggests_the_digits(
    name, tmp_path, monkeypatch
):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(
        ConnectionError, match="'digits', which needs no"
    ) as info:
        load_data(name, tmp_path / "nowhere")
    assert name in str(info.value)
    assert str(tmp_path / "nowhere") in str(info.value)
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def prepare(monkeypatch):
    """Prepares a small data set as tensorflow-datasets does."""

    def prepare(name, data_dir, images, labels):
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=data_dir)

        def split_generators(self, _):
            return {"train": examples(), "test": examples()}

        def examples():
            for index, (image, label) in enumerate(
                zip(images, labels, strict=True)
            ):
                example = {"image": image, "label": int(label)}
                if "id" in builder.info.features:
                    example["id"] = str(index)
                yield index, example

        monkeypatch.setattr(
            type(builder), "_split_generators", split_generators
        )
        builder.download_and_prepare()

    return prepare


@needs_tensorflow
@pytest.mark.parametrize("name", FROM_TFDS)
def test_prepared_data_have_their_original_order_and_orientation(
    name, tmp_path, prepare, generator
):
    info = DATASETS[name]
    shape = (40, *SHAPES[info.images])
    originals = generator.integers(0, 256, shape).astype("uint8")
    labels = generator.integers(0, len(info.class_names), 40)
    stored = originals
    if name.startswith("emnist"):
        stored = originals.transpose(0, 2, 1, 3)
    prepare(name, tmp_path, stored, labels + (name == "emnist/letters"))
    data = load_data(name, tmp_path)
    for x, y in data:
        np.testing.assert_array_equal(x, originals)
        np.testing.assert_array_equal(y, labels)
    assert data.class_names == list(info.class_names)


@pytest.fixture
def without_tensorflow(monkeypatch):
    """Makes importing TensorFlow and tensorflow-datasets fail."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)


@once
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", IN_KERAS)
def test_without_tensorflow_keras_datasets_is_used(
    name, data_format, without_tensorflow, monkeypatch, generator
):
    shape = (32, 32, 3) if name == "cifar10" else (28, 28)
    images = generator.integers(0, 256, (2, 40, *shape)).astype("uint8")
    labels = generator.integers(0, 10, (2, 40)).astype("uint8")

    def load():
        x, y = images, labels
        if name == "cifar10":
            y = y[..., np.newaxis]
            if data_format == "channels_first":
                x = x.transpose(0, 1, 4, 2, 3)
        return (x[0], y[0]), (x[1], y[1])

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", load)
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        data = load_data(name)
    finally:
        keras.config.set_image_data_format(before)
    for half, (x, y) in enumerate(data):
        assert x.dtype == "uint8" and y.dtype == "int64"
        np.testing.assert_array_equal(x, images[half].reshape(x.shape))
        assert x.shape[1:] == (*shape, 1)[:3]
        np.testing.assert_array_equal(y, labels[half])
    assert data.class_names == list(DATASETS[name].class_names)


@once
def test_the_error_without_tensorflow_and_network_suggests_the_digits(
    without_tensorflow, monkeypatch
):
    def load():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load)
    with pytest.raises(
        ConnectionError, match=r"'mnist'.* URL fetch .*'digits'"
    ):
        load_data("mnist")


@once
@pytest.mark.parametrize(
    ("name", "data_dir"), [("kmnist", None), ("mnist", "prepared")]
)
def test_the_error_for_other_data_sets_says_that_they_need_tensorflow(
    name, data_dir, without_tensorflow
):
    with pytest.raises(
        ImportError, match=r"pip install tensorflow.*'cifar10' w"
    ):
        load_data(name, data_dir)


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow can be imported")
def test_the_error_where_tensorflow_is_missing_says_what_to_install(tmp_path):
    with pytest.raises(ImportError, match="pip install tensorflow"):
        load_data("mnist", tmp_path)
