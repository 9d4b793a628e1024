"""Writing data sets to files, and checking what `load_data` reads."""

import struct

import numpy as np
import pytest
from PIL import Image


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
    """Checks that both halves equal the images and labels."""
    for x, y in data:
        np.testing.assert_array_equal(x[..., 0], images)
        np.testing.assert_array_equal(y, labels)
        assert x.dtype == "uint8" and y.dtype == "int64" and x.ndim == 4


def check_split(data, images, labels):
    """Checks that each image is in one half, with its label."""
    (x_train, y_train), (x_test, y_test) = data
    assert len(x_test) == pytest.approx(0.2 * len(images), abs=1)
    loaded = np.concatenate([x_train, x_test])
    loaded_labels = np.concatenate([y_train, y_test])
    originals = images.reshape(loaded.shape)
    order = [
        int(np.flatnonzero((originals == image).all(axis=(1, 2, 3)))[0])
        for image in loaded
    ]
    assert sorted(order) == list(range(len(images)))
    np.testing.assert_array_equal(loaded_labels, labels[order])
    shares = np.bincount(y_test, minlength=5) - 0.2 * np.bincount(labels)
    assert np.abs(shares).max() < 1


def write_pictures(folder, images, labels, names, suffix="png"):
    """Writes pictures whose sorted names keep the order of the images."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / names[label] / f"{index:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if suffix == "webp" else {}
        Image.fromarray(image).save(path, **options)
