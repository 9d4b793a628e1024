"""Data sets in folders with one folder of pictures per class."""

import itertools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_lenet.datasets.split import Split, split_file
from keras_lenet.files.formats import FileFormatError
from keras_lenet.types import Array

_TRAIN, _TEST = ("train", "training"), ("test", "testing")
# Borders of noise are darker, borders of paper are not.
_BRIGHT = 160
_SUFFIXES = tuple(".png .jpg .jpeg .bmp .gif .tif .tiff .webp".split())


def read_class_folders(folder: Path) -> Split | None:
    """Reads class folders, or returns `None` if there are none."""
    folders = _subfolders(folder)
    train, test = (
        [sub for sub in folders if sub.name.lower() in names]
        for names in (_TRAIN, _TEST)
    )
    # A class may be called "train", too, but its folder holds no folders.
    if (train and test) or any(_subfolders(sub) for sub in train + test):
        return _read_halves(
            _only_half(folder, "train", train), _only_half(folder, "test", test)
        )
    if not any(map(_pictures, folders)):
        return None
    classes = _classes(folder)
    if len(classes) < 2:
        raise FileFormatError(
            folder, "a folder of pictures", "for every class", classes[0]
        )
    paths, labels = _labelled_pictures(folder, classes)
    train_data, test_data, _ = split_file(folder, _read_pictures(paths), labels)
    return Split(train_data, test_data, classes)


def _only_half(folder: Path, half: str, candidates: list[Path]) -> Path:
    if len(candidates) != 1 or not _subfolders(candidates[0]):
        raise FileFormatError(
            folder,
            f"one folder {half}",
            "with a folder of pictures for every class",
            ", ".join(sub.name for sub in _subfolders(folder)),
            "Or give class folders alone; they are split into training and "
            "test.",
        )
    return candidates[0]


def _read_halves(train: Path, test: Path) -> Split:
    classes = _classes(train)
    unknown = sorted(set(_classes(test)) - set(classes))
    if unknown:
        raise FileFormatError(
            test, "the classes", f"of {train}", f"also {', '.join(unknown)}"
        )
    train_paths, y_train = _labelled_pictures(train, classes)
    test_paths, y_test = _labelled_pictures(test, classes)
    images = _read_pictures(train_paths + test_paths)
    count = len(train_paths)
    return Split((images[:count], y_train), (images[count:], y_test), classes)


def _subfolders(folder: Path) -> list[Path]:
    folders = (path for path in folder.iterdir() if path.is_dir())
    return sorted(
        (path for path in folders if not path.name.startswith(".")),
        # On Windows, paths compare case-insensitively; Keras compares names.
        key=lambda path: path.name,
    )


def _classes(folder: Path) -> list[str]:
    """Returns the names of the class folders, in Keras' order."""
    folders = _subfolders(folder)
    for sub in folders:
        if not _pictures(sub):
            raise FileFormatError(
                sub,
                "pictures",
                f"with the suffixes {', '.join(_SUFFIXES)}",
                "none",
                "Delete the folder if it is not a class.",
            )
    return [sub.name for sub in folders]


def _pictures(folder: Path) -> list[Path]:
    """Returns the pictures in a folder and its subfolders, in Keras' order."""
    return [
        Path(root, name)
        for root, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
    ]


def _labelled_pictures(
    folder: Path, classes: Sequence[str]
) -> tuple[list[Path], Array]:
    # A class may have no test pictures; `os.walk` yields nothing then.
    by_class = [_pictures(folder / name) for name in classes]
    labels = np.repeat(np.arange(len(classes)), list(map(len, by_class)))
    return list(itertools.chain(*by_class)), labels


def _read_pictures(paths: Sequence[Path]) -> Array:
    """Reads pictures of equal size, as grey images if all of them are grey."""
    # Importing Pillow and SciPy takes a while, and other data sets need
    # neither.
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
                "Resize all pictures to one size, e.g. with "
                "`PIL.ImageOps.fit(image, (28, 28))`, or use "
                "`keras.utils.image_dataset_from_directory(folder, "
                "image_size=(28, 28))`, which resizes them.",
            )
        image[:] = picture
    if not (images == images[..., :1]).all():
        return images
    grey = np.ascontiguousarray(images[..., :1])
    _warn_of_bright_ground(grey, paths[0].parent.parent)
    return grey


def _warn_of_bright_ground(images: Array, folder: Path) -> None:
    """Warns of dark strokes on bright ground, which are turned for reading."""
    borders = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    if np.median(np.concatenate(borders, axis=1)) > _BRIGHT:
        warnings.warn(
            f"{folder}: the pictures have bright borders. A network that "
            "learns dark strokes on bright ground misreads what "
            "`prepare_character`, `keras-lenet predict` and `keras-lenet read` "
            "give it: bright strokes on black. If these are characters, train "
            "on `255 - images`, or invert the files, e.g. with "
            "`PIL.ImageOps.invert`.",
            stacklevel=2,
        )
