import sys

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, ResumableTraining
from keras_lenet.datasets import (
    grain_dataset_from_array,
    image_dataset_from_array,
)
from keras_lenet.datasets.sampler import EpochSampler
from tests.helpers import needs_tensorflow, since_keras

takes_grain = since_keras((3, 11), "does not take Grain's datasets")


def order(epoch):
    """Returns the order of 23 examples in an epoch, with seed 7."""
    return list(EpochSampler(23, 23, 7, shuffle=True).epoch_from(epoch)[1])


def epochs_of(dataset, count):
    """Returns the labels of each epoch; in these tests labels are indices."""
    return [[int(i) for _, y in dataset for i in y] for _ in range(count)]


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_the_order_depends_on_the_seed_and_the_epoch_only(
    drop_remainder, images
):
    dataset = grain_dataset_from_array(
        images,
        np.arange(23),
        5,
        shuffle=True,
        seed=7,
        drop_remainder=drop_remainder,
    )
    kept = 20 if drop_remainder else 23
    assert epochs_of(dataset, 3) == [order(epoch)[:kept] for epoch in range(3)]


@needs_tensorflow
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_batches_equal_those_of_tf_data(images, shuffle, drop_remainder):
    def noise(images, generator):
        return images + generator.integers(0, 9, images.shape, "uint8")

    arguments = (images, np.arange(23), 5, shuffle, 7, 23, drop_remainder)
    by_grain = grain_dataset_from_array(*arguments, noise)
    by_tf_data = image_dataset_from_array(*arguments, noise)
    for _ in range(3):
        batches = list(by_grain)
        others = list(by_tf_data.as_numpy_iterator())
        assert len(batches) == len(others) == 5 - drop_remainder
        for (x, y), (other_x, other_y) in zip(batches, others, strict=True):
            assert x.dtype == other_x.dtype and y.dtype == other_y.dtype
            np.testing.assert_array_equal(x, other_x)
            np.testing.assert_array_equal(y, other_y)


def test_an_epoch_counts_once(images):
    dataset = grain_dataset_from_array(images, np.arange(23), 5, True, 7)
    iterator = iter(dataset)
    assert len(list(iterator)) == 5
    assert epochs_of(dataset, 1) == [order(1)]
    assert list(iterator) == []
    assert epochs_of(dataset, 1) == [order(2)]


def test_an_iterator_resumes_from_its_state(images):
    dataset = grain_dataset_from_array(images, np.arange(23), 5, True, 7)
    iterator = iter(dataset)
    next(iterator), next(iterator)
    state = iterator.get_state()
    rest = [y.tolist() for _, y in iterator]
    assert len(rest) == 3
    resumed = iter(dataset)
    resumed.set_state(state)
    assert [y.tolist() for _, y in resumed] == rest
    # Both iterators complete the same epoch, which counts once.
    assert epochs_of(dataset, 1) == [order(1)]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@takes_grain
def test_fit_uses_the_batches_in_order(images, generator):
    labels = generator.integers(0, 3, 23)

    def make():
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        return model

    trained, expected = make(), make()
    expected.set_weights(trained.get_weights())
    dataset = grain_dataset_from_array(images, labels, 5, shuffle=True, seed=7)
    trained.fit(dataset, epochs=3, shuffle=False, verbose=0)
    for epoch in range(3):
        for batch in np.split(order(epoch), range(5, 23, 5)):
            expected.train_on_batch(images[batch], labels[batch])
    for weight, other in zip(
        trained.get_weights(), expected.get_weights(), strict=True
    ):
        np.testing.assert_allclose(weight, other, atol=1e-5)
    loss = trained.evaluate(dataset, verbose=0)
    expected_loss = expected.evaluate(images, labels, verbose=0)
    assert loss == pytest.approx(expected_loss, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@takes_grain
def test_lenet5_trains_on_a_grain_dataset(digits):
    (x, y), test = digits
    dataset = grain_dataset_from_array(x, y, shuffle=True, seed=98)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(dataset, epochs=5, shuffle=False, verbose=0)
    assert model.evaluate(*test, verbose=0)[1] > 0.8


def test_resumable_training_rejects_a_grain_dataset(images, labels, tmp_path):
    dataset = grain_dataset_from_array(images, labels)
    with pytest.raises(ValueError, match="what `image_dataset_from_array` ret"):
        ResumableTraining(tmp_path / "state.npz", dataset)


def test_the_error_without_grain_says_what_to_install(
    images, labels, monkeypatch
):
    monkeypatch.setitem(sys.modules, "grain", None)
    monkeypatch.delitem(
        sys.modules, "keras_lenet.datasets.grain_dataset", raising=False
    )
    with pytest.raises(ImportError, match="pip install grain"):
        grain_dataset_from_array(images, labels)
