"""Presets: folders with a trained model and a card that describes it.

The files are those of KerasHub's presets
(https://keras.io/keras_hub/guides/upload/): `config.json`, `metadata.json`
and `model.weights.h5`. Here `metadata.json` also has the card, and the SHA-256
sums of the other two files, which reveal damage.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_lenet.files.atomic import flush
from keras_lenet.files.formats import FileFormatError, parsing
from keras_lenet.files.hdf5 import check_hdf5
from keras_lenet.models.checked_config import check_config, check_finite
from keras_lenet.pretrained import FOLDER, PRESETS

_CONFIG, _METADATA, _WEIGHTS = (
    "config.json",
    "metadata.json",
    "model.weights.h5",
)


class Preset(NamedTuple):
    """The content of a preset's folder.

    Attributes:
        path: Path of the folder.
        config: Dict. The serialized model.
        weights: Path of the file with the weights.
        card: Dict that describes the model.
    """

    path: Path
    config: dict[str, Any]
    weights: Path
    card: dict[str, Any]


def read_preset(preset: str | os.PathLike[str]) -> Preset:
    """Reads a preset and checks that it is complete.

    Args:
        preset: Name of a preset that comes with the package, `"mnist"`,
            `"digits"` or `"original"`, or path of a folder. A name wins over
            a path: a folder called `mnist` is `"./mnist"`.

    Returns:
        `Preset`. Its `card` has the model's training data, recipe and seed,
        its accuracy on test images and the calibration error of its
        probabilities.

    Raises:
        ValueError: If the preset does not exist.
        FileFormatError: If the preset is damaged.

    Example:

    >>> from keras_lenet.saving import read_preset
    >>> read_preset("mnist").card["dataset"]
    'mnist'
    """
    path = FOLDER / preset if preset in PRESETS else Path(preset)
    if not path.is_dir():
        raise ValueError(
            f"`preset` must be one of {', '.join(PRESETS)}, or the path of a "
            "folder that `save_to_preset` wrote. Received: "
            f"preset={os.fspath(preset)!r}"
        )
    for name in (_METADATA, _CONFIG, _WEIGHTS):
        if not (path / name).is_file():
            raise FileFormatError(path, "the file", name, "none")
    with parsing(path / _METADATA, "the metadata of a preset"):
        metadata = json.loads((path / _METADATA).read_bytes())
        card = dict(metadata["card"])
        sums = {name: metadata["sha256"][name] for name in (_CONFIG, _WEIGHTS)}
    for name, expected in sums.items():
        received = _sha256(path / name)
        if received != expected:
            raise FileFormatError(
                path / name, "the SHA-256", expected, received
            )
    with parsing(path / _CONFIG, "the configuration of a preset"):
        config = dict(json.loads((path / _CONFIG).read_bytes()))
    return Preset(path, config, path / _WEIGHTS, card)


def load_preset(
    preset: str | os.PathLike[str], base_class: Any, model_class: Any
) -> Any:
    """Loads the model of a preset, whose class must derive from `base_class`.

    The model has the saved class, or `model_class` if that is a subclass of
    the saved class. If neither is a subclass of the other, it raises an error.
    """
    found = read_preset(preset)
    with parsing(found.path, "a preset"):
        content = found.weights.read_bytes()
        saved_class = check_config(
            found.path, found.config, len(content), base_class, model_class
        )
        check_hdf5(found.weights, content)
    if issubclass(saved_class, model_class):
        model_class = saved_class
    elif not issubclass(model_class, saved_class):
        raise ValueError(
            f"`preset` must be one of a {model_class.__name__}. Received: "
            f"preset={os.fspath(preset)!r}, a {saved_class.__name__}."
        )
    with parsing(found.path, "a preset"):
        model = model_class.from_config(found.config["config"])
        model.load_weights(found.weights)
        check_finite(found.weights, model)
    return model


def write_preset(
    path: str | os.PathLike[str],
    config: dict[str, Any],
    save_weights: Callable[[Path], None],
    card: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Writes a preset completely or not at all.

    `facts` are further entries of the metadata. Raises a `ValueError` if the
    folder is not empty.
    """
    # `rename` would replace a link, not the folder that it points to.
    path = Path(os.path.realpath(path))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            "`path` must be a folder that is empty or does not exist, so that "
            f"nothing is overwritten. Received: path={str(path)!r}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        _write_json(temporary / _CONFIG, config)
        save_weights(temporary / _WEIGHTS)
        sums = {name: _sha256(temporary / name) for name in (_CONFIG, _WEIGHTS)}
        metadata = {**facts, "sha256": sums, "card": card}
        _write_json(temporary / _METADATA, metadata)
        # `mkdtemp` gives access only to the owner.
        temporary.chmod(path.parent.stat().st_mode & 0o777)
        for written in (*temporary.iterdir(), temporary):
            flush(written)
        if path.exists():
            path.rmdir()
        temporary.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
