"""Data sets in folders with one folder of pictures per class."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_lenet.datasets.split import Split, split_file
from keras_lenet.files.formats import FileFormatError
from keras_lenet.types import Array

_HALVES = {"train": ("train", "training"), "test": ("test", "testing")}


_PICTURES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
)


def read_class_folders(folder: Path) -> Split | None:
    """Reads class folders, or returns `None` if there are none."""
    halves = {
        half: [sub for sub in _subfolders(folder) if sub.name.lower() in names]
        for half, names in _HALVES.items()
    }
    found = [sub for subs in halves.values() for sub in subs]
    if all(halves.values()) or any(_subfolders(sub) for sub in found):
        return _read_halves(folder, halves)
    if not any(_pictures(sub) for sub in _subfolders(folder)):
        return None
    classes = _classes(folder)
    if len(classes) < 2:
        raise FileFormatError(
            folder, "a folder of pictures", "for every class", classes[0]
        )
    paths, labels = _pictures_of_classes(folder, classes)
    train, test, _ = split_file(folder, _read_pictures(paths), labels)
    return Split(train, test, classes)


def _read_halves(folder: Path, halves: dict[str, list[Path]]) -> Split:
    """Reads class folders within a folder for training and one for test."""
    for half, subs in halves.items():
        if len(subs) != 1 or not _subfolders(subs[0]):
            raise FileFormatError(
                folder,
                f"one folder {half}",
                "with a folder of pictures for every class",
                ", ".join(sub.name for sub in _subfolders(folder)),
                "Or give class folders alone; they are split into training "
                "and test.",
            )
    train, test = halves["train"][0], halves["test"][0]
    classes = _classes(train)
    others = sorted(set(_classes(test)) - set(classes))
    if others:
        raise FileFormatError(
            test, "the classes", f"of {train}", f"also {', '.join(others)}"
        )
    train_paths, y_train = _pictures_of_classes(train, classes)
    test_paths, y_test = _pictures_of_classes(test, classes)
    images = _read_pictures(train_paths + test_paths)
    count = len(train_paths)
    return Split((images[:count], y_train), (images[count:], y_test), classes)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        ),
        key=lambda path: path.name,
    )


def _classes(folder: Path) -> list[str]:
    """Returns the names of the class folders, in the order of Keras."""
    for sub in _subfolders(folder):
        if not _pictures(sub):
            raise FileFormatError(
                sub,
                "pictures",
                f"with the suffixes {', '.join(_PICTURES)}",
                "none",
                "Delete the folder if it is not a class.",
            )
    return [sub.name for sub in _subfolders(folder)]


def _pictures(folder: Path) -> list[Path]:
    """Returns the pictures in a folder, in the order of Keras."""
    return [
        Path(root, name)
        for root, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if name.lower().endswith(_PICTURES) and not name.startswith(".")
    ]


def _pictures_of_classes(
    folder: Path, classes: Sequence[str]
) -> tuple[list[Path], Array]:
    by_class = [
        _pictures(folder / name) if (folder / name).is_dir() else []
        for name in classes
    ]
    labels = np.repeat(np.arange(len(classes)), list(map(len, by_class)))
    return list(itertools.chain(*by_class)), labels


def _read_pictures(paths: Sequence[Path]) -> Array:
    """Reads pictures of one size, as grey images if all of them are grey."""
    # Pillow and SciPy take a while to be imported.
    from keras_lenet.pictures import load_picture

    first = load_picture(paths[0])
    height, width, _ = first.shape
    images = np.empty((len(paths), *first.shape), "uint8")
    for path, image in zip(paths, images, strict=True):
        picture = load_picture(path)
        if picture.shape != first.shape:
            raise FileFormatError(
                path,
                f"{height}x{width} pixels,",
                f"as {paths[0]} has",
                f"{picture.shape[0]}x{picture.shape[1]}",
                "Bring all pictures to one size, e.g. with "
                "`PIL.ImageOps.fit(image, (28, 28))`, or use "
                "`keras.utils.image_dataset_from_directory(folder, "
                "image_size=(28, 28))`, which does.",
            )
        image[:] = picture
    is_grey = (images == images[..., :1]).all()
    return np.ascontiguousarray(images[..., :1]) if is_grey else images
