"""Images and labels: as NumPy arrays, and as a `tf.data` pipeline."""

import contextlib
import hashlib
import os
import random
import string
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from keras_lenet import dataset_files
from keras_lenet.dataset_files import EMNIST_CLASSES
from keras_lenet.files import FileFormatError

if TYPE_CHECKING:
    import grain
    import tensorflow as tf

Array = npt.NDArray[Any]
Augment = Callable[[Array, np.random.Generator], Array]


class _Source(NamedTuple):
    """Where tensorflow-datasets gets a data set, and what its classes are."""

    url: str
    class_names: Sequence[str]


_EMNIST_URL = "https://biometrics.nist.gov"

_SOURCES = {
    "mnist": _Source("https://storage.googleapis.com", string.digits),
    "fashion_mnist": _Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "kmnist": _Source(
        "http://codh.rois.ac.jp",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    **{
        f"emnist/{split}": _Source(_EMNIST_URL, EMNIST_CLASSES[split])
        for split in ("letters", "balanced", "digits")
    },
    "cifar10": _Source(
        "https://www.cs.toronto.edu",
        (
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
    ),
}

# What Keras loads, too, in the order of the original files.
_IN_KERAS = ("mnist", "fashion_mnist", "cifar10")

NAMES = ("digits", *_SOURCES)


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

    | `name` | images | classes | train / test |
    | --- | --- | --- | --- |
    | `"digits"` | 28x28 grey | 10 | 1,437 / 360 |
    | `"mnist"`, `"fashion_mnist"`, `"kmnist"` | 28x28 grey | 10 | 60,000 / 10,000 |
    | `"emnist/letters"` | 28x28 grey | 26 | 88,800 / 14,800 |
    | `"emnist/balanced"` | 28x28 grey | 47 | 112,800 / 18,800 |
    | `"emnist/digits"` | 28x28 grey | 10 | 240,000 / 40,000 |
    | `"cifar10"` | 32x32 colour | 10 | 50,000 / 10,000 |
    | a folder with MNIST's four IDX files | any grey | any | as the files |
    | a folder with `train/<class>/*.png` and `test/<class>/*.png` | any | any | as the folders |
    | a folder with `<class>/*.png` | any | any | 80 % / 20 % |
    | a folder with `train.csv` and `test.csv` | square grey | any | as the files |
    | a `.csv` file | square grey | any | 80 % / 20 % |
    | an `.npz` file with `x_train`, `y_train`, `x_test`, `y_test` | any | any | as the arrays |

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
        name: A name of the table, or the path of a folder or a file. A name
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
    """  # noqa: E501
    path = Path(name)
    if name == "digits":
        train, test, _ = _load_digits()
        class_names: Sequence[str] = string.digits
    elif name in _SOURCES:
        train, test = _load_by_name(str(name), data_dir)
        class_names = _SOURCES[str(name)].class_names
    elif path.exists():
        train, test, class_names = _load_files(path)
    else:
        raise ValueError(
            f"`name` must be one of {', '.join(NAMES)}, or the path of an "
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


def image_dataset_from_array(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    batch_size: int = 100,
    shuffle: bool = False,
    seed: int | None = None,
    num_classes: int | None = None,
    drop_remainder: bool = False,
    augment: Augment | None = None,
) -> "tf.data.Dataset":
    """Makes a `tf.data.Dataset` that yields batches of images and labels.

    Whole batches are gathered by index, so that shuffling costs nothing for
    each image, and pixels stay bytes until the model reads them. With
    `shuffle=True` every pass over the dataset has a new order, a permutation
    that depends on `seed` and the number of the pass alone, not on any global
    random state. Every pass counts, also one that stops early: on JAX and
    PyTorch Keras looks at a first batch to build a model and its metrics, so
    there the first epoch of a new model is the second pass.

    Args:
        images: Array of shape `(n, height, width, channels)`, or
            `(n, height, width)` for grey images: a last axis is added. Either
            uint8 pixels in [0, 255], for a model with preprocessing, or
            floats in [0, 1], for one without.
        labels: Array of integers of shape `(n,)` or `(n, 1)`.
        batch_size: Integer. Defaults to `100`.
        shuffle: Boolean. Whether to shuffle. Defaults to `False`.
        seed: Integer from 0 to 2**64 - 1. If `None`, it is drawn from
            Python's generator, which `keras.utils.set_random_seed` seeds.
        num_classes: Integer. If given, labels must be below it.
        drop_remainder: Boolean. Whether to leave out a last batch with fewer
            than `batch_size` images. Defaults to `False`.
        augment: Callable, such as `keras_lenet.RandomDistortion()`. Called
            with the images of each batch and an `np.random.Generator`, which
            depends on `seed` and the number of the batch alone; returns what
            to train on, of the same shape and dtype.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: uint8 or float32 of shape
        `(batch, height, width, channels)` and int64 of shape `(batch,)`.

    Raises:
        ValueError: When an argument is not of the form above, `images` and
            `labels` have different lengths or are empty, a pixel is NaN or
            out of range, or a label is negative or not below `num_classes`.

    Example:

    >>> from keras_lenet.datasets import image_dataset_from_array, load_data
    >>> (x_train, y_train), _ = load_data("digits")
    >>> dataset = image_dataset_from_array(
    ...     x_train, y_train, batch_size=100, shuffle=True, seed=98
    ... )  # doctest: +SKIP
    >>> model.fit(dataset, epochs=5)  # doctest: +SKIP
    """
    arrays, seed = _check_arguments(
        images,
        labels,
        batch_size,
        shuffle,
        seed,
        num_classes,
        drop_remainder,
        augment,
    )
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`image_dataset_from_array` makes a `tf.data.Dataset`, which needs "
            "TensorFlow: `pip install tensorflow`. Without it, use "
            "`grain_dataset_from_array` or pass the arrays themselves to `fit`."
        ) from error
    return dataset_from_arrays(
        arrays, batch_size, seed, shuffle, drop_remainder, augment
    )


def grain_dataset_from_array(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    batch_size: int = 100,
    shuffle: bool = False,
    seed: int | None = None,
    num_classes: int | None = None,
    drop_remainder: bool = False,
    augment: Augment | None = None,
) -> "grain.IterDataset":
    """Makes a Grain dataset that yields batches of images and labels.

    The arguments and the batches are those of `image_dataset_from_array`, but
    TensorFlow is not needed. With the same `seed` every epoch has the same
    batches, in the same order. But an epoch counts only once it has run to its
    end: what Keras looks at before it trains does not count, so the first
    epoch of `fit` has the first order on every backend.

    Keras does not know how many batches a Grain dataset has. It shows no
    total in the first epoch, and warns at the end of an epoch that the input
    ran out of data. Pass `shuffle=False` to `fit`, which otherwise warns that
    the dataset brings an order of its own.

    Args:
        images: Array, as for `image_dataset_from_array`.
        labels: Array, as for `image_dataset_from_array`.
        batch_size: Integer. Defaults to `100`.
        shuffle: Boolean. Whether to shuffle. Defaults to `False`.
        seed: Integer, as for `image_dataset_from_array`.
        num_classes: Integer. If given, labels must be below it.
        drop_remainder: Boolean. Whether to leave out a last batch with fewer
            than `batch_size` images. Defaults to `False`.
        augment: Callable, as for `image_dataset_from_array`.

    Returns:
        A `grain.IterDataset` of `(images, labels)`: uint8 or float32 of shape
        `(batch, height, width, channels)` and int64 of shape `(batch,)`.

    Raises:
        ImportError: When Grain is not installed.
        ValueError: As for `image_dataset_from_array`.

    Example:

    >>> from keras_lenet.datasets import grain_dataset_from_array, load_data
    >>> (x_train, y_train), _ = load_data("digits")
    >>> dataset = grain_dataset_from_array(
    ...     x_train, y_train, batch_size=100, shuffle=True, seed=98
    ... )  # doctest: +SKIP
    >>> model.fit(dataset, epochs=5, shuffle=False)  # doctest: +SKIP
    """
    arrays, seed = _check_arguments(
        images,
        labels,
        batch_size,
        shuffle,
        seed,
        num_classes,
        drop_remainder,
        augment,
    )
    try:
        from keras_lenet.grain_dataset import BatchDataset
    except ImportError as error:
        raise ImportError(
            "`grain_dataset_from_array` needs Grain: `pip install grain`."
        ) from error
    order = BatchOrder(
        len(arrays[0]), batch_size, seed, shuffle, drop_remainder
    )
    return BatchDataset(arrays, order, augment)


def _check_arguments(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    batch_size: int,
    shuffle: bool,
    seed: int | None,
    num_classes: int | None,
    drop_remainder: bool,
    augment: Augment | None,
) -> tuple[tuple[Array, Array], int]:
    """Returns images and labels in one form, and a seed."""
    images, labels = check_images_and_labels(images, labels, num_classes)
    count = len(images)
    if max(images.shape[1:3]) > 32:
        raise ValueError(
            "`images` must have at most 32x32 pixels. Received: images of "
            f"shape {images.shape}. Shrink them first, e.g. with "
            "`keras.layers.Resizing(32, 32)`."
        )
    if not is_positive_integer(batch_size):
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}"
        )
    if drop_remainder and count < batch_size:
        raise ValueError(
            "`batch_size` must be at most the number of images when "
            f"`drop_remainder=True`. Received: batch_size={batch_size} and "
            f"{count} images, so no batch would be left."
        )
    if augment is not None and not callable(augment):
        raise ValueError(
            "`augment` must be called with images and a generator, or `None`. "
            f"Received: augment={augment!r}"
        )
    if seed is None:
        seed = random.getrandbits(32) if shuffle or augment else 0
    if (
        not isinstance(seed, (int, np.integer))
        or isinstance(seed, bool)
        or not 0 <= seed < 2**64
    ):
        raise ValueError(
            "`seed` must be an integer from 0 to 2**64 - 1. "
            f"Received: seed={seed!r}"
        )
    return (images, labels), int(seed)


def dataset_from_arrays(
    arrays: tuple[Array, ...],
    batch_size: int,
    seed: int,
    shuffle: bool,
    drop_remainder: bool = False,
    augment: Augment | None = None,
) -> "tf.data.Dataset":
    """Makes a dataset of batches of what is in the arrays.

    Args:
        arrays: Tuple of arrays of the same length.
        batch_size: Integer.
        seed: Integer, which decides the orders and what `augment` draws.
        shuffle: Boolean. Whether to shuffle.
        drop_remainder: Boolean. Whether to leave out what does not fill a
            batch.
        augment: Callable, as for `image_dataset_from_array`, called with the
            batches of the first array.

    Returns:
        A `tf.data.Dataset` of tuples of batches.
    """
    import tensorflow as tf

    order = BatchOrder(
        len(arrays[0]), batch_size, seed, shuffle, drop_remainder
    )

    def one_pass(_: Any) -> "tf.data.Dataset":
        first, indices, bounds = tf.numpy_function(
            order.next_pass, [], [tf.int64, tf.int64, tf.int64]
        )
        bounds = tf.ensure_shape(bounds, [order.num_batches + 1])
        return tf.data.Dataset.range(order.num_batches).map(
            lambda batch: (
                first + batch,
                indices[bounds[batch] : bounds[batch + 1]],
            )
        )

    def take(number: Any, indices: Any) -> tuple[Array, ...]:
        return gather(arrays, indices, seed, int(number), augment)

    def batches(number: Any, indices: Any) -> tuple[Any, ...]:
        # By NumPy: as tensors there would be all of the data twice.
        batch = tf.numpy_function(
            take, [number, indices], [array.dtype for array in arrays]
        )
        size = batch_size if drop_remainder else None
        return tuple(
            tf.ensure_shape(part, [size, *array.shape[1:]])
            for part, array in zip(batch, arrays, strict=True)
        )

    # To look for Python to convert takes longer than to trace.
    as_it_is = tf.autograph.experimental.do_not_convert

    # While tf.data tunes itself, the end of a pass can wait for the tuner to
    # wake up, which it does after 0.01 s, then 0.02, 0.04, ... Measured: epochs
    # of 0.8 s lasted 1.28. There is nothing to tune here.
    options = tf.data.Options()
    options.autotune.enabled = False
    # Which takes 10 ms for every pass.
    options.experimental_optimization.apply_default_optimizations = False
    dataset = (
        tf.data.Dataset.range(1)
        .flat_map(as_it_is(one_pass))
        .map(as_it_is(batches))
        .apply(tf.data.experimental.assert_cardinality(order.num_batches))
        .prefetch(16)
        .with_options(options)
    )
    # For `ResumableTraining`.
    dataset.batch_order, dataset.arrays = order, arrays
    dataset.augment = augment
    return dataset


def gather(
    arrays: tuple[Array, ...],
    indices: Array,
    seed: int,
    number: int,
    augment: Augment | None,
) -> tuple[Array, ...]:
    """Returns one batch.

    Args:
        arrays: Tuple of arrays.
        indices: Array of integers. Which examples are in the batch.
        seed: Integer, which decides what `augment` draws.
        number: Integer. The number of the batch, from the first epoch on.
        augment: Callable, as for `image_dataset_from_array`, or `None`.

    Returns:
        Tuple of arrays.
    """
    first, *others = (array[indices] for array in arrays)
    if augment is not None:
        first = _augmented(augment, first, seed, number)
    return first, *others


class BatchOrder:
    """Which examples are in which batch, pass by pass, on and on.

    Args:
        count: Integer. How many examples there are.
        batch_size: Integer.
        seed: Integer, which decides the orders.
        shuffle: Boolean. Whether there are orders, or only that of the
            examples.
        drop_remainder: Boolean. Whether to leave out what does not fill a
            batch, which differs from pass to pass.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_remainder: bool = False,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_remainder = drop_remainder
        whole, rest = divmod(count, batch_size)
        self._sizes = [batch_size] * whole
        if rest and not drop_remainder:
            self._sizes.append(rest)
        self.num_batches = len(self._sizes)
        # Counted from the first epoch.
        self.next_batch = 0

    def start_at(self, batch: int) -> None:
        """Lets the next pass begin with a batch, counted from the first pass.

        In the middle of a pass, as many batches as a pass has are taken from
        this and the next.
        """
        self.next_batch = batch

    def next_pass(self) -> tuple[Any, Array, Array]:
        """Returns what batches the next pass has.

        Returns:
            The number of its first batch, counted from the first pass, the
            indices of its examples, and where in them each batch begins.
        """
        found = self.epoch_from(self.next_batch)
        self.next_batch += self.num_batches
        return found

    def epoch_from(self, first: int) -> tuple[Any, Array, Array]:
        """Returns what `next_pass` does, for a pass that begins at a batch."""
        number, batch = divmod(first, self.num_batches)
        sizes = self._sizes[batch:] + self._sizes[:batch]
        bounds = np.cumsum([0, *sizes], dtype="int64")
        indices = self._examples(number)[: sum(self._sizes)]
        if batch:
            at = batch * self.batch_size
            after = self._examples(number + 1)[:at]
            indices = np.concatenate([indices[at:], after])
        return np.int64(first), indices, bounds

    def _examples(self, number: int) -> Array:
        if not self.shuffle:
            return np.arange(self.count)
        return _permutation(self.count, self.seed, number)


def check_images_and_labels(
    images: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int | None = None
) -> tuple[Array, Array]:
    """Returns images and labels in one form, or says what is wrong with them.

    Args:
        images: Array, as for `image_dataset_from_array`.
        labels: Array, as for `image_dataset_from_array`.
        num_classes: Integer. If given, labels must be below it.

    Returns:
        uint8 or float32 images of shape `(n, height, width, channels)` and
        int64 labels of shape `(n,)`.

    Raises:
        ValueError: As for `image_dataset_from_array`.
    """
    images, labels = _as_array("images", images), _as_array("labels", labels)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise ValueError(
            "`images` must have the shape (n, height, width, channels) or "
            f"(n, height, width). Received: images of shape {images.shape}."
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            "`labels` must have the shape (n,). Received: labels of shape "
            f"{labels.shape}. One-hot labels become integers by "
            "`labels.argmax(axis=1)`."
        )
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            "`images` and `labels` must have the same length, at least 1. "
            f"Received: {len(images)} images and {len(labels)} labels."
        )
    _check_images(images)
    check_labels(labels, num_classes)
    if images.dtype != np.uint8:
        images = images.astype("float32")
    return images, labels.astype("int64")


def is_positive_integer(value: Any) -> bool:
    """Returns whether a value is an integer, above 0 and not a boolean."""
    return (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and int(value) > 0
    )


def center_by_mass(images: Array, size: int = 28) -> Array:
    """Places characters on square fields, centre of mass in the middle.

    This is the last step of how MNIST's images were made
    (https://doi.org/10.1109/5.726791, section III-A).

    Args:
        images: Array of shape `(n, height, width)`, bright ink on a
            background of 0.
        size: Integer, at least height and width. Defaults to `28`.

    Returns:
        Array of shape `(n, size, size)` and the dtype of `images`. A
        character whose mass is so far off its middle that it would leave the
        field stays at the border. An image without ink is placed in the
        middle.
    """
    count, height, width = images.shape
    fields = np.zeros((count, size, size), images.dtype)
    for image, field in zip(images, fields, strict=True):
        mass = image.astype("float64")
        # An image without ink is as good as one that is all ink.
        mass = mass if mass.any() else mass + 1
        row = np.average(np.arange(height), weights=mass.sum(axis=1))
        column = np.average(np.arange(width), weights=mass.sum(axis=0))
        top = np.clip(round((size - 1) / 2 - row), 0, size - height)
        left = np.clip(round((size - 1) / 2 - column), 0, size - width)
        field[top : top + height, left : left + width] = image
    return fields


def _as_array(name: str, values: npt.ArrayLike) -> Array:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be one array. Received: parts of different shapes "
            f"({error}). Bring them to one shape."
        ) from error


def _check_images(images: Array) -> None:
    if 0 in images.shape:
        raise ValueError(
            "`images` must have at least 1x1 pixels and 1 channel. Received: "
            f"images of shape {images.shape}. Bring them to one size, e.g. "
            "with `keras.layers.Resizing(32, 32)`."
        )
    _, first, second, last = images.shape
    if first in (1, 3) and second == last and last > 4:
        raise ValueError(
            "`images` must have the channels last. Received: images of shape "
            f"{images.shape}. Transpose them with "
            "`images.transpose(0, 2, 3, 1)`."
        )
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise ValueError(
            "`images` must be uint8 pixels in [0, 255] or floats in [0, 1]. "
            f"Received: images of dtype {images.dtype}. "
            f"{_how_to_make_bytes(images)}"
        )
    # NaN compares false, so this finds it too.
    wrong = ~((images >= 0) & (images <= 1))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            "`images` of floats must be in [0, 1]. Received: "
            f"{images[index]}, first at index {index}. Raw pixels are given "
            "as uint8 to a model with preprocessing, or divided by 255 to one "
            "without."
        )
    if 0 < images.max() <= 1 / 255:
        raise ValueError(
            "`images` of floats must be in [0, 1]. Received: none above 1/255, "
            f"the largest {images.max():.3g}, so they were divided by 255 "
            "twice. Do it once."
        )


def _how_to_make_bytes(images: Array) -> str:
    """Returns advice that makes bytes of pixels and loses nothing."""
    if images.dtype.kind not in "biuf" or images.size == 0:
        return "Give numbers."
    low, high = images.min(), images.max()
    if 0 <= low and 0 < high <= 1:
        return "Convert them with `np.rint(255 * images).astype('uint8')`."
    if 0 <= low and high <= 255:
        return "Convert them with `np.rint(images).astype('uint8')`."
    return f"Scale them to [0, 255] first; they are from {low} to {high}."


def check_labels(labels: Array, num_classes: int | None) -> None:
    """Checks labels, of which no backend says reliably that they are wrong.

    Args:
        labels: Array of integers.
        num_classes: Integer. If given, labels must be below it.

    Raises:
        ValueError: When they are no integers, negative, or too large.
    """
    if labels.dtype.kind not in "iu":
        # What is whole may be meant; the first that is not says more.
        index = 0
        if labels.dtype.kind == "f":
            index = int((labels != np.floor(labels)).argmax())
        raise ValueError(
            "`labels` must be integers. Received: labels of dtype "
            f"{labels.dtype}, e.g. {labels[index]!r} at index {index}. If they "
            "are whole numbers, convert them with `labels.astype('int64')`."
        )
    wrong = labels < 0
    expected = "not negative"
    if num_classes is not None:
        wrong |= labels >= num_classes
        expected = f"from 0 to {num_classes - 1}"
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(
            f"`labels` must be {expected}. Received: {labels[index]}, first "
            f"at index {index}."
        )


def _permutation(count: int, seed: int, epoch: int) -> Array:
    # Philox is a function of a key, so an epoch's order can be had without
    # those before it. NumPy promises to keep the bits of its bit generators,
    # but not what `Generator.permutation` makes of them.
    key = np.array([seed, epoch], "uint64")
    return np.argsort(
        np.random.Philox(key=key).random_raw(count), kind="stable"
    )


def _augmented(
    augment: Augment, images: Array, seed: int, number: int
) -> Array:
    # A stream of the key of `_permutation` that is far from its beginning.
    key = np.array([seed, number], "uint64")
    stream = np.random.Philox(key=key, counter=[0, 0, 0, 1])
    augmented = np.asarray(augment(images, np.random.Generator(stream)))
    if (augmented.shape, augmented.dtype) != (images.shape, images.dtype):
        raise ValueError(
            "`augment` must return images of the shape and dtype that it "
            f"got, {images.shape} and {images.dtype}. "
            f"Received: {augmented.shape} and {augmented.dtype}."
        )
    return augmented


def _load_digits() -> dataset_files.Split:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Linear interpolation from 8 to 20 pixels, along rows and columns.
    centres = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    weights = np.maximum(
        0, 1 - np.abs(np.clip(centres, 0, 7)[:, np.newaxis] - np.arange(8))
    )
    enlarged = np.rint(weights @ digits.images @ weights.T * (255 / 16))
    images = center_by_mass(enlarged.astype("uint8"))[..., np.newaxis]
    return dataset_files.split(images, digits.target.astype("int64"), 360)


def _load_by_name(
    name: str, data_dir: str | os.PathLike[str] | None
) -> list[tuple[Array, Array]]:
    try:
        import tensorflow as tf  # noqa: F401
        import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        if name in _IN_KERAS and data_dir is None:
            return _load_keras(name)
        raise ImportError(
            f"The data set {name!r} comes through tensorflow-datasets, which "
            "needs TensorFlow: `pip install tensorflow tensorflow-datasets`. "
            "'digits' and files do without, and so do "
            f"{', '.join(map(repr, _IN_KERAS))} without `data_dir`."
        ) from error
    return _load_tfds(name, data_dir)


def _load_keras(name: str) -> list[tuple[Array, Array]]:
    import keras

    try:
        loaded = getattr(keras.datasets, name).load_data()
    except Exception as error:
        # Keras has no class of its own for it.
        raise ConnectionError(
            f"The data set {name!r} cannot be loaded by `keras.datasets`: "
            f"{error}. Use 'digits', which needs no network, or files."
        ) from error
    halves = []
    for images, labels in loaded:
        if (
            images.ndim == 4
            and keras.config.image_data_format() == "channels_first"
        ):
            images = images.transpose(0, 2, 3, 1)
        halves.append(check_images_and_labels(images, labels))
    return halves


def _load_tfds(
    name: str, data_dir: str | os.PathLike[str] | None
) -> list[tuple[Array, Array]]:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        _download(name, builder)
    loaded = builder.as_dataset(
        split=["train", "test"],
        batch_size=-1,
        as_supervised=True,
        # Several files one after the other, so that the order is known.
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    halves = []
    for split, (images, labels) in zip(
        ("train", "test"), tfds.as_numpy(loaded), strict=True
    ):
        order = _tfds_order(split, len(labels))
        if name.startswith("emnist/"):
            images = images.transpose(0, 2, 1, 3)
        if name == "emnist/letters":
            labels = labels - 1
        restored = np.empty_like(images), np.empty_like(labels)
        restored[0][order], restored[1][order] = images, labels
        halves.append(restored)
    return halves


def _tfds_order(split: str, count: int) -> Array:
    """Returns the index in the original files of every prepared example.

    tensorflow-datasets writes examples in the order of the MD5 sums of split
    and key (`tensorflow_datasets.core.hashing`), and for all our data sets
    the key is the index in the original files.
    """
    digests = [
        hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest()
        for index in range(count)
    ]
    return np.array(sorted(range(count), key=digests.__getitem__))


def _download(name: str, builder: Any) -> None:
    url = _SOURCES[name].url
    try:
        # tensorflow-datasets would try again for minutes.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(url, timeout=10).close()
        builder.download_and_prepare()
    except Exception as error:
        raise ConnectionError(
            f"The data set {name!r} is not in {builder.data_dir} and cannot "
            f"be downloaded from {url}: {error}. Give the `data_dir` of "
            "prepared data, or use 'digits', which needs no network."
        ) from error


def _load_files(
    path: Path,
) -> tuple[tuple[Array, Array], tuple[Array, Array], Sequence[str]]:
    found = dataset_files.read(path)
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
