"""Packages that only some formats need."""

import importlib.util

# The package's extra that installs each module.
_EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "ai_edge_litert": "litert",
}


def check_installed(name: str) -> None:
    """Checks that a module can be imported.

    Raises:
        ImportError: If it is not installed. The message says how to do that.
    """
    if importlib.util.find_spec(name) is None:
        package = f"keras-lenet[{_EXTRAS[name]}]" if name in _EXTRAS else name
        raise ImportError(
            f"This format needs {name}. Install it with "
            f'`pip install "{package}"`.'
        )
