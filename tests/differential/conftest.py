import os
import re
import zlib

import pytest

pytest.register_assert_rewrite(
    "tests.differential.comparison", "tests.differential.twin"
)


_XLA_FLAGS = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
)


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "spread: without --full runs on PyTorch and one other backend",
    )
    # XLA compiles in a third of the time, to slower code.
    if all("differential" in argument for argument in config.args):
        os.environ.setdefault("XLA_FLAGS", " ".join(_XLA_FLAGS))


def pytest_collection_modifyitems(config, items):
    """Leaves out what runs on another backend."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if _runs_elsewhere(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _runs_elsewhere(item):
    """Returns whether this backend is not the one that runs a scenario."""
    marker = item.get_closest_marker("spread")
    # Those of the points run everywhere.
    is_point = re.search(r"\[p\d\d-|^test_p\d\d_", item.name)
    if is_point or marker is None:
        return False
    import keras

    number = zlib.crc32(item.name.encode()) % len(marker.args)
    return marker.args[number] != keras.backend.backend()
