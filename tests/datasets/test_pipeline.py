import itertools

import keras
import numpy as np
import pytest

from keras_lenet.datasets import (
    grain_dataset_from_array,
    image_dataset_from_array,
)
from tests.helpers import HAS_TENSORFLOW, needs_tensorflow

MAKERS = [
    pytest.param(image_dataset_from_array, marks=needs_tensorflow),
    grain_dataset_from_array,
]


def order_of(dataset):
    """Returns the labels of one epoch; in these tests labels are indices."""
    return [int(y) for _, batch in dataset for y in batch]


@needs_tensorflow
def test_the_seed_determines_a_new_order_for_each_epoch(images):
    def five_orders(seed):
        dataset = image_dataset_from_array(
            images, np.arange(23), 5, shuffle=True, seed=seed
        )
        return [order_of(dataset) for _ in range(5)]

    orders = five_orders(7)
    assert len({tuple(order) for order in orders}) == 5
    assert all(sorted(order) == list(range(23)) for order in orders)
    np.random.seed(0)  # noqa: NPY002
    assert five_orders(7) == orders
    assert five_orders(8) != orders


@needs_tensorflow
def test_the_order_has_not_changed_since_it_was_published(images):
    dataset = image_dataset_from_array(
        images[:8], np.arange(8), shuffle=True, seed=98
    )
    assert order_of(dataset) == [5, 3, 2, 0, 7, 4, 1, 6]
    assert order_of(dataset) == [1, 6, 5, 4, 0, 3, 7, 2]


@needs_tensorflow
def test_repeat_continues_with_the_orders_of_later_epochs(images):
    once, repeated = (
        image_dataset_from_array(images, np.arange(23), 5, shuffle=True, seed=7)
        for _ in range(2)
    )
    epochs = order_of(once) + order_of(once)
    assert order_of(repeated.repeat(2)) == epochs


@pytest.mark.parametrize("make", MAKERS)
def test_one_or_two_batches_do_not_advance_the_order(make, images):
    dataset = make(images, np.arange(23), 5, shuffle=True, seed=7)
    for count in (1, 2):
        assert len(list(itertools.islice(dataset, count))) == count
    first = order_of(dataset)
    other = make(images, np.arange(23), 5, shuffle=True, seed=7)
    assert order_of(other) == first != order_of(dataset)


@pytest.mark.parametrize("make", MAKERS)
def test_iterations_that_stop_early_have_different_orders(make, images):
    dataset = make(images, np.arange(23), 5, shuffle=True, seed=7)
    orders = [
        np.concatenate([y for _, y in itertools.islice(dataset, 3)]).tolist()
        for _ in range(4)
    ]
    whole = make(images, np.arange(23), 5, shuffle=True, seed=7)
    assert orders == [order_of(whole)[:15] for _ in range(4)]
    assert len(set(map(tuple, orders))) == 4


@needs_tensorflow
def test_images_and_labels_stay_together_as_bytes(images):
    dataset = image_dataset_from_array(
        images, np.arange(23)[:, np.newaxis], 5, shuffle=True, seed=1
    )
    for x, y in dataset.as_numpy_iterator():
        assert x.dtype == "uint8" and y.dtype == "int64"
        np.testing.assert_array_equal(x, images[y])


@needs_tensorflow
def test_without_shuffling_each_epoch_has_the_order_of_the_arrays(images):
    dataset = image_dataset_from_array(images, np.arange(23), 5)
    assert order_of(dataset) == order_of(dataset) == list(range(23))


@needs_tensorflow
def test_augmentation_depends_on_the_seed_and_the_batch_number_only(images):
    def noise(images, generator):
        return images + generator.integers(0, 9, images.shape, "uint8")

    def two_epochs(seed, shuffle=False):
        dataset = image_dataset_from_array(
            images, np.arange(23), 5, shuffle, seed, augment=noise
        )
        return [
            (x - images[y]).tobytes()
            for _ in range(2)
            for x, y in dataset.as_numpy_iterator()
        ]

    added = two_epochs(7)
    assert len(set(added)) == 10
    assert two_epochs(7) == two_epochs(7, shuffle=True) == added
    assert not set(two_epochs(8)) & set(added)


@needs_tensorflow
@pytest.mark.parametrize(
    "augment",
    [
        lambda images, generator: images / 255,
        lambda images, generator: images[:1],
    ],
)
def test_augment_must_keep_shape_and_dtype(augment, images, labels):
    dataset = image_dataset_from_array(images, labels, augment=augment)
    with pytest.raises(Exception, match="must return images of the shape"):
        next(iter(dataset))


@needs_tensorflow
def test_drop_remainder_drops_different_examples_in_each_epoch(images):
    labels = np.arange(23)
    dataset = image_dataset_from_array(images, labels, 5, shuffle=True, seed=1)
    assert len(dataset) == 5 and len(order_of(dataset)) == 23
    dataset = image_dataset_from_array(
        images, labels, 5, shuffle=True, seed=1, drop_remainder=True
    )
    assert len(dataset) == 4
    assert dataset.element_spec[0].shape == (5, 28, 28, 1)
    left_out = [set(labels) - set(order_of(dataset)) for _ in range(10)]
    assert {len(each) for each in left_out} == {3}
    assert len(set.union(*left_out)) > 3


@needs_tensorflow
def test_floats_in_0_to_1_become_float32(images, labels):
    dataset = image_dataset_from_array(images / 255, labels, 23)
    ((x, _),) = dataset.as_numpy_iterator()
    assert x.dtype == "float32"
    np.testing.assert_allclose(x, images / 255, rtol=1e-6)


@needs_tensorflow
def test_an_unseeded_order_follows_set_random_seed(images):
    orders = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        dataset = image_dataset_from_array(images, np.arange(23), shuffle=True)
        orders.append(order_of(dataset))
    assert orders[0] == orders[1] != list(range(23))


def bad_inputs():
    images = np.full((4, 28, 28, 1), 7, "uint8")
    labels = np.arange(4)
    nan = np.full((4, 28, 28, 1), 0.5)
    nan[2, 3, 4, 0] = np.nan
    infinite = np.where(np.isnan(nan), np.inf, nan)
    return {
        "fewer labels": (images, labels[:3], "4 images and 3 labels"),
        "nothing": (images[:0], labels[:0], "0 images and 0 labels"),
        "one image": (images[0, :, :, 0], labels, r"shape \(28, 28\)"),
        "channels first": (
            images.reshape(4, 1, 28, 28),
            labels,
            r"channels last.*transpose\(0, 2, 3, 1\)",
        ),
        "no pixels": (images[:, :0], labels, "keras.layers.Resizing"),
        "integers": (
            images.astype(int),
            labels,
            r"dtype int64\. Convert them with `np\.rint\(images\)\.astype",
        ),
        "booleans": (images > 0, labels, r"`np\.rint\(255 \* images\)\.astype"),
        "text": (images.astype(str), labels, "uint8 pixels"),
        "raw floats": (images * 1.0, labels, r"Received: 7.0, first at index"),
        "negative": (images * -0.1, labels, r"in \[0, 1\]"),
        "nan": (nan, labels, r"Received: nan, first at index \(2, 3, 4, 0\)"),
        "infinite": (infinite, labels, "Received: inf"),
        "one label": (images, 3, r"labels of shape \(\)"),
        "label too large": (images, labels + 7, "10, first at index 3"),
        "label negative": (images, labels - 1, "-1, first at index 0"),
        "label -100": (images, labels * -100, "-100, first at index 1"),
        "label 3.7": (images, labels + 0.7, "integers.*float64.*index 0"),
        "label nan": (images, labels * np.nan, "must be integers"),
        "label text": (images, labels.astype(str), "must be integers"),
        "one-hot": (images, np.eye(4), "argmax"),
    }


MAKERS = (image_dataset_from_array, grain_dataset_from_array)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("case", bad_inputs())
def test_bad_images_and_labels_are_rejected(case, make):
    images, labels, message = bad_inputs()[case]
    with pytest.raises(ValueError, match=message):
        make(images, labels, num_classes=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"batch_size": 2.0}, "Received: batch_size=2.0"),
        ({"seed": -1}, "`seed`.*Received: seed=-1"),
        ({"seed": "98"}, "Received: seed='98'"),
        ({"augment": 0.1}, "`augment`.*Received: augment=0.1"),
        (
            {"batch_size": 24, "drop_remainder": True},
            "batch_size=24 and 23 images",
        ),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_bad_arguments_are_rejected(make, arguments, message, images, labels):
    with pytest.raises(ValueError, match=message):
        make(images, labels, **arguments)


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow can be imported")
def test_the_error_where_tensorflow_is_missing_suggests_grain(images, labels):
    with pytest.raises(ImportError, match=r"tensorflow`.*grain_dataset_from_a"):
        image_dataset_from_array(images, labels)
