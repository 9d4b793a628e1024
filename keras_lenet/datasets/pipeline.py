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

    Whole batches are gathered by index, so shuffling adds no cost per image,
    and pixels stay bytes until the model reads them. With `shuffle=True`, each
    iteration over the dataset has a new order: a permutation that depends only
    on `seed` and the number of the iteration, not on any global random state.
    An iteration that stops after one or two batches does not count: on JAX and
    PyTorch, Keras reads as many to build a new model and its metrics, and the
    first epoch still has the first order.

    Args:
        images: Array of shape `(n, height, width, channels)`, or
            `(n, height, width)` for grey images. Either uint8 pixels in
            [0, 255], for a model with preprocessing, or floats in [0, 1], for
            a model without.
        labels: Array of integers of shape `(n,)` or `(n, 1)`.
        batch_size: Integer. Defaults to `100`.
        shuffle: Boolean. Whether to shuffle. Defaults to `False`.
        seed: Integer from 0 to 2**64 - 1. If `None`, it is drawn from
            Python's generator, which `keras.utils.set_random_seed` seeds.
        num_classes: Integer. If given, labels must be below it.
        drop_remainder: Boolean. Whether to drop the last batch if it has fewer
            than `batch_size` images. Defaults to `False`.
        augment: Callable, such as `keras_lenet.RandomDistortion()`. Receives
            the images of a batch and an `np.random.Generator` that depends
            only on `seed` and the number of the batch. Returns the images to
            train on, with the same shape and dtype.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`: uint8 or float32 of shape
        `(batch, height, width, channels)` and int64 of shape `(batch,)`.

    Raises:
        ImportError: If TensorFlow is not installed.
        ValueError: If an argument is invalid, `images` and `labels` are empty
            or differ in length, a pixel is NaN or out of range, or a label is
            negative or not below `num_classes`.

    Example:

    >>> from keras_lenet.datasets import image_dataset_from_array, load_data
    >>> (x_train, y_train), _ = load_data("digits")
    >>> dataset = image_dataset_from_array(
    ...     x_train, y_train, batch_size=100, shuffle=True, seed=98
    ... )  # doctest: +SKIP
    >>> model.fit(dataset, epochs=5)  # doctest: +SKIP
    """
    arrays = _check_arrays(images, labels, num_classes)
    sampler = _make_sampler(
        len(arrays[0]), batch_size, shuffle, seed, drop_remainder, augment
    )
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`image_dataset_from_array` makes a `tf.data.Dataset`, which needs "
            "TensorFlow: `pip install tensorflow`. Without it, use "
            "`grain_dataset_from_array` or pass the arrays themselves to `fit`."
        ) from error
    return _tf_dataset(arrays, sampler, augment)


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

    It needs no TensorFlow. It takes the same arguments as
    `image_dataset_from_array`, and yields the same batches for the same `seed`.
    Keras cannot tell how many batches a Grain dataset has. It shows no total
    in the first epoch, and warns at the end of an epoch that the input ran
    out of data. Pass `shuffle=False` to `fit`; otherwise Keras warns that it
    ignores `shuffle`.

    Args:
        images: Array, as for `image_dataset_from_array`.
        labels: Array, as for `image_dataset_from_array`.
        batch_size: Integer. Defaults to `100`.
        shuffle: Boolean. Whether to shuffle. Defaults to `False`.
        seed: Integer, as for `image_dataset_from_array`.
        num_classes: Integer. If given, labels must be below it.
        drop_remainder: Boolean. Whether to drop the last batch if it has fewer
            than `batch_size` images. Defaults to `False`.
        augment: Callable, as for `image_dataset_from_array`.

    Returns:
        A `grain.IterDataset` of `(images, labels)`: uint8 or float32 of shape
        `(batch, height, width, channels)` and int64 of shape `(batch,)`.

    Raises:
        ImportError: If Grain is not installed.
        ValueError: As for `image_dataset_from_array`.

    Example:

    >>> from keras_lenet.datasets import grain_dataset_from_array, load_data
    >>> (x_train, y_train), _ = load_data("digits")
    >>> dataset = grain_dataset_from_array(
    ...     x_train, y_train, batch_size=100, shuffle=True, seed=98
    ... )  # doctest: +SKIP
    >>> model.fit(dataset, epochs=5, shuffle=False)  # doctest: +SKIP
    """
    arrays = _check_arrays(images, labels, num_classes)
    sampler = _make_sampler(
        len(arrays[0]), batch_size, shuffle, seed, drop_remainder, augment
    )
    try:
        from keras_lenet.datasets.grain_dataset import BatchDataset
    except ImportError as error:
        raise ImportError(
            "`grain_dataset_from_array` needs Grain: `pip install grain`."
        ) from error
    return BatchDataset(arrays, sampler, augment)


def _check_arrays(
    images: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int | None
) -> tuple[Array, Array]:
    images, labels = check_images_and_labels(images, labels, num_classes)
    if max(images.shape[1:3]) > 32:
        raise ValueError(
            "`images` must have at most 32x32 pixels. Received: images of "
            f"shape {images.shape}. Shrink them first, e.g. with "
            "`keras.layers.Resizing(32, 32)`."
        )
    return images, labels


def _make_sampler(
    count: int,
    batch_size: int,
    shuffle: bool,
    seed: int | None,
    drop_remainder: bool,
    augment: Augment | None,
) -> EpochSampler:
    check_positive_integer("batch_size", batch_size)
    if drop_remainder and count < batch_size:
        raise ValueError(
            "`batch_size` must be at most the number of images when "
            f"`drop_remainder=True`. Received: batch_size={batch_size} and "
            f"{count} images, which leaves no batch."
        )
    if augment is not None and not callable(augment):
        raise ValueError(
            "`augment` must be a callable that takes images and a generator, "
            f"or `None`. Received: augment={augment!r}"
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
    return EpochSampler(count, batch_size, int(seed), shuffle, drop_remainder)


def dataset_from_arrays(
    arrays: tuple[Array, ...],
    batch_size: int,
    seed: int,
    shuffle: bool,
    drop_remainder: bool = False,
    augment: Augment | None = None,
) -> "tf.data.Dataset":
    """Makes a `tf.data.Dataset` of batches of any arrays of equal length.

    `augment` receives the batches of the first array.
    """
    sampler = EpochSampler(
        len(arrays[0]), batch_size, seed, shuffle, drop_remainder
    )
    return _tf_dataset(arrays, sampler, augment)


def _tf_dataset(
    arrays: tuple[Array, ...], sampler: EpochSampler, augment: Augment | None
) -> "tf.data.Dataset":
    import tensorflow as tf

    def epoch(_: Any) -> "tf.data.Dataset":
        first, indices, offsets = tf.numpy_function(
            sampler.next_epoch, [], [tf.int64, tf.int64, tf.int64]
        )
        offsets = tf.ensure_shape(offsets, [sampler.num_batches + 1])
        return tf.data.Dataset.range(sampler.num_batches).map(
            lambda batch: (
                first,
                batch,
                indices[offsets[batch] : offsets[batch + 1]],
            )
        )

    def take(number: Any, indices: Any) -> tuple[Array, ...]:
        return gather(arrays, indices, sampler.seed, int(number), augment)

    def batches(first: Any, number: Any, indices: Any) -> tuple[Any, ...]:
        # Index NumPy arrays: converting them to tensors would hold all data in
        # memory twice.
        batch = tf.numpy_function(
            take, [first + number, indices], [array.dtype for array in arrays]
        )
        size = sampler.batch_size if sampler.drop_remainder else None
        return (
            first,
            number,
            *(
                tf.ensure_shape(part, [size, *array.shape[1:]])
                for part, array in zip(batch, arrays, strict=True)
            ),
        )

    def count(first: Any) -> Any:
        sampler.count_epoch(int(first))
        return first

    def delivered(first: Any, number: Any, *batch: Any) -> tuple[Any, ...]:
        # Follows `prefetch`, so only batches that are used count.
        tf.cond(
            number == sampler.counting_batch,
            lambda: tf.numpy_function(count, [first], tf.int64),
            lambda: first,
        )
        return batch

    # Searching for code to convert takes AutoGraph longer than tracing does.
    without_autograph = tf.autograph.experimental.do_not_convert
    options = tf.data.Options()
    # Autotuning delays the end of an epoch until the tuner wakes up, after
    # 0.01 s, 0.02 s, 0.04 s, ... Measured: epochs of 0.8 s lasted 1.28 s. This
    # pipeline has nothing to tune.
    options.autotune.enabled = False
    # The default optimizations take 10 ms per epoch.
    options.experimental_optimization.apply_default_optimizations = False
    dataset = (
        tf.data.Dataset.range(1)
        .flat_map(without_autograph(epoch))
        .map(without_autograph(batches))
        .apply(tf.data.experimental.assert_cardinality(sampler.num_batches))
        .prefetch(16)
        .map(without_autograph(delivered))
        .with_options(options)
    )
    # `ResumableTraining` reads these attributes.
    dataset.sampler, dataset.arrays = sampler, arrays
    dataset.augment = augment
    return dataset
