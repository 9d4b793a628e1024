"""`keras-lenet predict`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.cli import options
from keras_lenet.cli.models import image_size, probabilities, write_figures
from keras_lenet.pretrained import PRESETS
from keras_lenet.training.checks import make_writable
from keras_lenet.types import Array


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "predict",
        parents=[
            options.common(),
            options.predictions("what the model saw of each picture"),
        ],
        help="print the character that each picture shows",
        description="Print the character that each picture shows, and its "
        "probability. A picture has one character, of any size and place, on "
        "paper of any colour, in any light.",
        usage="%(prog)s [options] [MODEL] PICTURE [PICTURE ...]",
    )
    parser.add_argument(
        "pictures",
        metavar="[MODEL] PICTURE",
        nargs="+",
        help="PNG, JPEG, BMP, GIF, TIFF or WebP files; MODEL is "
        f"{options.MODEL} (default: mnist)",
    )
    parser.add_argument(
        "--top",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="print the N most probable classes (default: %(default)s)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the answers as JSON"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the class of each picture and its probability."""
    from keras_lenet import pictures, plots, saving

    name, paths = _model_and_pictures(arguments.pictures)
    model = saving.load(name)
    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    originals = [pictures.load_picture(path) for path in paths]
    images = [_prepare(model, picture) for picture in originals]
    if arguments.plot:
        make_writable(Path(arguments.output))
    with_ink = [image for image in images if image is not None]
    outputs = iter(probabilities(model, np.stack(with_ink)) if with_ink else ())
    found = [
        _describe(path, None if image is None else next(outputs), arguments)
        for path, image in zip(paths, images, strict=True)
    ]
    answers = [_answer(result) for result in found]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for path, answer in zip(paths, answers, strict=True):
            print(f"{path}: {answer}")
    if arguments.plot:
        titles = [
            f"{Path(path).name}\n{answer}"
            for path, answer in zip(paths, answers, strict=True)
        ]
        figure = plots.plot_pictures(originals, images, titles)
        write_figures(Path(arguments.output), {"pictures": figure})


def _model_and_pictures(given: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Splits the arguments into a model and the paths of pictures."""
    first, *others = given
    # A picture in a file with the name of a preset is `./mnist`.
    is_model = (
        first in PRESETS
        or Path(first).suffix == ".keras"
        or Path(first).is_dir()
    )
    if not is_model:
        return "mnist", given
    if not others:
        raise ValueError(
            f"PICTURE must be given. Received: only the model {first}."
        )
    return first, others


def _prepare(model: Any, picture: Array) -> Array | None:
    """Returns a picture in the form of the model's training images."""
    from keras_lenet import pictures

    size, channels = image_size(model), model.input_shape[-1]
    if channels == 1:
        return pictures.prepare_character(picture, size)
    if channels == 3:
        return pictures.fit_colour(picture, size)
    raise ValueError(
        "The model must take images with 1 or 3 channels. "
        f"Received: a model for {channels}."
    )


def _describe(
    path: str, found: Array | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Returns the object that `--json` prints for a picture."""
    top: list[dict[str, Any]] = []
    if found is not None:
        top = [
            {"class": int(index), "probability": float(found[index])}
            for index in found.argsort()[::-1][: arguments.top]
        ]
    best: dict[str, Any] = (
        top[0] if top else {"class": None, "probability": None}
    )
    return {
        "picture": path,
        "ink": bool(top),
        "rejected": bool(top) and best["probability"] < (arguments.reject or 0),
        **best,
        "top": top,
    }


def _answer(result: dict[str, Any]) -> str:
    if not result["ink"]:
        return "no ink"
    top = [
        f"{one['class']} ({one['probability']:.1%})" for one in result["top"]
    ]
    return ("rejected, " if result["rejected"] else "") + ", ".join(top)
