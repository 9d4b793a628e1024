"""Images and labels as NumPy arrays."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_lenet.datasets.download import load_from_keras, load_from_tfds
from keras_lenet.datasets.files import read
from keras_lenet.datasets.registry import DATASETS
from keras_lenet.datasets.split import Split, split
from keras_lenet.files.formats import FileFormatError
from keras_lenet.types import Array
from keras_lenet.validation.images import (
    _how_to_make_bytes,
    check_images_and_labels,
)


class ImageData(tuple[tuple[Array, Array], tuple[Array, Array]]):
    """`(x_train, y_train), (x_test, y_test)`, with the names of the classes.

    Attributes:
        class_names: List of strings, one for each label from 0 on.
    """

    class_names: list[str]


def load_data(
    name: str | os.PathLike[str] = "digits",
    data_dir: str | os.PathLike[str] | None = None,
) -> ImageData:
    """Loads images and labels for training and test.

    A name is one of `keras_lenet.datasets.DATASETS`. A path is a folder with
    MNIST's four IDX files, a folder with `train.csv` and `test.csv`, a folder
    with one folder of pictures for every class, alone or in `train` and
    `test`, a `.csv` file, or an `.npz` file with `x_train`, `y_train`,
    `x_test` and `y_test`.

    `"digits"` needs no network: it is made of the 1,797 handwritten digits of
    8x8 pixels that scikit-learn carries
    (https://doi.org/10.24432/C50P49), enlarged to 20x20 and, like MNIST's,
    placed by their centre of mass in 28x28, and split with the same share of
    every class on both sides. The others come through tensorflow-datasets and
    need TensorFlow; without it, `"mnist"`, `"fashion_mnist"` and `"cifar10"`
    come through `keras.datasets`. Their images keep the order of the original
    files.

    IDX files may be compressed with gzip, lie in a folder `raw`, as
    torchvision has them, and be called as in EMNIST's archive,
    `emnist-letters-train-images-idx3-ubyte`.

    Class folders hold pictures of one size in the formats of
    `keras_lenet.pictures.load_picture`. Their sorted names are the classes, as
    for `keras.utils.image_dataset_from_directory`. The images are grey if all
    pictures are.

    A row of a CSV file holds a label and the pixels of a square image. If the
    first row has names, `label` or `class` is the label's, otherwise the
    first column is.

    What has no images for test is split, in the same way every time, with the
    same share of every class on both sides.

    An `.npz` file may have MedMNIST's names, `train_images`, `train_labels`,
    `test_images` and `test_labels`; `val_images` and `val_labels` are left
    out. An array of strings `class_names` names the classes.

    EMNIST is mended: its images are transposed and the labels of its letters
    start at 1 in tensorflow-datasets and in its own files, which are known by
    their names; here the characters stand upright and "A" is 0.

    Args:
        name: A name of `DATASETS`, or the path of a folder or a file. A name
            wins over a path: a folder called `mnist` is `"./mnist"`.
        data_dir: Path. Where tensorflow-datasets keeps prepared data; what is
            not there is downloaded on first use. By default
            `~/tensorflow_datasets`.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: uint8 images of shape
        `(n, height, width, channels)` in [0, 255], and int64 labels of shape
        `(n,)` from 0 on. The tuple has an attribute `class_names`.

    Raises:
        ValueError: When there is no such name or path, or a file does not
            hold what it should.
        ConnectionError: When the data are not in `data_dir` and cannot be
            downloaded.

    Example:

    >>> from keras_lenet.datasets import load_data
    >>> data = load_data("digits")
    >>> (x_train, y_train), (x_test, y_test) = data
    >>> x_train.shape, y_train.shape
    ((1437, 28, 28, 1), (1437,))
    >>> data.class_names[y_train[0]]
    '2'
    """
    path = Path(name)
    if name == "digits":
        train, test, _ = _load_digits()
        class_names = DATASETS["digits"].class_names
    elif name in DATASETS:
        train, test = _load_by_name(str(name), data_dir)
        class_names = DATASETS[str(name)].class_names
    elif path.exists():
        train, test, class_names = _load_files(path)
    else:
        raise ValueError(
            f"`name` must be one of {', '.join(DATASETS)}, or the path of an "
            "`.npz` or CSV file or of a folder of IDX files, CSV files or "
            "class folders. "
            f"Received: name={str(name)!r}, which is none of these names and "
            "no such path exists."
        )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{name}: expected images of one size for training and test. "
            f"Received: shapes {train[0].shape} and {test[0].shape}."
        )
    data = ImageData((train, test))
    data.class_names = list(class_names)
    return data


def _load_digits() -> Split:
    from sklearn.datasets import load_digits

    from keras_lenet.pictures.centre import center_by_mass

    digits = load_digits()
    # Linear interpolation from 8 to 20 pixels, along rows and columns.
    centres = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    weights = np.maximum(
        0, 1 - np.abs(np.clip(centres, 0, 7)[:, np.newaxis] - np.arange(8))
    )
    enlarged = np.rint(weights @ digits.images @ weights.T * (255 / 16))
    images = center_by_mass(enlarged.astype("uint8"))[..., np.newaxis]
    return split(images, digits.target.astype("int64"), 360)


def _load_by_name(
    name: str, data_dir: str | os.PathLike[str] | None
) -> list[tuple[Array, Array]]:
    try:
        import tensorflow as tf  # noqa: F401
        import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        if DATASETS[name].is_in_keras and data_dir is None:
            return load_from_keras(name)
        in_keras = [name for name, info in DATASETS.items() if info.is_in_keras]
        raise ImportError(
            f"The data set {name!r} comes through tensorflow-datasets, which "
            "needs TensorFlow: `pip install tensorflow tensorflow-datasets`. "
            "'digits' and files do without, and so do "
            f"{', '.join(map(repr, in_keras))} without `data_dir`."
        ) from error
    return load_from_tfds(name, data_dir)


def _load_files(
    path: Path,
) -> tuple[tuple[Array, Array], tuple[Array, Array], Sequence[str]]:
    found = read(path)
    train = _checked(path, "train", *found.train)
    test = _checked(path, "test", *found.test)
    count = max(train[1].max(), test[1].max()) + 1
    if found.class_names is None:
        return train, test, [str(label) for label in range(count)]
    if len(found.class_names) < count:
        raise FileFormatError(
            path,
            "class_names",
            f"of at least {count} classes, as there are labels",
            len(found.class_names),
        )
    return train, test, found.class_names


def _checked(
    path: Path, half: str, images: Array, labels: Array
) -> tuple[Array, Array]:
    if images.dtype != np.uint8:
        raise FileFormatError(
            path,
            f"the {half} images",
            "of uint8 pixels in [0, 255]",
            f"dtype {images.dtype}",
            _how_to_make_bytes(images),
        )
    try:
        return check_images_and_labels(images, labels)
    except ValueError as error:
        raise FileFormatError(
            path, f"the {half} images and labels", "to fit", error
        ) from error
