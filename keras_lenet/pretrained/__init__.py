"""The pretrained models of the package, one folder per preset."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent
PRESETS = tuple(
    sorted(path.parent.name for path in FOLDER.glob("*/metadata.json"))
)


def is_preset(name: str | os.PathLike[str]) -> bool:
    """Returns whether a name is that of a preset, or a folder's path."""
    return name in PRESETS or Path(name).is_dir()
