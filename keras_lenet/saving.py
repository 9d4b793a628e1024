"""Safe loading of LeNet models."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_lenet.callbacks.best_model_checkpoint import BEST_VALUE
from keras_lenet.files.arrays import checked_entries
from keras_lenet.files.formats import FileFormatError, check_kind, parsing
from keras_lenet.files.hdf5 import check_hdf5
from keras_lenet.models.adapt import adapt
from keras_lenet.models.base import BaseModel
from keras_lenet.models.checked_config import check_config, check_finite
from keras_lenet.models.lenet5 import LeNet5
from keras_lenet.models.presets import Preset, read_preset
from keras_lenet.original.model import OriginalLeNet5
from keras_lenet.pretrained import PRESETS, is_preset

__all__ = [
    "MODELS",
    "PRESETS",
    "Preset",
    "adapt",
    "load",
    "load_model",
    "load_preset",
    "read_preset",
]

# The models by name on the command line.
MODELS: dict[str, Any] = {"lenet5": LeNet5, "original": OriginalLeNet5}


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a model from a `.keras` file of any origin.

    `keras.saving.load_model` creates whatever registered class the file names,
    of any size. This function loads only a `LeNet5`, an `OriginalLeNet5`, a
    registered subclass, or an `Ensemble` of such models, after it has checked
    checksums, sizes and links.

    Args:
        path: Path of the file, as `model.save` writes it.

    Returns:
        The model, not compiled.

    Raises:
        FileNotFoundError: If the file does not exist.
        FileFormatError: If the file is damaged, contains anything else, or a
            weight is not finite. It is a `ValueError`.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.saving import load_model
    >>> path = getfixture("tmp_path") / "model.keras"
    >>> LeNet5(num_classes=26).save(path)
    >>> load_model(path).num_classes
    26
    """
    path = Path(path)
    check_kind(path, "a `.keras` file", "a zip archive")
    with path.open("rb") as file, parsing(path, "a `.keras` file"):
        with zipfile.ZipFile(file) as archive:
            entries = checked_entries(path, archive)
            # Reading an entry to its end verifies its checksum.
            contents = {e.filename: archive.read(e) for e in entries}
        expected = {"config.json", "metadata.json", "model.weights.h5"}
        if set(contents) - {BEST_VALUE} != expected:
            raise FileFormatError(
                path, "the entries", sorted(expected), sorted(contents)
            )
        weights = contents["model.weights.h5"]
        config = json.loads(contents["config.json"])
        check_config(path, config, len(weights), BaseModel)
        check_hdf5(path, weights)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        check_finite(path, model)
    return model


def load_preset(preset: str | os.PathLike[str], model_class: Any = None) -> Any:
    """Loads the model of a preset.

    Args:
        preset: Name of a preset that comes with the package, or path of a
            folder that `save_to_preset` wrote.
        model_class: Class of the model: the saved class or a subclass of it.
            Defaults to the saved class.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If the preset does not exist or belongs to another class.
        FileFormatError: If the preset is damaged or is not a preset.

    Example:

    >>> from keras_lenet.saving import load_preset
    >>> load_preset("digits").num_classes
    10
    """
    return (model_class or BaseModel).from_preset(preset)


def load(name: str | os.PathLike[str]) -> Any:
    """Loads a preset by name, the folder of a preset, or a `.keras` file.

    Args:
        name: Name or path. A name wins over a path.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If there is no preset or file of this name.
        FileFormatError: If the file is damaged or is not a model.
    """
    if is_preset(name):
        return load_preset(name)
    if not Path(name).is_file():
        raise ValueError(
            f"{name}: no such file, and none of the presets "
            f"{', '.join(PRESETS)}"
        )
    return load_model(name)
