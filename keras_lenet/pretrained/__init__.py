"""The pretrained models of the package, one folder per preset."""

from pathlib import Path

FOLDER = Path(__file__).parent
PRESETS = tuple(
    sorted(path.parent.name for path in FOLDER.glob("*/metadata.json"))
)
