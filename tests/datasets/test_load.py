import numpy as np
import pytest

from keras_lenet.datasets import DATASETS, load_data
from keras_lenet.files import FileFormatError
from tests.helpers import needs_tensorflow, once


def test_the_split_of_the_digits_is_stratified(digits):
    (x_train, y_train), (x_test, y_test) = digits
    info = DATASETS["digits"]
    assert x_train.shape == (info.train_size, 28, 28, 1)
    assert x_test.shape == (info.test_size, 28, 28, 1)
    assert x_train.dtype == x_test.dtype == "uint8"
    assert y_train.dtype == y_test.dtype == "int64"
    assert digits.class_names == list(info.class_names)
    shares = np.bincount(y_train) / len(y_train) - np.bincount(y_test) / len(
        y_test
    )
    assert np.abs(shares).max() < 0.005


def test_digits_are_centred_by_mass_like_mnist(digits):
    (images, _), _ = digits
    for image in images[:200, :, :, 0].astype("float64"):
        rows, columns = np.nonzero(image)
        assert np.ptp(rows) < 20 and np.ptp(columns) < 20
        for axis in (0, 1):
            mass = image.sum(axis=1 - axis)
            centre = np.average(np.arange(28), weights=mass)
            # Digits whose mass is far off their middle touch the border.
            assert abs(centre - 13.5) <= 0.51 or mass[0] or mass[-1]


def test_digits_are_the_same_every_time(digits):
    again = load_data()
    for half, other in zip(digits, again, strict=True):
        for array, same in zip(half, other, strict=True):
            np.testing.assert_array_equal(array, same)


def test_a_folder_without_idx_files_is_rejected(tmp_path):
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
def test_the_error_names_a_bad_npz_file(change, message, tmp_path):
    arrays = {"x_train": np.ones((2, 9, 9), "uint8"), "y_train": np.arange(2)}
    arrays |= {"x_test": arrays["x_train"], "y_test": arrays["y_train"]}
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as info:
        load_data(path)
    assert "mine.npz" in str(info.value)


def test_an_error_has_no_double_full_stop(tmp_path):
    path = tmp_path / "mine.npz"
    arrays = {"x_train": np.ones((2, 9, 9), "uint8"), "y_train": [0, -1]}
    np.savez(path, x_test=arrays["x_train"], y_test=[0, 1], **arrays)
    with pytest.raises(FileFormatError, match=r"at index 1\. The file") as info:
        load_data(path)
    assert ".." not in str(info.value).removeprefix(str(path))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04cut"])
def test_a_file_that_is_not_npz_is_rejected(content, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine.npz: expected an `.npz` file"):
        load_data(path)


def test_the_error_for_an_unknown_name_lists_the_known_names():
    with pytest.raises(
        ValueError, match="mnits: expected one of digits, mnist"
    ):
        load_data("mnits")


@once
@needs_tensorflow
def test_mnist_is_the_same_from_idx_files_and_from_tensorflow_datasets(
    mnist_dir,
):
    files = load_data(mnist_dir / "mnist")
    prepared = load_data("mnist", mnist_dir / "tfds")
    for half, other in zip(files, prepared, strict=True):
        for array, same in zip(half, other, strict=True):
            np.testing.assert_array_equal(array, same)
    assert files.class_names == prepared.class_names
    # These are the first labels of the original files.
    assert files[0][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert files[1][1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
