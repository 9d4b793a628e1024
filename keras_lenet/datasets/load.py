"""Loading data sets as NumPy arrays."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_lenet.datasets.download import load_from_keras, load_from_tfds
from keras_lenet.datasets.files import read
from keras_lenet.datasets.registry import DATASETS
from keras_lenet.datasets.split import split
from keras_lenet.files.formats import FileFormatError
from keras_lenet.types import Array
from keras_lenet.validation.images import (
    check_images_and_labels,
    uint8_advice,
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

    `"digits"` needs no network. It consists of scikit-learn's 1,797
    handwritten digits of 8x8 pixels (https://doi.org/10.24432/C50P49),
    enlarged to 20x20 and, like MNIST's, centred by mass in 28x28. The other
    names of `keras_lenet.datasets.DATASETS` come from tensorflow-datasets,
    which needs TensorFlow. Without TensorFlow, `"mnist"`, `"fashion_mnist"`
    and `"cifar10"` come from `keras.datasets`. Images keep the order of the
    original files.

    A path may be:

    - A folder with MNIST's four IDX files, also compressed with gzip, in a
      subfolder `raw`, as torchvision stores them, or named as in EMNIST's
      archive, e.g. `emnist-letters-train-images-idx3-ubyte`.
    - A folder with one folder of pictures per class, or with such folders in
      `train` and `test`. The pictures have one size and a format that
      `keras_lenet.pictures.load_picture` reads. Classes are sorted by name, as
      in `keras.utils.image_dataset_from_directory`. Images are grey if all
      pictures are.
    - A `.csv` file, or a folder with `train.csv` and `test.csv`. Each row
      holds a label and the pixels of a square grey image. The label is in the
      column named `label` or `class`, or in the first column if there is no
      header.
    - An `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`, or with
      MedMNIST's `train_images`, `train_labels`, `test_images` and
      `test_labels`; its validation images are not loaded. An optional array of
      strings, `class_names`, names the classes.

    Data without test images are split 80 % to 20 %, in the same way every
    time. This split, and that of `"digits"`, is stratified by class.

    In its own files, which are recognised by name, and in tensorflow-datasets,
    EMNIST has transposed images and letters numbered from 1. Here its
    characters are upright and "A" is 0.

    Args:
        name: A name in `DATASETS`, or the path of a folder or file. A name
            takes precedence over a path: a folder called `mnist` is
            `"./mnist"`. Defaults to `"digits"`.
        data_dir: Path of the folder where tensorflow-datasets keeps prepared
            data; missing data are downloaded on first use. Defaults to
            `~/tensorflow_datasets`.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: uint8 images of shape
        `(n, height, width, channels)` in [0, 255], and int64 labels of shape
        `(n,)` from 0 on. The tuple has an attribute `class_names`.

    Raises:
        ValueError: If there is no such name or path, or a file is damaged or
            has other contents.
        ImportError: If the data set needs TensorFlow, which is not installed.
        ConnectionError: If the data are not in `data_dir` and cannot be
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
    class_names: Sequence[str]
    if name in DATASETS:
        train, test = _load_by_name(str(name), data_dir)
        class_names = DATASETS[str(name)].class_names
    elif path.exists():
        train, test, class_names = _load_files(path)
    else:
        raise ValueError(
            f"{path}: expected one of {', '.join(DATASETS)}, or the path of an "
            "`.npz` or CSV file or of a folder of IDX files, CSV files or "
            "class folders. Received: none of these names, and no such path "
            "exists."
        )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{name}: expected images of one size for training and test. "
            f"Received: shapes {train[0].shape} and {test[0].shape}."
        )
    data = ImageData((train, test))
    data.class_names = list(class_names)
    return data


def _load_by_name(
    name: str, data_dir: str | os.PathLike[str] | None
) -> Sequence[tuple[Array, Array]]:
    if name == "digits":
        return _load_digits()
    try:
        import tensorflow as tf  # noqa: F401
        import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        if DATASETS[name].is_in_keras and data_dir is None:
            return load_from_keras(name)
        in_keras = [name for name, info in DATASETS.items() if info.is_in_keras]
        raise ImportError(
            f"The data set {name!r} comes from tensorflow-datasets, which "
            "needs TensorFlow: `pip install tensorflow tensorflow-datasets`. "
            "'digits' and files do not need it, nor do "
            f"{', '.join(map(repr, in_keras))} without `data_dir`."
        ) from error
    return load_from_tfds(name, data_dir)


def _load_digits() -> Sequence[tuple[Array, Array]]:
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
    return split(images, digits.target.astype("int64"), 360)[:2]


def _load_files(
    path: Path,
) -> tuple[tuple[Array, Array], tuple[Array, Array], Sequence[str]]:
    train, test, class_names = read(path)
    train, test = _checked(path, "train", *train), _checked(path, "test", *test)
    count = max(train[1].max(), test[1].max()) + 1
    if class_names is None:
        return train, test, [str(label) for label in range(count)]
    if len(class_names) < count:
        raise FileFormatError(
            path,
            "class_names",
            f"of at least {count} classes, to match the labels",
            len(class_names),
        )
    return train, test, class_names


def _checked(
    path: Path, half: str, images: Array, labels: Array
) -> tuple[Array, Array]:
    if images.dtype != np.uint8:
        raise FileFormatError(
            path,
            f"the {half} images",
            "of uint8 pixels in [0, 255]",
            f"dtype {images.dtype}",
            uint8_advice(images),
        )
    try:
        return check_images_and_labels(images, labels)
    except ValueError as error:
        raise FileFormatError(
            path, f"valid {half} images and labels", "", error
        ) from error
