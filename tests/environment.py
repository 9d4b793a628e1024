"""What the tests run on."""

import subprocess
import sys

import keras
import pytest

try:
    import tensorflow  # noqa: F401

    HAS_TENSORFLOW = True
except ImportError:
    HAS_TENSORFLOW = False

BACKEND = keras.backend.backend()

needs_tensorflow = pytest.mark.needs_tensorflow

# What reads and writes files does not ask Keras what it computes with.
once = pytest.mark.skipif(
    HAS_TENSORFLOW and BACKEND != "tensorflow",
    reason="the same on every backend, runs on TensorFlow",
)

# What every backend would calculate alike.
on_default_backend = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="runs with the default backend"
)


def run_python(code, *arguments, cwd=None):
    """Runs code in a process of its own and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
