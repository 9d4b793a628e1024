import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lenet.datasets import load_data

try:
    import tensorflow  # noqa: F401

    HAS_TENSORFLOW = True
except ImportError:
    HAS_TENSORFLOW = False

BACKEND = keras.backend.backend()

needs_tensorflow = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="TensorFlow cannot be imported"
)

# What reads and writes files does not ask Keras what it computes with.
once = pytest.mark.skipif(
    HAS_TENSORFLOW and BACKEND != "tensorflow",
    reason="the same on every backend, runs on TensorFlow",
)


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="inject faults for an hour"
    )


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


def run_python(code, *arguments, cwd=None):
    """Runs code in a process of its own and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """Lets JAX take what it compiled for one test for the others too."""
    if keras.backend.backend() == "jax":
        import jax

        folder = str(tmp_path_factory.mktemp("jax"))
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
