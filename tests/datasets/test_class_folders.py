import keras
import numpy as np
import pytest
from PIL import Image

from keras_lenet.datasets import load_data
from keras_lenet.files import FileFormatError
from tests.datasets.helpers import check_split, write_pictures
from tests.helpers import needs_tensorflow, once

# Reading files does not depend on the backend.
pytestmark = once


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (23, 28, 28)).astype("uint8")


@pytest.fixture
def labels(generator):
    return generator.permutation(np.arange(23) % 5)


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "Testing")]
)
@pytest.mark.parametrize("suffix", ["png", "TIF", "webp"])
def test_class_folders_are_sorted_by_name(
    suffix, train, test, tmp_path, images, labels
):
    names = ["b", "a", "10", "9", "A"]
    write_pictures(tmp_path / train, images, labels, names, suffix)
    write_pictures(tmp_path / test, images[::-1], labels[::-1], names, suffix)
    write_pictures(tmp_path / "val", images, labels, ["other"] * 5, suffix)
    # macOS leaves hidden files like these.
    (tmp_path / train / "a" / "._000.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / train / ".cache").mkdir()
    data = load_data(tmp_path)
    assert data.class_names == ["10", "9", "A", "a", "b"]
    (x_train, y_train), (x_test, y_test) = data
    ranks = np.argsort(np.argsort(names))[labels]
    order = np.argsort(ranks, kind="stable")
    np.testing.assert_array_equal(x_train[..., 0], images[order])
    np.testing.assert_array_equal(y_train, ranks[order])
    order = np.argsort(ranks[::-1], kind="stable")
    np.testing.assert_array_equal(x_test[..., 0], images[::-1][order])
    np.testing.assert_array_equal(y_test, ranks[::-1][order])


def test_grey_pictures_with_bright_borders_are_warned_of(
    tmp_path, images, labels
):
    inner = np.zeros_like(images)
    inner[:, 4:-4, 4:-4] = images[:, 4:-4, 4:-4]
    write_pictures(tmp_path / "dark", inner, labels, list("abcde"))
    load_data(tmp_path / "dark")
    paper = tmp_path / "paper"
    write_pictures(paper, 255 - inner, labels, list("abcde"))
    with pytest.warns(UserWarning, match=r"paper: .* train on `255 - images`"):
        load_data(paper)


@needs_tensorflow
def test_class_folders_are_read_in_the_order_of_keras(tmp_path, images, labels):
    names = ["zero", "One", "two", "3", "_4"]
    write_pictures(tmp_path / "train", images, labels, names)
    write_pictures(tmp_path / "train", images[:7], [0] * 7, ["One/inner"])
    write_pictures(tmp_path / "test", images, labels, names)
    expected = keras.utils.image_dataset_from_directory(
        tmp_path / "train",
        color_mode="grayscale",
        image_size=(28, 28),
        shuffle=False,
        batch_size=None,
        verbose=False,
    )
    data = load_data(tmp_path)
    assert data.class_names == expected.class_names
    (x_train, y_train), _ = data
    expected = list(expected.as_numpy_iterator())
    np.testing.assert_array_equal(x_train, [x for x, _ in expected])
    np.testing.assert_array_equal(y_train, [y for _, y in expected])


def test_class_folders_without_train_and_test_are_split(
    tmp_path, images, labels
):
    write_pictures(tmp_path, images, labels, "abcde")
    data = load_data(tmp_path)
    check_split(data, images, labels)
    assert data.class_names == list("abcde")


def test_a_class_may_be_called_train(tmp_path, images, labels):
    write_pictures(tmp_path, images, labels, ["plane", "train", "a", "b", "c"])
    data = load_data(tmp_path)
    assert data.class_names == ["a", "b", "c", "plane", "train"]


def test_images_are_colour_if_one_picture_is(tmp_path, images, labels):
    colour = np.repeat(images[..., np.newaxis], 3, axis=-1)
    write_pictures(tmp_path, colour, labels, "abcde")
    assert load_data(tmp_path)[0][0].shape[1:] == (28, 28, 1)
    colour[4, 5, 6] = 1, 2, 3
    write_pictures(tmp_path, colour, labels, "abcde")
    check_split(load_data(tmp_path), colour, labels)


def test_the_error_for_pictures_of_several_sizes_says_how_to_resize_them(
    tmp_path, images, labels
):
    write_pictures(tmp_path / "train", images, labels, "abcde")
    write_pictures(tmp_path / "test", images, labels, "abcde")
    Image.fromarray(images[0, :20]).save(tmp_path / "test" / "b" / "x.png")
    with pytest.raises(
        FileFormatError,
        match=r"x\.png: expected 28x28 pixels, as .*a.\d+\.png has\. Received: "
        r"20x28\. .*PIL.ImageOps.fit.*image_dataset_from_directory",
    ):
        load_data(tmp_path)


def test_the_error_names_a_damaged_picture(tmp_path, images, labels):
    write_pictures(tmp_path, images, labels, "abcde")
    path = next((tmp_path / "c").iterdir())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileFormatError, match=f"{path.name}: expected a PNG"):
        load_data(tmp_path)


def test_bad_class_folders_are_rejected(tmp_path, images, labels):
    write_pictures(tmp_path / "a" / "train", images, labels, "abcde")
    with pytest.raises(ValueError, match=r"one folder test .* Received: train"):
        load_data(tmp_path / "a")
    write_pictures(tmp_path / "a" / "test", images, labels, "abcdf")
    with pytest.raises(ValueError, match=r"test: .*train\. Received: also f"):
        load_data(tmp_path / "a")
    (tmp_path / "a" / "train" / "f").mkdir()
    with pytest.raises(ValueError, match=r"f: expected pictures .*\.png.*none"):
        load_data(tmp_path / "a")
    # Pictures without class folders have no labels.
    for half in ("train", "test"):
        write_pictures(tmp_path / "b", images, labels * 0, [half])
    with pytest.raises(ValueError, match="one folder train with a folder of"):
        load_data(tmp_path / "b")
    write_pictures(tmp_path / "b", images, labels * 0, ["c/train"])
    with pytest.raises(ValueError, match=r"for every class\. Received: train"):
        load_data(tmp_path / "b" / "c")
    write_pictures(tmp_path / "c", images[:5], np.arange(5), "abcde")
    with pytest.raises(ValueError, match="enough images of every class"):
        load_data(tmp_path / "c")
