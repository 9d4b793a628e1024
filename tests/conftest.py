import importlib.util
import os
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lenet.datasets import load_data


def _importable(name):
    try:
        return importlib.util.find_spec(name) and __import__(name)
    except ImportError:
        return False


needs_tensorflow = pytest.mark.skipif(
    not _importable("tensorflow"), reason="TensorFlow cannot be imported"
)


@pytest.fixture
def generator():
    return np.random.default_rng()


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder with MNIST as IDX files in `mnist` and prepared in `tfds`."""
    folder = Path(os.environ.get("KERAS_LENET_TEST_DATA", ""))
    if not (folder / "mnist" / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("KERAS_LENET_TEST_DATA names no folder with MNIST")
    return folder


@pytest.fixture(autouse=True)
def _restore_global_state():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
