"""Quiet imports of Keras and TensorFlow."""

import argparse
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from keras_lenet.datasets import DATASETS

# Lines to drop: information, absl's own warning, and a missing CUDA library
# (303).
_START_UP_LINES = (
    r"I\d{4} |WARNING: All log messages before absl::InitializeLog|"
    r"E\d{4} .*failed call to cuInit: .*\(303\)"
)


def import_keras(arguments: argparse.Namespace) -> None:
    """Imports Keras, and TensorFlow if the command uses it."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with _without_start_up_lines():
        with _without_scikit_learn():
            import keras

        dataset = getattr(arguments, "dataset", "digits")
        uses_tensorflow = (
            keras.backend.backend() == "tensorflow"
            or arguments.command == "train"
            or (dataset in DATASETS and dataset != "digits")
        )
        # If TensorFlow is missing, `load_data` raises a clearer error.
        with contextlib.suppress(ImportError):
            if uses_tensorflow:
                import tensorflow as tf

                tf.config.list_physical_devices()


@contextlib.contextmanager
def _without_scikit_learn() -> Iterator[None]:
    """Lets Keras do without its wrappers for scikit-learn.

    Importing them takes over a second, and no command uses them.
    """
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["sklearn"]


def silence_tfds() -> None:
    """Drops the warnings of tensorflow-datasets, which its errors repeat."""
    logging.getLogger("absl").setLevel(logging.ERROR)


@contextlib.contextmanager
def _without_start_up_lines() -> Iterator[None]:
    """Drops the lines that TensorFlow prints whenever it starts.

    Its C++ code writes them to stderr before it reads any setting. A separate
    process filters stderr, so other lines arrive even if this process crashes.
    """
    code = (
        "import re, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "for line in sys.stdin.buffer:\n"
        "    if not re.match(sys.argv[1].encode(), line):\n"
        "        sys.stderr.buffer.write(line)\n"
        "        sys.stderr.buffer.flush()\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code, _START_UP_LINES]
    stderr = os.dup(2)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as filter_:
        pipe: Any = filter_.stdin
        os.dup2(pipe.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
