"""Puts results into `README.md` here."""

from collections.abc import Sequence
from pathlib import Path

README = Path(__file__).with_name("README.md")


def replace_lines(script: str, lines: Sequence[str]) -> None:
    """Replaces the lines between the marks of a script."""
    from keras_lenet.files.atomic import atomic_write

    text = README.read_text(encoding="utf-8")
    before, mark, rest = text.partition(f"<!-- {script} -->\n")
    _, end, after = rest.partition(f"<!-- end of {script} -->\n")
    if not end:
        raise ValueError(f"`{README}` has no marks of {script}.")
    whole = before + mark + "".join(f"{line}\n" for line in lines) + end + after
    with atomic_write(README) as temporary:
        temporary.write_text(whole, encoding="utf-8")
