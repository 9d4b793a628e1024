"""Packages that only some parts need."""

import importlib.util

# The package's extra that installs each module.
_EXTRAS = {
    "ai_edge_litert": "litert",
    "mlflow": "mlflow",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "tensorboardX": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}


def check_installed(name: str, needed_by: str) -> None:
    """Checks that a module can be imported.

    Raises:
        ImportError: If it is not installed. The message says how to do that.
    """
    if importlib.util.find_spec(name) is None:
        package = f"keras-lenet[{_EXTRAS[name]}]" if name in _EXTRAS else name
        raise ImportError(
            f"{needed_by} needs {name}. Install it with "
            f'`pip install "{package}"`.'
        )
