"""`keras-lenet read`."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from keras_lenet.cli import options
from keras_lenet.cli.models import (
    digit_threshold,
    load_pictures,
    model_and_pictures,
    write_figures,
)
from keras_lenet.training.checks import make_writable


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "read",
        parents=[
            options.common(),
            options.pictures(),
            options.plot("the digits of each picture in boxes"),
        ],
        help="print the digits that each picture shows, in reading order",
        description="Print all digits that each picture shows, row by row, and "
        "the probability that all are right. Digits may touch. A question "
        "mark is something that is not a digit.",
        usage="%(prog)s [options] [MODEL] PICTURE [PICTURE ...]",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the digits of each picture."""
    from keras_lenet import pictures, plots, saving

    name, paths = model_and_pictures(arguments.pictures)
    model = saving.load(name)
    if model.input_shape[1:] != (28, 28, 1) or model.num_classes != 10:
        raise ValueError(
            "MODEL must be a model of ten digits of 28x28 grey pixels. "
            f"Received: {name}, for {model.num_classes} classes and images of "
            f"shape {model.input_shape[1:]}."
        )
    if arguments.plot:
        make_writable(Path(arguments.output))
    originals = load_pictures(paths)
    threshold = 0.0 if arguments.accept_all else digit_threshold(name)
    readings = [pictures.read_digits(picture, model) for picture in originals]
    found = [
        _describe(path, rows, threshold)
        for path, rows in zip(paths, readings, strict=True)
    ]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for result in found:
            print(f"{result['picture']}: {_answer(result)}")
    if arguments.plot:
        figure = plots.plot_readings(
            originals,
            [_marked(rows, threshold) for rows in readings],
            [f"{Path(one['picture']).name}\n{_answer(one)}" for one in found],
        )
        write_figures(Path(arguments.output), {"digits": figure})


def _marked(rows: Any, threshold: float) -> list[Any]:
    """Returns digits, with a question mark for what is not a digit."""
    return [
        digit if digit.probability >= threshold else digit._replace(label="?")
        for row in rows
        for digit in row
    ]


def _describe(path: str, rows: Any, threshold: float) -> dict[str, Any]:
    """Returns the object that `--json` prints for a picture."""
    digits = [digit for row in rows for digit in row]
    lines = [
        "".join(str(digit.label) for digit in _marked([row], threshold))
        for row in rows
    ]
    return {
        "picture": path,
        "text": "\n".join(lines),
        "probability": (
            math.prod(digit.probability for digit in digits) if digits else None
        ),
        "digits": [
            {
                "class": digit.label,
                "probability": digit.probability,
                "box": list(digit.box),
            }
            for digit in digits
        ],
    }


def _answer(result: dict[str, Any]) -> str:
    if not result["digits"]:
        return "no ink"
    text = result["text"].replace("\n", " / ")
    return f"{text} ({result['probability']:.1%})"
