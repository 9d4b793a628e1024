"""Batches of images and labels as a `tf.data` or Grain dataset."""

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from keras_lenet.datasets.sampler import Augment, EpochSampler, gather
from keras_lenet.types import Array
from keras_lenet.validation.arguments import check_positive_integer
from keras_lenet.validation.images import check_images_and_labels

if TYPE_CHECKING:
    import grain
    import tensorflow as tf


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
        from keras_lenet.datasets.grain_dataset import BatchDataset
    except ImportError as error:
        raise ImportError(
            "`grain_dataset_from_array` needs Grain: `pip install grain`."
        ) from error
    order = EpochSampler(
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
    check_positive_integer("batch_size", batch_size)
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

    order = EpochSampler(
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
    dataset.sampler, dataset.arrays = order, arrays
    dataset.augment = augment
    return dataset
