import os
import tempfile
from pathlib import Path

import pytest

# Keras and TensorFlow take seconds to start, and the process of pytest that
# only hands out the tests does without them.


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="inject faults for an hour"
    )


def pytest_configure(config):
    """Has the processes share the cores, and what was compiled for a test."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ.update(
        OMP_NUM_THREADS="1",
        TF_XLA_FLAGS=f"--tf_xla_persistent_cache_directory={folder.name}",
        JAX_COMPILATION_CACHE_DIR=folder.name,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("starts_first") is None)


def pytest_runtest_setup(item):
    if item.get_closest_marker("needs_tensorflow"):
        pytest.importorskip("tensorflow")


def pytest_terminal_summary(terminalreporter):
    """Prints what was injected and what survived."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", [])
        if name == "survived" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("reliability: injected, survived")
        for family, injected, survived in sorted(lines):
            terminalreporter.line(f"{injected:6} {survived:6}  {family}")


@pytest.fixture
def full(request):
    """Returns whether to take the time for many more faults."""
    return request.config.getoption("--full")


@pytest.fixture
def all_survive(record_property):
    """Counts what was injected and what survived, of which nothing may lack."""

    def check(family, outcomes):
        outcomes = list(outcomes)
        record_property("survived", (family, len(outcomes), sum(outcomes)))
        assert outcomes and all(outcomes), family

    return check


@pytest.fixture
def generator():
    import numpy as np

    return np.random.default_rng()


@pytest.fixture(scope="session")
def digits():
    from keras_lenet.datasets import load_data

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
    import keras

    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)
