import os
import secrets
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

# Import Keras and NumPy inside functions: the pytest process that only
# distributes the tests starts seconds faster without them.


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="inject faults for an hour"
    )
    parser.addoption("--seed", type=int, help="seed of the fixture `generator`")


def pytest_configure(config):
    """Lets the test processes share the cores and the compilation caches."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ.update(
        OMP_NUM_THREADS="1",
        TF_XLA_FLAGS=f"--tf_xla_persistent_cache_directory={folder.name}",
        JAX_COMPILATION_CACHE_DIR=folder.name,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    # XLA compiles in less time, to slower code.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 "
        "--xla_cpu_use_fusion_emitters=false",
    )


# Doctests of what older versions of Keras lack.
_SINCE_KERAS_3_13 = {
    "keras_lenet.losses.KLDistillation",
    "keras_lenet.recipes.accurate",
    "keras_lenet.recipes.distilled",
    "keras_lenet.recipes.fast",
}


def pytest_collection_modifyitems(items):
    if tuple(map(int, version("keras").split(".")[:2])) < (3, 13):
        items[:] = [
            each for each in items if each.name not in _SINCE_KERAS_3_13
        ]
    items.sort(key=lambda item: item.get_closest_marker("starts_first") is None)


def pytest_runtest_setup(item):
    if item.get_closest_marker("needs_tensorflow"):
        pytest.importorskip("tensorflow")


def pytest_terminal_summary(terminalreporter):
    """Prints the number of injected and survived faults by family."""
    injected, survived = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                if name == "survived" and report.when == "call":
                    family, faults, survivals = value
                    injected[family] += faults
                    survived[family] += survivals
    if injected:
        terminalreporter.section("reliability: injected, survived")
    for family, count in sorted(injected.items()):
        terminalreporter.line(f"{count:6} {survived[family]:6}  {family}")


@pytest.fixture
def full(request):
    """Returns whether to inject many more faults."""
    return request.config.getoption("--full")


@pytest.fixture
def all_survive(record_property):
    """Returns a function that counts faults and asserts that all survive."""

    def check(family, outcomes):
        outcomes = list(outcomes)
        record_property("survived", (family, len(outcomes), sum(outcomes)))
        assert outcomes and all(outcomes), family

    return check


@pytest.fixture
def generator(request):
    """Returns a random generator. A failing test's report shows its seed."""
    import numpy as np

    seed = request.config.getoption("--seed")
    if seed is None:
        seed = secrets.randbits(32)
    # A printed line would appear in the output that `capsys` captures.
    request.node.add_report_section("setup", "seed", f"--seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def digits():
    from keras_lenet.datasets import load_data

    return load_data("digits")


@pytest.fixture(scope="session")
def mnist_dir():
    """Returns a folder with `mnist` (IDX files) and `tfds` (prepared)."""
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
