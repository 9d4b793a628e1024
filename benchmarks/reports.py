"""Puts results into a page."""

from collections.abc import Sequence
from pathlib import Path


def replace_lines(page: Path, script: str, lines: Sequence[str]) -> None:
    """Replaces the lines of a page between the marks of a script."""
    from keras_lenet.files.atomic import atomic_write

    text = page.read_text(encoding="utf-8")
    before, mark, rest = text.partition(f"<!-- {script} -->\n")
    _, end, after = rest.partition(f"<!-- end of {script} -->\n")
    if not end:
        raise ValueError(f"`{page}` has no marks of {script}.")
    whole = before + mark + "".join(f"{line}\n" for line in lines) + end + after
    with atomic_write(page) as temporary:
        temporary.write_text(whole, encoding="utf-8")
