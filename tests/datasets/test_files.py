import gzip
import itertools
import shutil
import string
import struct

import keras
import numpy as np
import pytest
from PIL import Image

from keras_lenet.cli import main
from keras_lenet.datasets import load_data
from keras_lenet.files import FileFormatError
from tests.helpers import needs_tensorflow, once

# What reads files does not ask Keras what it computes with.
pytestmark = once


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (23, 28, 28)).astype("uint8")


@pytest.fixture
def labels(generator):
    return generator.permutation(np.arange(23) % 5)


def idx(array):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + shape + array.tobytes()


def write_idx(
    folder,
    images,
    labels,
    spelling="{}-{}-idx{}-ubyte",
    test="t10k",
    pack=bytes,
):
    folder.mkdir(parents=True, exist_ok=True)
    for half in ("train", test):
        for kind, array in (("images", images), ("labels", labels)):
            path = folder / spelling.format(half, kind, array.ndim)
            path.write_bytes(pack(idx(array.astype("uint8"))))


def write_csv(path, labels, pixels, header=""):
    rows = np.column_stack([labels, pixels.reshape(len(labels), -1)])
    np.savetxt(path, rows, "%d", ",", header=header, comments="")


def check(data, images, labels):
    """Checks that both halves are the images and labels."""
    for x, y in data:
        np.testing.assert_array_equal(x[..., 0], images)
        np.testing.assert_array_equal(y, labels)
        assert x.dtype == "uint8" and y.dtype == "int64" and x.ndim == 4


def check_split(data, images, labels):
    """Checks that every image is in one of the halves, with its label."""
    (x_train, y_train), (x_test, y_test) = data
    assert len(x_test) == pytest.approx(0.2 * len(images), abs=1)
    found = np.concatenate([x_train, x_test])
    found_labels = np.concatenate([y_train, y_test])
    originals = images.reshape(found.shape)
    order = [
        int(np.flatnonzero((originals == image).all(axis=(1, 2, 3)))[0])
        for image in found
    ]
    assert sorted(order) == list(range(len(images)))
    np.testing.assert_array_equal(found_labels, labels[order])
    shares = np.bincount(y_test, minlength=5) - 0.2 * np.bincount(labels)
    assert np.abs(shares).max() < 1


# IDX


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw"])
def test_idx_files_are_found_by_all_their_names(
    folder, spelling, suffix, pack, tmp_path, images, labels
):
    write_idx(tmp_path / folder, images, labels, spelling + suffix, pack=pack)
    data = load_data(tmp_path)
    check(data, images, labels)
    assert data.class_names == list("01234")


@pytest.mark.parametrize(
    ("split", "first", "names"),
    [
        ("letters", 1, string.ascii_uppercase),
        ("balanced", 0, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        ("digits", 0, string.digits),
        ("mnist", 0, string.digits),
        ("byclass", 0, string.digits + string.ascii_letters.swapcase()),
    ],
)
def test_emnists_own_files_are_turned_upright_and_start_at_0(
    split, first, names, tmp_path, images, labels
):
    stored = images.transpose(0, 2, 1)
    spelling = f"emnist-{split}-{{}}-{{}}-idx{{}}-ubyte.gz"
    write_idx(
        tmp_path / "a", stored, labels + first, spelling, "test", gzip.compress
    )
    data = load_data(tmp_path / "a")
    check(data, images, labels)
    assert data.class_names == list(names)

    (tmp_path / "b").mkdir()
    for half in ("train", "test"):
        path = tmp_path / "b" / f"emnist-{split}-{half}.csv"
        write_csv(path, labels + first, stored)
    data = load_data(tmp_path / "b")
    check(data, images, labels)
    assert data.class_names == list(names)
    data = load_data(tmp_path / "b" / f"emnist-{split}-train.csv")
    check_split(data, images, labels)
    assert data.class_names == list(names)


def test_of_a_file_that_is_there_plain_and_packed_the_plain_one_is_read(
    tmp_path, images, labels
):
    write_idx(tmp_path, images, labels)
    write_idx(
        tmp_path,
        255 - images,
        labels,
        "{}-{}-idx{}-ubyte.gz",
        pack=gzip.compress,
    )
    check(load_data(tmp_path), images, labels)


def test_several_data_sets_in_a_folder_are_listed(tmp_path, images, labels):
    write_idx(tmp_path / "MNIST" / "raw", images, labels)
    write_idx(tmp_path / "FashionMNIST" / "raw", 255 - images, labels)
    with pytest.raises(
        ValueError,
        match=r"files of 2, with FashionMNIST.raw.train-images-idx3-ubyte, "
        r"MNIST.raw.train-images-idx3-ubyte\. Give the folder of one",
    ):
        load_data(tmp_path)
    check(load_data(tmp_path / "MNIST"), images, labels)
    for split in ("digits", "letters"):
        spelling = f"emnist-{split}-{{}}-{{}}-idx{{}}-ubyte"
        write_idx(tmp_path / "gzip", images, labels, spelling, "test")
    with pytest.raises(ValueError, match=r"emnist-digits-train.* emnist-lett"):
        load_data(tmp_path / "gzip")


def test_a_missing_idx_file_is_named(tmp_path, images, labels):
    write_idx(tmp_path, images, labels)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="without test labels"):
        load_data(tmp_path)


def test_one_idx_file_alone_is_refused_with_its_folder(
    tmp_path, images, labels
):
    write_idx(tmp_path, images, labels)
    with pytest.raises(ValueError, match=f"Give the folder, {tmp_path}"):
        load_data(tmp_path / "train-images-idx3-ubyte")


def test_a_web_page_in_place_of_an_idx_file_is_called_so(
    tmp_path, images, labels
):
    write_idx(tmp_path, images, labels)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_text("<!DOCTYPE html><html>")
    with pytest.raises(
        ValueError,
        match=r"labels-idx1-ubyte: expected an IDX file\. "
        r"Received: a web page\. Download the file itself\.",
    ):
        load_data(tmp_path)


# CSV

KAGGLE = "label," + ",".join(f"pixel{i}" for i in range(784))
MNIST_IN_CSV = "label," + ",".join(
    f"{i}x{j}" for i in range(1, 29) for j in range(1, 29)
)


@pytest.mark.parametrize("header", ["", KAGGLE, MNIST_IN_CSV])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_is_split_with_the_same_share_of_every_class(
    header, end, tmp_path, images, labels
):
    path = tmp_path / "train.csv"
    write_csv(path, labels, images, header)
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    data = load_data(path)
    check_split(data, images, labels)
    assert data.class_names == list("01234")
    again = load_data(path)
    np.testing.assert_array_equal(again[1][0], data[1][0])


def test_the_label_may_be_another_column(tmp_path, images, labels):
    pixels = images.reshape(23, -1)
    names = [f'"pixel{i}"' for i in range(784)] + ['"class"']
    rows = np.column_stack([pixels, labels])
    path = tmp_path / "mnist_784.csv"
    np.savetxt(path, rows, "%d", ",", header=",".join(names), comments="")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check_split(load_data(path), images, labels)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("mnist_train.csv", "mnist_test.csv"),
        ("fashion-mnist_train.csv", "fashion-mnist_test.csv"),
        ("Train.csv", "Test.csv"),
        ("train_small.csv", "test_small.csv"),
        ("latest_train.csv", "latest_test.csv"),
    ],
)
def test_csv_files_for_training_and_test_are_found_by_their_names(
    train, test, tmp_path, images, labels
):
    write_csv(tmp_path / train, labels, images, KAGGLE)
    write_csv(tmp_path / test, labels[::-1], images[::-1])
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    (x_train, y_train), (x_test, y_test) = load_data(tmp_path)
    np.testing.assert_array_equal(x_train[..., 0], images)
    np.testing.assert_array_equal(y_train, labels)
    np.testing.assert_array_equal(x_test[..., 0], images[::-1])
    np.testing.assert_array_equal(y_test, labels[::-1])


def test_kaggles_file_without_labels_is_refused(tmp_path, images, labels):
    write_csv(tmp_path / "train.csv", labels, images, KAGGLE)
    np.savetxt(
        tmp_path / "test.csv",
        images.reshape(23, -1),
        "%d",
        ",",
        header=KAGGLE.removeprefix("label,"),
        comments="",
    )
    with pytest.raises(
        FileFormatError,
        match=r"test\.csv: expected a column called label\. Received: pixel0, "
        r"pixel1, pixel2, \.\.\.\. Give a file with labels",
    ):
        load_data(tmp_path)
    check_split(load_data(tmp_path / "train.csv"), images, labels)


def test_several_data_sets_as_csv_are_listed(tmp_path, images, labels):
    for name in ("mnist_train", "mnist_test", "train", "test"):
        write_csv(tmp_path / f"{name}.csv", labels, images)
    with pytest.raises(ValueError, match=r"files of 2.*mnist_train\.csv, tr"):
        load_data(tmp_path)


def test_a_csv_file_for_training_alone_says_what_is_missing(
    tmp_path, images, labels
):
    write_csv(tmp_path / "mnist_train.csv", labels, images)
    with pytest.raises(ValueError, match=r"mnist_train\.csv, without test"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a CSV file. Received: an empty file"),
        ("label,a\n", "rows of numbers. Received: none"),
        ("1,2\n3,256\n", "from 0 to 255.*could not convert string '256'"),
        ("1,0.5\n", "whole numbers.*Scale the pixels"),
        ("1,2\n3\n", "equally many.*changed from 2 to 1"),
        ("1;2\n", "commas between them"),
        ("1,2,3\n", "a square grey image. Received: 3 columns"),
        ("1\n", "a square grey image. Received: 1 columns"),
        ("1,-1\n", "from 0 to 255"),
        ("<html></html>", "a CSV file. Received: a web page. Download"),
        ("1,2\n0,3\n", "enough images of every class"),
    ],
)
def test_a_bad_csv_file_is_refused(content, message, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=message) as info:
        load_data(path)
    assert "mine.csv" in str(info.value)


# Class folders


def write_pictures(folder, images, labels, names, suffix="png"):
    """Writes pictures, whose names have the order of the images."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / names[label] / f"{index:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if suffix == "webp" else {}
        Image.fromarray(image).save(path, **options)


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "Testing")]
)
@pytest.mark.parametrize("suffix", ["png", "TIF", "webp"])
def test_class_folders_are_read_in_the_order_of_their_names(
    suffix, train, test, tmp_path, images, labels
):
    names = ["b", "a", "10", "9", "A"]
    write_pictures(tmp_path / train, images, labels, names, suffix)
    write_pictures(tmp_path / test, images[::-1], labels[::-1], names, suffix)
    write_pictures(tmp_path / "val", images, labels, ["other"] * 5, suffix)
    # What macOS leaves.
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


@needs_tensorflow
def test_class_folders_are_read_as_keras_reads_them(tmp_path, images, labels):
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


def test_class_folders_alone_are_split(tmp_path, images, labels):
    write_pictures(tmp_path, images, labels, "abcde")
    data = load_data(tmp_path)
    check_split(data, images, labels)
    assert data.class_names == list("abcde")


def test_a_class_may_be_called_train(tmp_path, images, labels):
    write_pictures(tmp_path, images, labels, ["plane", "train", "a", "b", "c"])
    data = load_data(tmp_path)
    assert data.class_names == ["a", "b", "c", "plane", "train"]


def test_pictures_are_colour_if_one_of_them_is(tmp_path, images, labels):
    colour = np.repeat(images[..., np.newaxis], 3, axis=-1)
    write_pictures(tmp_path, colour, labels, "abcde")
    assert load_data(tmp_path)[0][0].shape[1:] == (28, 28, 1)
    colour[4, 5, 6] = 1, 2, 3
    write_pictures(tmp_path, colour, labels, "abcde")
    check_split(load_data(tmp_path), colour, labels)


def test_pictures_of_several_sizes_are_refused_with_what_mends_it(
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


def test_a_damaged_picture_is_refused_by_name(tmp_path, images, labels):
    write_pictures(tmp_path, images, labels, "abcde")
    path = next((tmp_path / "c").iterdir())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileFormatError, match=f"{path.name}: expected a PNG"):
        load_data(tmp_path)


def test_bad_class_folders_are_refused(tmp_path, images, labels):
    write_pictures(tmp_path / "a" / "train", images, labels, "abcde")
    with pytest.raises(ValueError, match=r"one folder test .* Received: train"):
        load_data(tmp_path / "a")
    write_pictures(tmp_path / "a" / "test", images, labels, "abcdf")
    with pytest.raises(ValueError, match=r"test: .*train\. Received: also f"):
        load_data(tmp_path / "a")
    (tmp_path / "a" / "train" / "f").mkdir()
    with pytest.raises(ValueError, match=r"f: expected pictures .*\.png.*none"):
        load_data(tmp_path / "a")
    # Without labels.
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


# .npz


def test_class_names_of_an_npz_file_are_taken(tmp_path, images, labels):
    path = tmp_path / "mine.npz"
    names = ["zero", "eins", "δύο", "три", "四", "none has it"]
    arrays = {"x_train": images, "x_test": images}
    arrays |= {"y_train": labels, "y_test": labels}
    np.savez(path, class_names=names, **arrays)
    data = load_data(path)
    check(data, images, labels)
    assert data.class_names == names
    np.savez(path, class_names=names[:4], **arrays)
    with pytest.raises(FileFormatError, match=r"at least 5 classes.*Recei.*4"):
        load_data(path)
    np.savez(path, class_names="abcde", **arrays)
    with pytest.raises(FileFormatError, match=r"class_names of shape \(n,\)"):
        load_data(path)
    np.savez(path, class_names=np.array(names, object), **arrays)
    with pytest.raises(FileFormatError, match=r"class_names\.npy of number"):
        load_data(path)
    invalid = np.full((5, 1), 0x110000, "uint32").view("<U1")[:, 0]
    np.savez(path, class_names=invalid, **arrays)
    with pytest.raises(FileFormatError, match="an array class_names"):
        load_data(path)


def test_the_names_of_medmnist_are_read(tmp_path, images, labels):
    path = tmp_path / "pneumoniamnist.npz"
    column = labels[:, np.newaxis].astype("uint8")
    np.savez(
        path,
        train_images=images,
        train_labels=column,
        val_images=images[:2],
        val_labels=column[:2],
        test_images=images,
        test_labels=column,
    )
    check(load_data(path), images, labels)
    np.savez(path, train_images=images, train_labels=column)
    with pytest.raises(
        ValueError, match=r"test_labels.*none called test_images"
    ):
        load_data(path)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda x: x / 255, r"np\.rint\(255 \* images\)\.astype\('uint8'\)"),
        (
            lambda x: (x / 255).astype("float16"),
            r"np\.rint\(255 \* images\)\.astype\('uint8'\)",
        ),
        (lambda x: x > 127, r"np\.rint\(255 \* images\)\.astype\('uint8'\)"),
        (lambda x: x * 1.0, r"np\.rint\(images\)\.astype\('uint8'\)"),
        (lambda x: x.astype(int), r"np\.rint\(images\)\.astype\('uint8'\)"),
        (lambda x: x.astype("uint16") * 257, r"Scale them to \[0, 255\] first"),
        (lambda x: x / 127.5 - 1, r"Scale them to \[0, 255\] first"),
        (lambda x: np.where(x == x.max(), np.nan, x), "Scale them .*from nan"),
    ],
)
def test_advice_for_images_that_are_no_bytes_loses_nothing(
    change, advice, tmp_path, images, labels
):
    path = tmp_path / "mine.npz"
    changed = change(images)
    arrays = {"x_train": changed, "x_test": changed}
    np.savez(path, y_train=labels, y_test=labels, **arrays)
    with pytest.raises(FileFormatError, match=advice) as info:
        load_data(path)
    if "Convert" in str(info.value):
        code = str(info.value).split("`")[1]
        mended = eval(code, {"np": np, "images": changed})
        if changed.dtype == bool:
            np.testing.assert_array_equal(mended, 255 * (images > 127))
        else:
            np.testing.assert_array_equal(mended, images)
    else:
        assert "astype" not in str(info.value)


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"label,pixel0\n1,0\n", "text"),
        (b"\r\n<html><head>", "a web page. Download the file itself."),
        (b"\x1f\x8b\x08\0", "a gzip file. Unpack it."),
        (b"", "an empty file"),
    ],
)
def test_what_is_no_npz_file_is_called_what_it_is(content, received, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    message = rf"mine\.npz: expected an `\.npz` file\. Received: {received}"
    with pytest.raises(FileFormatError, match=message):
        load_data(path)


# On the command line


def test_the_command_line_says_in_a_line_what_is_wrong_with_a_picture(
    tmp_path, capsys
):
    (tmp_path / "page.png").write_text("<html>")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    for name, message in {
        "gone.png": "no such file",
        "page.png": "a web page. Download the file itself.",
        "photo.heic": "an HEIC picture. Save it as PNG or JPEG.",
    }.items():
        assert main(["predict", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, (name, error)
        assert str(tmp_path / name) in error


def test_the_command_line_says_in_a_line_what_is_wrong_with_data(
    tmp_path, capsys, images, labels
):
    (tmp_path / "page.npz").write_text("<html>")
    (tmp_path / "page.csv").write_text("<html>")
    write_pictures(tmp_path / "sizes", images, labels, "abcde")
    Image.fromarray(images[0, :20]).save(tmp_path / "sizes" / "b" / "x.png")
    (tmp_path / "nothing").mkdir()
    write_idx(tmp_path / "MNIST" / "raw", images, labels)
    shutil.copytree(tmp_path / "MNIST", tmp_path / "both" / "MNIST")
    shutil.copytree(tmp_path / "MNIST", tmp_path / "both" / "KMNIST")
    cases = itertools.product(
        ["train", "evaluate"],
        {
            "gone.npz": "no such path exists",
            "page.npz": "a web page",
            "page.csv": "a web page",
            "sizes": "20x28",
            "nothing": "without train-images-idx3-ubyte",
            "both": "files of 2",
        }.items(),
    )
    for command, (name, message) in cases:
        output = (
            ["--output", str(tmp_path / "run")] if command == "train" else []
        )
        model = ["mnist"] if command == "evaluate" else []
        arguments = [command, *model, "--dataset", str(tmp_path / name)]
        assert main([*arguments, *output]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, (name, error)
        assert str(tmp_path / name) in error
