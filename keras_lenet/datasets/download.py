"""Data sets from tensorflow-datasets and `keras.datasets`."""

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from keras_lenet.datasets.registry import DATASETS
from keras_lenet.types import Array
from keras_lenet.validation.images import check_images_and_labels


def load_from_keras(name: str) -> list[tuple[Array, Array]]:
    """Loads training and test data from `keras.datasets`."""
    import keras

    try:
        loaded = getattr(keras.datasets, name).load_data()
    except Exception as error:
        # Keras raises a plain `Exception` if a download fails.
        raise ConnectionError(
            f"`keras.datasets` cannot load the data set {name!r}: {error}. Use "
            "'digits', which needs no network, or files."
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


def load_from_tfds(
    name: str, data_dir: str | os.PathLike[str] | None
) -> list[tuple[Array, Array]]:
    """Loads training and test data from tensorflow-datasets."""
    import tensorflow_datasets as tfds

    info = DATASETS[name]
    builder = tfds.builder(name, data_dir=data_dir)
    if not builder.is_prepared():
        _download(name, builder)
    loaded = builder.as_dataset(
        split=["train", "test"],
        batch_size=-1,
        as_supervised=True,
        # Read files one after the other, so that the order is known.
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    halves = []
    for split, (images, labels) in zip(
        ("train", "test"), tfds.as_numpy(loaded), strict=True
    ):
        order = _tfds_order(split, len(labels))
        if info.is_transposed:
            images = images.transpose(0, 2, 1, 3)
        labels = labels - info.first_label
        restored = np.empty_like(images), np.empty_like(labels)
        restored[0][order], restored[1][order] = images, labels
        halves.append(restored)
    return halves


def _tfds_order(split: str, count: int) -> Array:
    """Returns each prepared example's index in the original files.

    tensorflow-datasets sorts examples by the MD5 hash of split and key
    (`tensorflow_datasets.core.hashing`). The keys of all data sets in
    `DATASETS` are the indices in the original files.
    """
    digests = [
        hashlib.md5(f"{split}{index}".encode(), usedforsecurity=False).digest()
        for index in range(count)
    ]
    return np.array(sorted(range(count), key=digests.__getitem__))


def _download(name: str, builder: Any) -> None:
    url = DATASETS[name].url
    try:
        # Probe the host first: tensorflow-datasets would retry for minutes.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(str(url), timeout=10).close()
        builder.download_and_prepare()
    except Exception as error:
        raise ConnectionError(
            f"The data set {name!r} is not in {builder.data_dir} and cannot "
            f"be downloaded from {url}: {error}. Pass the `data_dir` of "
            "prepared data, or use 'digits', which needs no network."
        ) from error
