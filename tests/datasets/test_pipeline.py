import gzip
import itertools
import string
import struct
import sys
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, ResumableTraining, datasets
from keras_lenet.datasets import (
    grain_dataset_from_array,
    image_dataset_from_array,
    load_data,
)
from keras_lenet.files import FileFormatError
from keras_lenet.pictures.centre import center_by_mass
from keras_lenet.validation.images import check_images_and_labels
from tests.helpers import HAS_TENSORFLOW, needs_tensorflow, once

FROM_TFDS = [name for name in datasets.DATASETS if name != "digits"]
CLASS_COUNTS = {
    "mnist": 10,
    "fashion_mnist": 10,
    "kmnist": 10,
    "emnist/letters": 26,
    "emnist/balanced": 47,
    "emnist/digits": 10,
    "cifar10": 10,
}


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (23, 28, 28, 1)).astype("uint8")


@pytest.fixture
def labels(generator):
    return generator.integers(0, 10, 23)


def order_of(dataset):
    """The labels of one pass; in these tests labels are indices."""
    return [int(y) for _, batch in dataset.as_numpy_iterator() for y in batch]


def idx(array):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + shape + array.tobytes()


# load_data


def test_digits_are_split_with_the_same_share_of_every_class(digits):
    (x_train, y_train), (x_test, y_test) = digits
    assert x_train.shape == (1437, 28, 28, 1)
    assert x_test.shape == (360, 28, 28, 1)
    assert x_train.dtype == x_test.dtype == "uint8"
    assert y_train.dtype == y_test.dtype == "int64"
    assert digits.class_names == list("0123456789")
    shares = np.bincount(y_train) / 1437 - np.bincount(y_test) / 360
    assert np.abs(shares).max() < 0.005


def test_digits_are_placed_like_those_of_mnist(digits):
    (images, _), _ = digits
    for image in images[:200, :, :, 0].astype("float64"):
        rows, columns = np.nonzero(image)
        assert np.ptp(rows) < 20 and np.ptp(columns) < 20
        for axis in (0, 1):
            mass = image.sum(axis=1 - axis)
            centre = np.average(np.arange(28), weights=mass)
            # Or at the border, where the mass is far off the middle.
            assert abs(centre - 13.5) <= 0.51 or mass[0] or mass[-1]


def test_digits_are_the_same_every_time(digits):
    again = load_data()
    for half, other in zip(digits, again, strict=True):
        for array, same in zip(half, other, strict=True):
            np.testing.assert_array_equal(array, same)


def test_center_by_mass_moves_a_dot_to_the_middle_and_leaves_blanks():
    images = np.zeros((2, 5, 5), "uint8")
    images[0, 1, 4] = 9
    fields = center_by_mass(images, 15)
    assert np.argwhere(fields).tolist() == [[0, 7, 7]]
    assert fields[0, 7, 7] == 9


def damaged_idx_files():
    images = idx(np.arange(50, dtype="uint8").reshape(2, 5, 5))
    packed = gzip.compress(images)
    broken_sum = packed[:-8] + bytes(8)
    return {
        "empty": (b"", "an IDX file. Received: an empty file"),
        "cut in the header": (images[:9], "a header of bytes 16. Received: 9"),
        "labels for images": (
            idx(np.zeros(20, "uint8")),
            "the magic number 00000803. Received: 00000801",
        ),
        "cut": (images[:-1], "values of 50 bytes.* Received: 49"),
        "longer": (images + b"x", "values of 50 bytes.* Received: 51"),
        "huge": (
            images[:4] + b"\xff" * 12 + images[16:],
            "values of 7922.* bytes for .* Received: 50",
        ),
        "no images": (
            bytes((0, 0, 8, 3)) + struct.pack(">3I", 0, 28, 28),
            r"sizes of at least 1. Received: \(0, 28, 28\)",
        ),
        "a web page": (b"<html>", "an IDX file. Received: a web page"),
        "gzip cut": (packed[:-9], "an IDX file that is whole"),
        "gzip damaged": (broken_sum, "an IDX file that is whole"),
    }


@pytest.mark.parametrize("damage", damaged_idx_files())
def test_a_damaged_idx_file_is_refused_by_name(damage, tmp_path):
    content, message = damaged_idx_files()[damage]
    suffix = ".gz" if "gzip" in damage else ""
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(content)
    good = idx(np.ones((2, 5, 5), "uint8")), idx(np.zeros(2, "uint8"))
    for name, other in (
        ("train-labels-idx1", good[1]),
        ("t10k-images-idx3", good[0]),
        ("t10k-labels-idx1", good[1]),
    ):
        (tmp_path / f"{name}-ubyte").write_bytes(other)
    with pytest.raises(FileFormatError, match=message) as info:
        load_data(tmp_path)
    assert path.name in str(info.value)


def test_a_folder_without_idx_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without train-images-idx3-ubyte or"):
        load_data(tmp_path)


def test_an_npz_file_is_read(tmp_path, images, labels):
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    (x_train, y_train), (x_test, y_test) = load_data(str(path))
    np.testing.assert_array_equal(x_train, images)
    np.testing.assert_array_equal(y_test, labels)
    assert x_test.shape == images.shape and y_train.dtype == "int64"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_test": np.ones((2, 8, 9), "uint8")}, "images of one size"),
        ({"y_test": None}, "x_train, y_train, x_test and y_test.*y_test"),
        ({"x_train": np.ones((2, 9, 9))}, "train images of uint8 pixels"),
        (
            {"y_train": np.array([1, None])},
            "y_train.*of numbers or strings. Received: dtype object",
        ),
        ({"y_train": np.array([0, -1])}, "not negative. Received: -1"),
    ],
)
def test_a_bad_npz_file_is_refused_by_name(change, message, tmp_path):
    arrays = {"x_train": np.ones((2, 9, 9), "uint8"), "y_train": np.arange(2)}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"]}
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as info:
        load_data(path)
    assert "mine.npz" in str(info.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04cut"])
def test_a_file_that_is_no_npz_is_refused(content, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine.npz: expected an `.npz` file"):
        load_data(path)


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match=r"digits, mnist.*Received: name='mnits'"
    ):
        load_data("mnits")


@once
@needs_tensorflow
@pytest.mark.parametrize(
    "name", [name for name in datasets.DATASETS if name != "digits"]
)
def test_without_a_network_the_error_says_what_works(
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
    """Writes a small data set as tensorflow-datasets would have done."""

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
@pytest.mark.parametrize(
    "name", [name for name in datasets.DATASETS if name != "digits"]
)
def test_prepared_data_come_upright_from_0_and_in_their_original_order(
    name, tmp_path, prepare, generator
):
    shape = (32, 32, 3) if name == "cifar10" else (28, 28, 1)
    originals = generator.integers(0, 256, (40, *shape)).astype("uint8")
    labels = generator.integers(0, CLASS_COUNTS[name], 40)
    stored = originals
    if name.startswith("emnist"):
        stored = originals.transpose(0, 2, 1, 3)
    prepare(name, tmp_path, stored, labels + (name == "emnist/letters"))
    data = load_data(name, tmp_path)
    for x, y in data:
        np.testing.assert_array_equal(x, originals)
        np.testing.assert_array_equal(y, labels)
    assert len(data.class_names) == CLASS_COUNTS[name]
    assert all(isinstance(class_name, str) for class_name in data.class_names)


def test_emnist_letters_are_named_by_capitals():
    names = datasets._SOURCES["emnist/letters"].class_names
    assert list(names) == list(string.ascii_uppercase)


@pytest.fixture
def without_tensorflow(monkeypatch):
    """Makes importing TensorFlow and tensorflow-datasets fail."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)


@once
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_without_tensorflow_keras_loads_what_it_can(
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
    assert data.class_names == list(datasets._SOURCES[name].class_names)


@once
def test_without_tensorflow_or_a_network_the_error_says_what_works(
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
def test_what_only_tensorflow_datasets_has_says_that_it_needs_tensorflow(
    name, data_dir, without_tensorflow
):
    with pytest.raises(
        ImportError, match=r"pip install tensorflow.*'cifar10' w"
    ):
        load_data(name, data_dir)


@once
@needs_tensorflow
def test_mnist_is_the_same_as_idx_files_and_as_prepared(mnist_dir):
    files = load_data(mnist_dir / "mnist")
    prepared = load_data("mnist", mnist_dir / "tfds")
    for half, other in zip(files, prepared, strict=True):
        for array, same in zip(half, other, strict=True):
            np.testing.assert_array_equal(array, same)
    assert files.class_names == prepared.class_names
    # The first labels of the original files.
    assert files[0][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert files[1][1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


# image_dataset_from_array


@needs_tensorflow
def test_every_pass_has_a_new_order_that_the_seed_decides(images):
    def five_orders(seed):
        dataset = image_dataset_from_array(
            images, np.arange(23), 5, shuffle=True, seed=seed
        )
        return [order_of(dataset) for _ in range(5)]

    orders = five_orders(7)
    assert len({tuple(order) for order in orders}) == 5
    assert all(sorted(order) == list(range(23)) for order in orders)
    np.random.seed(0)  # noqa: NPY002
    assert five_orders(7) == orders
    assert five_orders(8) != orders


@needs_tensorflow
def test_the_order_has_not_changed_since_it_was_published(images):
    dataset = image_dataset_from_array(
        images[:8], np.arange(8), shuffle=True, seed=98
    )
    assert order_of(dataset) == [5, 3, 2, 0, 7, 4, 1, 6]
    assert order_of(dataset) == [1, 6, 5, 4, 0, 3, 7, 2]


@needs_tensorflow
def test_repeat_goes_on_with_the_orders_of_the_passes(images):
    once, repeated = (
        image_dataset_from_array(images, np.arange(23), 5, shuffle=True, seed=7)
        for _ in range(2)
    )
    passes = order_of(once) + order_of(once)
    assert order_of(repeated.repeat(2)) == passes


@needs_tensorflow
def test_images_and_labels_stay_together_as_bytes(images):
    dataset = image_dataset_from_array(
        images, np.arange(23)[:, np.newaxis], 5, shuffle=True, seed=1
    )
    for x, y in dataset.as_numpy_iterator():
        assert x.dtype == "uint8" and y.dtype == "int64"
        np.testing.assert_array_equal(x, images[y])


@needs_tensorflow
def test_without_shuffling_every_pass_has_the_order_of_the_arrays(images):
    dataset = image_dataset_from_array(images, np.arange(23), 5)
    assert order_of(dataset) == order_of(dataset) == list(range(23))


@needs_tensorflow
def test_images_are_augmented_by_seed_and_number_of_the_batch(images):
    def noise(images, generator):
        return images + generator.integers(0, 9, images.shape, "uint8")

    def passes(seed, shuffle=False):
        dataset = image_dataset_from_array(
            images, np.arange(23), 5, shuffle, seed, augment=noise
        )
        return [
            (x - images[y]).tobytes()
            for _ in range(2)
            for x, y in dataset.as_numpy_iterator()
        ]

    added = passes(7)
    assert len(set(added)) == 10
    assert passes(7) == passes(7, shuffle=True) == added
    assert not set(passes(8)) & set(added)


@needs_tensorflow
@pytest.mark.parametrize(
    "augment",
    [
        lambda images, generator: images / 255,
        lambda images, generator: images[:1],
    ],
)
def test_what_augments_must_keep_shape_and_dtype(augment, images, labels):
    dataset = image_dataset_from_array(images, labels, augment=augment)
    with pytest.raises(Exception, match="must return images of the shape"):
        next(iter(dataset))


@needs_tensorflow
def test_nothing_is_dropped_unless_asked_and_then_never_the_same(images):
    labels = np.arange(23)
    dataset = image_dataset_from_array(images, labels, 5, shuffle=True, seed=1)
    assert len(dataset) == 5 and len(order_of(dataset)) == 23
    dataset = image_dataset_from_array(
        images, labels, 5, shuffle=True, seed=1, drop_remainder=True
    )
    assert len(dataset) == 4
    assert dataset.element_spec[0].shape == (5, 28, 28, 1)
    left_out = [set(labels) - set(order_of(dataset)) for _ in range(10)]
    assert {len(each) for each in left_out} == {3}
    assert len(set.union(*left_out)) > 3


@needs_tensorflow
def test_floats_in_0_to_1_are_taken_as_float32(images, labels):
    dataset = image_dataset_from_array(images / 255, labels, 23)
    ((x, _),) = dataset.as_numpy_iterator()
    assert x.dtype == "float32"
    np.testing.assert_allclose(x, images / 255, rtol=1e-6)


@needs_tensorflow
def test_an_unseeded_order_follows_set_random_seed(images):
    import keras

    orders = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        dataset = image_dataset_from_array(images, np.arange(23), shuffle=True)
        orders.append(order_of(dataset))
    assert orders[0] == orders[1] != list(range(23))


# grain_dataset_from_array


def epochs_of(dataset, count):
    """What each epoch of a Grain dataset has; labels are indices."""
    return [[int(i) for _, y in dataset for i in y] for _ in range(count)]


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_grain_orders_are_those_of_seed_and_epoch(drop_remainder, images):
    dataset = grain_dataset_from_array(
        images,
        np.arange(23),
        5,
        shuffle=True,
        seed=7,
        drop_remainder=drop_remainder,
    )
    orders = [datasets._permutation(23, 7, epoch) for epoch in range(3)]
    kept = 20 if drop_remainder else 23
    assert epochs_of(dataset, 3) == [list(order[:kept]) for order in orders]


@needs_tensorflow
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_grain_batches_are_those_of_tf_data(images, shuffle, drop_remainder):
    def noise(images, generator):
        return images + generator.integers(0, 9, images.shape, "uint8")

    arguments = (images, np.arange(23), 5, shuffle, 7, 23, drop_remainder)
    by_grain = grain_dataset_from_array(*arguments, noise)
    by_tf_data = image_dataset_from_array(*arguments, noise)
    for _ in range(3):
        batches = list(by_grain)
        others = list(by_tf_data.as_numpy_iterator())
        assert len(batches) == len(others) == 5 - drop_remainder
        for (x, y), (other_x, other_y) in zip(batches, others, strict=True):
            assert x.dtype == other_x.dtype and y.dtype == other_y.dtype
            np.testing.assert_array_equal(x, other_x)
            np.testing.assert_array_equal(y, other_y)


def test_a_grain_epoch_that_stops_early_does_not_count(images):
    dataset = grain_dataset_from_array(images, np.arange(23), 5, True, 7)
    (_, first), (_, second) = itertools.islice(dataset, 2)
    (_, again), *_ = dataset
    np.testing.assert_array_equal(again, first)
    (_, other), *_ = dataset
    assert first.tolist() != other.tolist() != second.tolist()


def test_a_grain_epoch_counts_once_and_never_backwards(images):
    dataset = grain_dataset_from_array(images, np.arange(23), 5, True, 7)
    iterator = iter(dataset)
    assert len(list(iterator)) == 5
    second, third = (list(datasets._permutation(23, 7, i)) for i in (1, 2))
    assert epochs_of(dataset, 1) == [second]
    assert list(iterator) == []
    assert epochs_of(dataset, 1) == [third]


def test_a_grain_iterator_resumes_from_its_state(images):
    dataset = grain_dataset_from_array(images, np.arange(23), 5, True, 7)
    iterator = iter(dataset)
    next(iterator), next(iterator)
    state = iterator.get_state()
    rest = [y.tolist() for _, y in iterator]
    assert len(rest) == 3
    resumed = iter(dataset)
    resumed.set_state(state)
    assert [y.tolist() for _, y in resumed] == rest
    # The epoch counts once.
    assert epochs_of(dataset, 1) == [list(datasets._permutation(23, 7, 1))]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_keras_trains_on_grain_batches_in_their_order(images, generator):
    labels = generator.integers(0, 3, 23)

    def make():
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        return model

    trained, expected = make(), make()
    expected.set_weights(trained.get_weights())
    dataset = grain_dataset_from_array(images, labels, 5, shuffle=True, seed=7)
    trained.fit(dataset, epochs=3, shuffle=False, verbose=0)
    for epoch in range(3):
        order = datasets._permutation(23, 7, epoch)
        for batch in np.split(order, range(5, 23, 5)):
            expected.train_on_batch(images[batch], labels[batch])
    for weight, other in zip(
        trained.get_weights(), expected.get_weights(), strict=True
    ):
        np.testing.assert_allclose(weight, other, atol=1e-5)
    loss = trained.evaluate(dataset, verbose=0)
    expected_loss = expected.evaluate(images, labels, verbose=0)
    assert loss == pytest.approx(expected_loss, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_lenet5_trains_on_a_grain_dataset(digits):
    (x, y), test = digits
    dataset = grain_dataset_from_array(x, y, shuffle=True, seed=98)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(dataset, epochs=5, shuffle=False, verbose=0)
    assert model.evaluate(*test, verbose=0)[1] > 0.8


def test_resumable_training_refuses_a_grain_dataset(images, labels, tmp_path):
    dataset = grain_dataset_from_array(images, labels)
    with pytest.raises(ValueError, match="what `image_dataset_from_array` ret"):
        ResumableTraining(tmp_path / "state.npz", dataset)


def test_without_grain_the_error_says_what_to_install(
    images, labels, monkeypatch
):
    monkeypatch.setitem(sys.modules, "grain", None)
    monkeypatch.delitem(
        sys.modules, "keras_lenet.datasets.grain_dataset", raising=False
    )
    with pytest.raises(ImportError, match="pip install grain"):
        grain_dataset_from_array(images, labels)


def bad_inputs():
    images = np.full((4, 28, 28, 1), 7, "uint8")
    labels = np.arange(4)
    nan = np.full((4, 28, 28, 1), 0.5)
    nan[2, 3, 4, 0] = np.nan
    infinite = np.where(np.isnan(nan), np.inf, nan)
    return {
        "fewer labels": (images, labels[:3], "4 images and 3 labels"),
        "nothing": (images[:0], labels[:0], "0 images and 0 labels"),
        "one image": (images[0, :, :, 0], labels, r"shape \(28, 28\)"),
        "channels first": (
            images.reshape(4, 1, 28, 28),
            labels,
            r"channels last.*transpose\(0, 2, 3, 1\)",
        ),
        "no pixels": (images[:, :0], labels, "keras.layers.Resizing"),
        "integers": (
            images.astype(int),
            labels,
            r"dtype int64\. Convert them with `np\.rint\(images\)\.astype",
        ),
        "booleans": (images > 0, labels, r"`np\.rint\(255 \* images\)\.astype"),
        "text": (images.astype(str), labels, "uint8 pixels"),
        "raw floats": (images * 1.0, labels, r"Received: 7.0, first at index"),
        "negative": (images * -0.1, labels, r"in \[0, 1\]"),
        "nan": (nan, labels, r"Received: nan, first at index \(2, 3, 4, 0\)"),
        "infinite": (infinite, labels, "Received: inf"),
        "one label": (images, 3, r"labels of shape \(\)"),
        "label too large": (images, labels + 7, "10, first at index 3"),
        "label negative": (images, labels - 1, "-1, first at index 0"),
        "label -100": (images, labels * -100, "-100, first at index 1"),
        "label 3.7": (images, labels + 0.7, "integers.*float64.*index 0"),
        "label nan": (images, labels * np.nan, "must be integers"),
        "label text": (images, labels.astype(str), "must be integers"),
        "one-hot": (images, np.eye(4), "argmax"),
    }


MAKERS = (image_dataset_from_array, grain_dataset_from_array)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("case", bad_inputs())
def test_bad_images_and_labels_are_refused(case, make):
    images, labels, message = bad_inputs()[case]
    with pytest.raises(ValueError, match=message):
        make(images, labels, num_classes=10)


def test_good_neighbours_of_bad_images_and_labels_are_taken():
    images = np.full((4, 28, 28), 7, "uint8")
    x, y = check_images_and_labels(images, np.arange(6, 10, dtype="int8"), 10)
    assert x.shape == (4, 28, 28, 1)
    assert y.tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"batch_size": 2.0}, "Received: batch_size=2.0"),
        ({"seed": -1}, "`seed`.*Received: seed=-1"),
        ({"seed": "98"}, "Received: seed='98'"),
        ({"augment": 0.1}, "`augment`.*Received: augment=0.1"),
        (
            {"batch_size": 24, "drop_remainder": True},
            "batch_size=24 and 23 images",
        ),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_bad_arguments_are_refused(make, arguments, message, images, labels):
    with pytest.raises(ValueError, match=message):
        make(images, labels, **arguments)


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow can be imported")
def test_without_tensorflow_the_error_says_what_to_do(images, labels, tmp_path):
    with pytest.raises(ImportError, match=r"tensorflow`.*grain_dataset_from_a"):
        image_dataset_from_array(images, labels)
    with pytest.raises(ImportError, match="pip install tensorflow"):
        load_data("mnist", tmp_path)
