"""Keeping compiled programs between two runs of the command line."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path


def use_program_cache() -> None:
    """Lets JAX and TensorFlow keep compiled programs on disk.

    The folder is in that of Keras, `~/.keras` or `KERAS_HOME`. It has the name
    of the processor, because programs are compiled for its instructions. What
    the user has set in the environment stays as it is.
    """
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    folder = home / "keras_lenet" / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    settings = {"TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={folder}"}
    if _jax_loads_programs():
        settings |= {
            "JAX_COMPILATION_CACHE_DIR": str(folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _jax_loads_programs() -> bool:
    """Returns whether JAX gets right results from programs on disk.

    JAX 0.6 and earlier return wrong numbers on a CPU.
    """
    try:
        major, minor, *_ = importlib.metadata.version("jax").split(".")
    except importlib.metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (0, 7)


def _processor() -> str:
    """Returns a short name of the processor and its instructions."""
    facts = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts += sorted(
        {line for line in lines if line.startswith(("flags", "Features"))}
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
