"""Data sets in files: IDX, CSV and `.npz`."""

import itertools
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_lenet.datasets.class_folders import read_class_folders
from keras_lenet.datasets.registry import EMNIST_CLASSES
from keras_lenet.datasets.split import Split, split_file
from keras_lenet.files.arrays import read_idx, read_npz
from keras_lenet.files.formats import FileFormatError, check_kind, parsing
from keras_lenet.types import Array

_IDX = re.compile(
    r"(?P<set>.*?)(?P<half>train|t10k|test)-(?P<kind>images|labels)"
    r"[-.]idx[13]-ubyte(\.gz)?"
)
_CSV = re.compile(
    r"(?P<set>.*?)(?<![a-z])(?P<half>train|test)(?P<kind>.*)\.csv", re.I
)
_NPZ = ("x_train", "y_train", "x_test", "y_test")
_MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")

# The files of one data set, by half ("train" or "test") and kind.
_Parts = dict[tuple[str, str], Path]


def read(path: Path) -> Split:
    """Reads a data set from a file or folder, without checking the arrays."""
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
    for read_folder in (_read_idx, _read_csv_folder, read_class_folders):
        found = read_folder(path)
        if found is not None:
            return found
    raise ValueError(
        f"{path}: expected a folder with MNIST's four IDX files, with CSV "
        "files for training and test, or with a folder of pictures for every "
        "class. Received: a folder without train-images-idx3-ubyte or any of "
        "the others."
    )


def _read_idx(folder: Path) -> Split | None:
    # torchvision stores the files in `<name>/raw`.
    raw = itertools.chain(folder.glob("raw/*"), folder.glob("*/raw/*"))
    sets = _find_sets(folder, folder.iterdir(), _IDX)
    sets = sets or _find_sets(folder, raw, _IDX)
    if not sets:
        return None
    name, parts = _only_set(
        folder, sets, itertools.product(("train", "test"), ("images", "labels"))
    )
    halves = []
    for half in ("train", "test"):
        images_file, labels_file = parts[half, "images"], parts[half, "labels"]
        images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
        if len(images) != len(labels):
            raise FileFormatError(
                images_file,
                "as many images as there are labels in",
                f"{labels_file}, {len(labels)}",
                len(images),
            )
        halves.append(_fix_emnist(name, images, labels))
    return Split(halves[0], halves[1], _emnist_classes(name))


def _find_sets(
    folder: Path, paths: Iterable[Path], pattern: re.Pattern[str]
) -> dict[str, _Parts]:
    """Groups files by the data set that their names say they belong to."""
    sets: dict[str, _Parts] = {}
    # An uncompressed file sorts before its `.gz` twin and takes precedence.
    for path in sorted(paths):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            half = match["half"].lower().replace("t10k", "test")
            kind = match["kind"]
            name = path.parent.relative_to(folder) / match["set"].rstrip("-_")
            if pattern is _CSV:
                name, kind = name / kind.strip("-_"), ""
            sets.setdefault(name.as_posix(), {}).setdefault((half, kind), path)
    return sets


def _only_set(
    folder: Path,
    sets: dict[str, _Parts],
    required: Iterable[tuple[str, str]],
) -> tuple[str, _Parts]:
    """Returns the only data set that has all required parts."""
    required = list(required)
    complete = {
        name: parts
        for name, parts in sets.items()
        if parts.keys() >= {*required}
    }
    if not complete:
        parts = next(iter(sets.values()))
        missing = next(part for part in required if part not in parts)
        raise ValueError(
            f"{folder}: expected files for training and test. Received: "
            f"{', '.join(sorted(path.name for path in parts.values()))}, "
            f"without {' '.join(missing).rstrip()}."
        )
    if len(complete) > 1:
        files = [
            str(parts[required[0]].relative_to(folder))
            for parts in complete.values()
        ]
        raise ValueError(
            f"{folder}: expected the files of one data set. Received: files of "
            f"{len(files)}, with {', '.join(files)}. Give the folder of one of "
            "them, or copy the files of one into its own folder."
        )
    return complete.popitem()


def _emnist_classes(name: str) -> str | None:
    """Returns the class names if a data set is a split of EMNIST."""
    match = re.search(r"(^|/)emnist-(\w+)$", name)
    return EMNIST_CLASSES.get(match[2]) if match else None


def _fix_emnist(name: str, images: Array, labels: Array) -> tuple[Array, Array]:
    """Transposes EMNIST's images, and numbers its letters from 0."""
    labels = labels.astype("int64")
    if _emnist_classes(name) is not None:
        images = images.transpose(0, 2, 1)
        labels -= name.endswith("letters")
    return images, labels


def _read_csv_folder(folder: Path) -> Split | None:
    sets = _find_sets(folder, folder.iterdir(), _CSV)
    if not sets:
        return None
    name, parts = _only_set(folder, sets, [("train", ""), ("test", "")])
    train, test = (
        _fix_emnist(name, *_read_csv(parts[half, ""]))
        for half in ("train", "test")
    )
    return Split(train, test, _emnist_classes(name))


def _read_csv_file(path: Path) -> Split:
    name = next(iter(_find_sets(path.parent, [path], _CSV)), "")
    train, test, _ = split_file(path, *_fix_emnist(name, *_read_csv(path)))
    return Split(train, test, _emnist_classes(name))


def _read_csv(path: Path) -> tuple[Array, Array]:
    """Reads a label and a square grey image from each row."""
    check_kind(path, "a CSV file", "text")
    with path.open(encoding="utf-8-sig") as file, parsing(path, "a CSV file"):
        first = file.readline()
        names = [name.strip(' \r\n"').lower() for name in first.split(",")]
        column = 0
        if any(name.isidentifier() for name in names):
            column = _label_column(path, names)
            first = file.readline()
        if not first.strip():
            raise FileFormatError(path, "rows", "of numbers", "none")
        try:
            # Not as integers: NumPy 2.2 and earlier read 256 as 0.
            numbers = np.loadtxt(
                itertools.chain([first], file),
                "float32",
                comments=None,
                delimiter=",",
                ndmin=2,
                quotechar='"',
            )
            # NaN is not in this range either.
            right = (numbers >= 0) & (numbers <= 255) & (numbers % 1 == 0)
            if not right.all():
                raise ValueError(f"{numbers[~right][0]:g}")
            values = numbers.astype("uint8")
        except ValueError as error:
            raise FileFormatError(
                path,
                "rows",
                "of comma-separated whole numbers from 0 to 255, the same "
                "number of them in each row",
                error,
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


def _label_column(path: Path, names: list[str]) -> int:
    for name in ("label", "class"):
        if name in names:
            return names.index(name)
    raise FileFormatError(
        path,
        "a column",
        "called label",
        f"{', '.join(names[:3])}, ...",
        "Give a file with labels; it is split into training and test.",
    )


def _read_npz(path: Path) -> Split:
    arrays = read_npz(path, strings=True)
    names = _MEDMNIST if "train_images" in arrays else _NPZ
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
        # Converting strings of invalid code points raises an error.
        with parsing(path, "an array class_names"):
            class_names = list(map(str, found))
    return Split((x_train, y_train), (x_test, y_test), class_names)
