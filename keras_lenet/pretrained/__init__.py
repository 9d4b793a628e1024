"""The presets that come with the package, a folder each."""

from pathlib import Path

FOLDER = Path(__file__).parent
PRESETS = tuple(
    sorted(path.parent.name for path in FOLDER.glob("*/metadata.json"))
)
