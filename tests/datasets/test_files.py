import gzip
import itertools
import shutil
import string
import struct

import numpy as np
import pytest
from PIL import Image

from keras_lenet.cli import main
from keras_lenet.datasets import load_data
from keras_lenet.files import FileFormatError
from tests.datasets.helpers import (
    check,
    check_split,
    idx,
    write_csv,
    write_idx,
    write_pictures,
)
from tests.helpers import once

# Reading files does not depend on the backend.
pytestmark = once


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (23, 28, 28)).astype("uint8")


@pytest.fixture
def labels(generator):
    return generator.permutation(np.arange(23) % 5)


# IDX


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("spelling", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw"])
def test_idx_files_are_found_under_all_their_names(
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
def test_emnist_files_are_transposed_and_labelled_from_0(
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


def test_an_uncompressed_idx_file_takes_precedence_over_a_gzip_file(
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


def test_the_error_for_a_single_idx_file_names_its_folder(
    tmp_path, images, labels
):
    write_idx(tmp_path, images, labels)
    with pytest.raises(ValueError, match=f"Give the folder, {tmp_path}"):
        load_data(tmp_path / "train-images-idx3-ubyte")


def test_the_error_says_that_an_idx_file_is_a_web_page(
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
        "gzip cut": (packed[:-9], "an IDX file that is intact"),
        "gzip damaged": (broken_sum, "an IDX file that is intact"),
    }


@pytest.mark.parametrize("damage", damaged_idx_files())
def test_the_error_names_a_damaged_idx_file(damage, tmp_path):
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


def test_the_label_may_be_in_another_column(tmp_path, images, labels):
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


def test_a_csv_file_without_labels_is_rejected(tmp_path, images, labels):
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
        r"pixel1, pixel2, \.\.\. Give a file with labels",
    ):
        load_data(tmp_path)
    check_split(load_data(tmp_path / "train.csv"), images, labels)


def test_several_csv_data_sets_in_a_folder_are_listed(tmp_path, images, labels):
    for name in ("mnist_train", "mnist_test", "train", "test"):
        write_csv(tmp_path / f"{name}.csv", labels, images)
    with pytest.raises(ValueError, match=r"files of 2.*mnist_train\.csv, tr"):
        load_data(tmp_path)


def test_the_error_for_a_training_csv_file_alone_names_what_is_missing(
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
        ("1,2\n3,256\n", "from 0 to 255.*Received: 256"),
        ("1,0.5\n", "whole numbers.*Scale the pixels"),
        ("1,2\n3\n", "same number of them.*changed from 2 to 1"),
        ("1;2\n", "comma-separated"),
        ("1,2,3\n", "a square grey image. Received: 3 columns"),
        ("1\n", "a square grey image. Received: 1 columns"),
        ("1,-1\n", "from 0 to 255"),
        ("<html></html>", "a CSV file. Received: a web page. Download"),
        ("1,2\n0,3\n", "enough images of every class"),
    ],
)
def test_a_bad_csv_file_is_rejected(content, message, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=message) as info:
        load_data(path)
    assert "mine.csv" in str(info.value)


# .npz


def test_class_names_come_from_the_npz_file(tmp_path, images, labels):
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


def test_medmnist_array_names_are_accepted(tmp_path, images, labels):
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
def test_the_suggested_conversion_to_uint8_loses_nothing(
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
def test_the_error_names_the_kind_of_a_file_that_is_not_npz(
    content, received, tmp_path
):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    message = rf"mine\.npz: expected an `\.npz` file\. Received: {received}"
    with pytest.raises(FileFormatError, match=message):
        load_data(path)


# On the command line


def test_the_command_line_reports_a_bad_picture_in_one_line(tmp_path, capsys):
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


def test_the_command_line_reports_bad_data_in_one_line(
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
