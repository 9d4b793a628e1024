"""A C program under construction."""

import importlib.resources
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_lenet.types import Array


class Program:
    """Calls one function for each layer, from one array to another.

    Attributes:
        shape: Tuple of integers. The shape of the last layer's values.
        current: String. The array that holds them, `"a"` or `"b"`.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.current = "a"
        self._sizes = {"a": int(np.prod(shape)), "b": 1}
        self._weights: list[str] = []
        self._steps: list[str] = []
        self._used: set[str] = set()

    def define(self, name: str, values: Array, ctype: str) -> str:
        """Defines an array of constants, and returns its name."""
        flat = [_literal(value) for value in values.ravel()]
        per_line = 6 if values.dtype == np.float32 else 12
        lines = [
            "    " + ", ".join(flat[start : start + per_line])
            for start in range(0, len(flat), per_line)
        ]
        shape = " x ".join(map(str, values.shape))
        self._weights.append(
            f"/* {shape} */\nstatic const {ctype} {name}[{len(flat)}] = {{\n"
            + ",\n".join(lines)
            + "\n};"
        )
        return name

    def call(
        self, function: str, name: str, values: list[Any], shape: Any
    ) -> None:
        """Adds a call that reads one array and writes the other."""
        other = "b" if self.current == "a" else "a"
        arguments = [self.current, *map(_literal, values), other]
        size = "x".join(map(str, shape))
        self._add(function, arguments, f"{name}: {size}")
        self.current, self.shape = other, tuple(shape)
        self._sizes[other] = max(self._sizes[other], int(np.prod(shape)))

    def call_in_place(self, function: str, name: str, *values: Any) -> None:
        """Adds a call that changes the values of an array."""
        count = int(np.prod(self.shape))
        arguments = [self.current, str(count), *map(_literal, values)]
        self._add(function, arguments, name)

    def _add(self, function: str, arguments: list[str], comment: str) -> None:
        self._used.add(function)
        self._steps.append(
            f"    /* {comment} */\n    {function}({', '.join(arguments)});"
        )

    def text(self, template: str, functions: str, card: str) -> str:
        """Returns the text of a template with the program filled in.

        `functions` is the template with the functions that may be called, and
        `card` a comment.
        """
        values = {
            "card": card,
            "weights": "\n\n".join(self._weights),
            "functions": "\n\n".join(_functions(functions, self._used)),
            "steps": "\n".join(self._steps),
            "size_a": self._sizes["a"],
            "size_b": self._sizes["b"],
            "output": self.current,
        }
        return fill(template, values)


def fill(template: str, values: dict[str, Any]) -> str:
    """Returns a file of the folder `templates`, with `@name@` replaced."""
    # A class may be called like a mark, so replace all marks in one pass.
    return re.sub(
        r"@(\w+)@", lambda mark: str(values[mark[1]]), _read(template)
    )


def as_comment(card: dict[str, str]) -> str:
    """Returns a model's metadata as the lines of a C comment."""
    lines = (f" * {key}: {value}" for key, value in card.items())
    return "\n".join(line.replace("*/", "* /") for line in lines)


def _read(template: str) -> str:
    folder = importlib.resources.files("keras_lenet.exporting") / "templates"
    return (folder / template).read_text("utf-8")


def _functions(template: str, used: set[str]) -> Iterator[str]:
    """Yields a file's functions that are used or that begin with `/* For`.

    Two empty lines separate the functions.
    """
    for part in _read(template).strip().split("\n\n\n"):
        match = re.search(r"^static \w+ (\w+)\(", part, re.MULTILINE)
        if part.startswith("/* For") or (match and match[1] in used):
            yield part


def _literal(value: Any) -> str:
    """Returns a value as it is written in C. A float32 stays exactly equal."""
    if isinstance(value, (str, int, np.integer)):
        return str(value)
    text = f"{np.float32(value):.9g}"
    return (text if set(text) & set(".e") else f"{text}.0") + "f"
