"""Runs the lessons, and makes notebooks of them.

    python docs/lessons.py [NAME ...]

A lesson is a page in `docs/pages/lessons`. Its Python blocks run in order, in
one process and an empty folder, on the backend that the page's first line
states. What a block prints is written into the `text` block that follows it.
`images/NAME-curves.png` on the page NAME is the file `curves.png` that the
lesson writes. The page also becomes `docs/notebooks/NAME.ipynb`.
"""

import argparse
import json
import os
import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from keras_lenet.files.atomic import atomic_write

ROOT = Path(__file__).parent.parent
LESSONS = ROOT / "docs/pages/lessons"
NOTEBOOKS = ROOT / "docs/notebooks"
REPOSITORY = "https://github.com/keras-lenet/keras_lenet/blob/main"

# A Python block and what it prints.
_BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.DOTALL | re.M
)
_PICTURE = re.compile(r"^!\[[^]]*\]\(images/([^)]+)\)\n", re.M)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")

# A line that separates the outputs of two blocks.
_END = "-- end of a block --"

_SETUP = """\
%pip install keras-lenet

import os

os.environ["KERAS_BACKEND"] = "{backend}"
"""

# `from IPython.display import Image` would replace Pillow's `Image`.
_SHOW = """\
import IPython.display

IPython.display.Image("{file}")
"""


def names() -> list[str]:
    """Returns the names of all lessons."""
    return sorted(page.stem for page in LESSONS.glob("*.md"))


def page(name: str) -> str:
    """Returns the text of a lesson's page."""
    return (LESSONS / f"{name}.md").read_text(encoding="utf-8")


def backend(text: str) -> str:
    """Returns the backend that a page states."""
    stated = re.match(r"<!-- backend: (\w+) -->\n", text)
    if stated is None:
        raise ValueError(
            "A page must begin with `<!-- backend: NAME -->`. Received: "
            f"{text.partition(chr(10))[0]!r}"
        )
    return stated[1]


def published(text: str) -> list[str]:
    """Returns what a page says that each of its Python blocks prints."""
    return [output or "" for _, output in _BLOCK.findall(text)]


def run(text: str, folder: Path) -> list[str]:
    """Runs a page's Python blocks, and returns what each of them prints.

    Args:
        text: String, the page.
        folder: Path of an empty folder, where the lesson writes its files.

    Returns:
        List of strings.

    Raises:
        RuntimeError: If a block raises an error.
    """
    script = folder / "lesson.py"
    script.write_text(
        "".join(
            f"{code}print({_END!r}, flush=True)\n"
            for code, _ in _BLOCK.findall(text)
        ),
        encoding="utf-8",
    )
    finished = subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        # With one thread, sums have the same order whatever the number of
        # cores.
        env={
            **os.environ,
            "KERAS_BACKEND": backend(text),
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
        },
        capture_output=True,
        encoding="utf-8",
    )
    if finished.returncode:
        raise RuntimeError(f"The lesson failed.\n{finished.stderr[-3000:]}")
    return finished.stdout.split(f"{_END}\n")[:-1]


def with_outputs(text: str, outputs: list[str]) -> str:
    """Returns a page with new outputs."""
    remaining = iter(outputs)

    def block(match: re.Match[str]) -> str:
        code, output = match[1], next(remaining)
        shown = f"\n```text\n{output}```\n" if output else ""
        return f"```python\n{code}```\n{shown}"

    return _BLOCK.sub(block, text)


def pictures(name: str, text: str) -> dict[str, str]:
    """Returns a page's pictures: the files that the lesson writes by name."""
    return {
        shown: shown.removeprefix(f"{name}-")
        for shown in _PICTURE.findall(text)
    }


def notebook(name: str, text: str) -> str:
    """Returns a page as a notebook without outputs.

    Pictures become cells that display the file that the lesson has written.
    """
    parts = list(_cells(name, text))
    # Keras reads the backend when it is imported.
    parts.insert(1, ("code", _SETUP.format(backend=backend(text))))
    cells = [_cell(f"{name}-{i}", *part) for i, part in enumerate(parts)]
    content = {
        "cells": cells,
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _cells(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yields the types and sources of a notebook's cells."""
    text = re.sub(r"^<!-- .* -->\n\n?", "", text)
    text = re.sub(r"^\[Open as a notebook\].*\n\n", "", text, flags=re.M)
    files = pictures(name, text)
    code: str | None
    # `split` returns Markdown, code, output, Markdown, ...
    for markdown, code in _pairs(_BLOCK.split(text)):
        rest = _PICTURE.split(markdown)
        for prose, shown in zip(rest[::2], [*rest[1::2], None], strict=True):
            if prose.strip():
                yield "markdown", _LINK.sub(_absolute, prose.strip())
            if shown is not None:
                yield "code", _SHOW.format(file=files[shown])
        if code is not None:
            yield "code", code


def _pairs(parts: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yields each piece of Markdown and the code that follows it."""
    return zip(parts[::3], [*parts[1::3], None], strict=True)


def _absolute(link: re.Match[str]) -> str:
    path, mark, anchor = link[1].partition("#")
    path = posixpath.normpath(posixpath.join("docs/pages/lessons", path))
    return f"]({REPOSITORY}/{path}{mark}{anchor})"


def _cell(identifier: str, kind: str, source: str) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": identifier,
        "metadata": {},
        "source": source.rstrip("\n").splitlines(keepends=True),
    }
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell


def update(name: str) -> None:
    """Runs a lesson, and writes its outputs, pictures and notebook."""
    text = page(name)
    with tempfile.TemporaryDirectory() as folder:
        text = with_outputs(text, run(text, Path(folder)))
        for shown, file in pictures(name, text).items():
            with Image.open(Path(folder) / file) as drawn:
                small = drawn.convert("RGB").quantize(64)
            with atomic_write(LESSONS / "images" / shown) as temporary:
                small.save(temporary, "PNG", optimize=True)
    with atomic_write(LESSONS / f"{name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(NOTEBOOKS / f"{name}.ipynb") as temporary:
        temporary.write_text(notebook(name, text), encoding="utf-8")


def main() -> None:
    """Updates the lessons that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="*", default=names())
    for name in parser.parse_args().names:
        update(name)
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
