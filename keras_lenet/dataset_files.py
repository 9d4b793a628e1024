"""Data sets in files: IDX, CSV, folders of pictures and `.npz`."""

import itertools
import math
import os
import re
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_lenet import files
from keras_lenet.files import FileFormatError

Array = npt.NDArray[Any]

# The balanced split merges the small letters that look like capitals
# (https://arxiv.org/abs/1702.05373, section II-B).
_MERGED = string.digits + string.ascii_uppercase + "abdefghnqrt"
EMNIST_CLASSES = {
    "letters": string.ascii_uppercase,
    "balanced": _MERGED,
    "bymerge": _MERGED,
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "digits": string.digits,
    "mnist": string.digits,
}

_IDX = re.compile(
    r"(?P<set>.*?)(?P<half>train|t10k|test)-(?P<kind>images|labels)"
    r"[-.]idx[13]-ubyte(\.gz)?"
)
_CSV = re.compile(
    r"(?P<set>.*?)(?<![a-z])(?P<half>train|test)(?P<kind>.*)\.csv", re.I
)
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
_NPZ_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    # Those of MedMNIST.
    ("train_images", "train_labels", "test_images", "test_labels"),
)


class Split(NamedTuple):
    """Images and labels for training and test."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    class_names: Sequence[str] | None = None


def read(path: Path) -> Split:
    """Reads a data set from a file or a folder.

    Args:
        path: Path of an `.npz` or CSV file, or of a folder of IDX files, CSV
            files or class folders.

    Returns:
        A `Split`, whose images and labels may still be of any shape, dtype
        and range.

    Raises:
        ValueError: When it is something else, or damaged.
    """
    if not path.is_dir():
        if _IDX.fullmatch(path.name):
            raise FileFormatError(
                path,
                "a folder",
                "with images and labels for training and test",
                "one of its files",
                f"Give the folder, {path.parent}.",
            )
        is_csv = path.suffix.lower() == ".csv"
        return _read_csv_file(path) if is_csv else _read_npz(path)
    for read_folder in (_read_idx, _read_csv_folder, _read_class_folders):
        found = read_folder(path)
        if found is not None:
            return found
    raise ValueError(
        f"{path}: expected a folder with MNIST's four IDX files, with CSV "
        "files for training and test, or with a folder of pictures for every "
        "class. Received: a folder without train-images-idx3-ubyte or "
        "anything else of that."
    )


def split(images: Array, labels: Array, test_size: float) -> Split:
    """Sets images for test apart, of every class the same share.

    Args:
        images: Array of shape `(n, ...)`.
        labels: Array of integers of shape `(n,)`.
        test_size: Integer, how many, or float, which share.

    Returns:
        A `Split`, which is the same every time.

    Raises:
        ValueError: When a class has too few images.
    """
    from sklearn.model_selection import train_test_split

    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=test_size, stratify=labels, random_state=98
    )
    return Split((x_train, y_train), (x_test, y_test))


def _split(path: Path, images: Array, labels: Array) -> Split:
    try:
        return split(images, labels, 0.2)
    except ValueError as error:
        raise FileFormatError(
            path,
            "enough images",
            "of every class to set a fifth of them apart for test",
            error,
            "Give images for training and test apart.",
        ) from error


def _read_idx(folder: Path) -> Split | None:
    sets = _sets(folder, folder.iterdir(), _IDX) or _sets(
        folder,
        itertools.chain(folder.glob("raw/*"), folder.glob("*/raw/*")),
        _IDX,
    )
    if not sets:
        return None
    parts = [("train", "images"), ("train", "labels")]
    parts += [("test", "images"), ("test", "labels")]
    name, paths = _only_set(folder, sets, parts)
    halves = []
    for half in ("train", "test"):
        images_file, labels_file = paths[half, "images"], paths[half, "labels"]
        images = files.read_idx(images_file, 3)
        labels = files.read_idx(labels_file, 1)
        if len(images) != len(labels):
            raise FileFormatError(
                images_file,
                "as many images as there are labels in",
                f"{labels_file}, {len(labels)}",
                len(images),
            )
        halves.append(_mended(name, images, labels))
    return Split(halves[0], halves[1], _emnist_classes(name))


def _sets(
    folder: Path, paths: Iterable[Path], pattern: re.Pattern[str]
) -> dict[str, dict[tuple[str, str], Path]]:
    """Returns what data sets the files belong to, and which part each is."""
    sets: dict[str, dict[tuple[str, str], Path]] = {}
    # A file that is there plain and compressed is read plain.
    for path in sorted(paths):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            half = match["half"].lower().replace("t10k", "test")
            kind = match["kind"]
            place = path.parent.relative_to(folder) / match["set"].rstrip("-_")
            if pattern is _CSV:
                place, kind = place / kind.strip("-_"), ""
            sets.setdefault(place.as_posix(), {}).setdefault((half, kind), path)
    return sets


def _only_set(
    folder: Path,
    sets: dict[str, dict[tuple[str, str], Path]],
    parts: Sequence[tuple[str, str]],
) -> tuple[str, dict[tuple[str, str], Path]]:
    """Returns the data set of a folder that has no more than one."""
    whole = {
        name: paths
        for name, paths in sets.items()
        if all(part in paths for part in parts)
    }
    if len(whole) > 1:
        firsts = [
            paths[parts[0]].relative_to(folder) for paths in whole.values()
        ]
        raise ValueError(
            f"{folder}: expected the files of one data set. Received: files of "
            f"{len(whole)}, with {', '.join(map(str, firsts))}. Give the "
            "folder of one of them, or copy the files of one into a folder of "
            "its own."
        )
    if not whole:
        name, paths = next(iter(sets.items()))
        missing = next(part for part in parts if part not in paths)
        raise ValueError(
            f"{folder}: expected files for training and test. Received: "
            f"{', '.join(sorted(path.name for path in paths.values()))}, "
            f"without {' '.join(missing).rstrip()}."
        )
    ((name, paths),) = whole.items()
    return name, paths


def _emnist_classes(name: str) -> str | None:
    """Returns the class names of a data set that is a split of EMNIST."""
    match = re.search(r"(^|/)emnist-(\w+)$", name)
    return EMNIST_CLASSES.get(match[2]) if match else None


def _mended(name: str, images: Array, labels: Array) -> tuple[Array, Array]:
    """Turns EMNIST upright, and counts its letters from 0."""
    labels = labels.astype("int64")
    if _emnist_classes(name) is not None:
        images = images.transpose(0, 2, 1)
        labels -= name.endswith("letters")
    return images, labels


def _read_csv_folder(folder: Path) -> Split | None:
    sets = _sets(folder, folder.iterdir(), _CSV)
    if not sets:
        return None
    name, paths = _only_set(folder, sets, [("train", ""), ("test", "")])
    train, test = (
        _mended(name, *_read_csv(paths[half, ""])) for half in ("train", "test")
    )
    return Split(train, test, _emnist_classes(name))


def _read_csv_file(path: Path) -> Split:
    name = next(iter(_sets(path.parent, [path], _CSV)), "")
    train, test, _ = _split(path, *_mended(name, *_read_csv(path)))
    return Split(train, test, _emnist_classes(name))


def _read_csv(path: Path) -> tuple[Array, Array]:
    """Reads a label and the pixels of a square grey image from every row."""
    files.check_kind(path, "a CSV file", "text")
    with (
        path.open(encoding="utf-8-sig") as file,
        files.parsing(path, "a CSV file"),
    ):
        first = file.readline()
        names = [name.strip(' \r\n"').lower() for name in first.split(",")]
        column = 0
        if any(name.isidentifier() for name in names):
            columns = [names.index(n) for n in ("label", "class") if n in names]
            if not columns:
                raise FileFormatError(
                    path,
                    "a column",
                    "called label",
                    f"{', '.join(names[:3])}, ...",
                    "Give a file with labels; it is split into training and "
                    "test.",
                )
            column = columns[0]
            first = file.readline()
        if not first.strip():
            raise FileFormatError(path, "rows", "of numbers", "none")
        try:
            values = np.loadtxt(
                itertools.chain([first], file),
                "uint8",
                comments=None,
                delimiter=",",
                ndmin=2,
                quotechar='"',
            )
        except ValueError as error:
            raise FileFormatError(
                path,
                "rows",
                "of equally many whole numbers from 0 to 255, with commas "
                "between them",
                str(error).rstrip("."),
                "Scale the pixels to [0, 255].",
            ) from error
    pixels = np.delete(values, column, axis=1)
    side = math.isqrt(pixels.shape[1])
    if side == 0 or side**2 != pixels.shape[1]:
        raise FileFormatError(
            path,
            "rows",
            "of a label and the pixels of a square grey image",
            f"{values.shape[1]} columns",
        )
    return pixels.reshape(-1, side, side), values[:, column]


def _read_class_folders(folder: Path) -> Split | None:
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
    train, test, _ = _split(folder, _read_pictures(paths), labels)
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


def _read_npz(path: Path) -> Split:
    arrays = files.read_npz(path, strings=True)
    names = _NPZ_NAMES[0]
    if "train_images" in arrays:
        names = _NPZ_NAMES[1]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise FileFormatError(
            path,
            "the arrays",
            f"{', '.join(names[:-1])} and {names[-1]}",
            f"none called {missing[0]}",
            "Save them with `numpy.savez`.",
        )
    x_train, y_train, x_test, y_test = (arrays[name] for name in names)
    class_names = None
    if "class_names" in arrays:
        found = arrays["class_names"]
        if found.ndim != 1:
            raise FileFormatError(
                path, "class_names", "of shape (n,)", f"shape {found.shape}"
            )
        # Strings of no valid characters raise an error.
        with files.parsing(path, "an array class_names"):
            class_names = [str(name) for name in found]
    return Split((x_train, y_train), (x_test, y_test), class_names)
