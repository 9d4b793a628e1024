"""`keras-lenet predict`."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.cli import options
from keras_lenet.cli.models import (
    digit_threshold,
    image_size,
    load_pictures,
    model_and_pictures,
    probabilities,
    write_figures,
)
from keras_lenet.training.checks import make_writable
from keras_lenet.types import Array


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "predict",
        parents=[
            options.common(),
            options.pictures(),
            options.reject(),
            options.plot("what the model saw of each picture"),
        ],
        help="print the character that each picture shows",
        description="Print the character that each picture shows, and its "
        "probability. A picture has one character, of any size and place, on "
        "paper of any colour, in any light.",
        usage="%(prog)s [options] [MODEL] PICTURE [PICTURE ...]",
    )
    parser.add_argument(
        "--top",
        type=options.positive_integer,
        default=1,
        metavar="N",
        help="print the N most probable classes (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the class of each picture and its probability."""
    from keras_lenet import plots, saving

    name, paths = model_and_pictures(arguments.pictures)
    model = saving.load(name)
    originals = load_pictures(paths)
    own_threshold = digit_threshold(name)
    images = [_prepare(model, picture, own_threshold) for picture in originals]
    if arguments.plot:
        make_writable(Path(arguments.output))
    with_ink = [image for image in images if image is not None]
    outputs = iter(probabilities(model, np.stack(with_ink)) if with_ink else ())
    threshold = 0.0 if arguments.accept_all else own_threshold
    names = model.class_names or list(map(str, range(model.num_classes)))
    found = [
        _describe(
            path,
            None if image is None else next(outputs),
            _has_several(model, picture, threshold),
            threshold,
            names,
            arguments,
        )
        for path, picture, image in zip(paths, originals, images, strict=True)
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


def _prepare(model: Any, picture: Array, threshold: float) -> Array | None:
    """Returns a picture in the form of the model's training images."""
    from keras_lenet import pictures

    size, channels = image_size(model), model.input_shape[-1]
    if threshold and channels == 1:
        return pictures.choose_image(picture, model, threshold)
    if channels == 1:
        return pictures.prepare_character(picture, size)
    if channels == 3:
        return pictures.fit_colour(picture, size)
    raise ValueError(
        "The model must take images with 1 or 3 channels. "
        f"Received: a model for {channels}."
    )


def _has_several(model: Any, picture: Array, threshold: float) -> bool:
    """Returns whether a picture shows several digits, if the model can tell."""
    from keras_lenet.pictures import has_several_parts, read_digits

    if not threshold or not has_several_parts(picture):
        return False
    digits = [digit for row in read_digits(picture, model) for digit in row]
    return len(digits) > 1 and all(d.probability >= threshold for d in digits)


def _describe(
    path: str,
    found: Array | None,
    has_several: bool,
    threshold: float,
    class_names: list[str],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Returns the object that `--json` prints for a picture."""
    top: list[dict[str, Any]] = []
    if found is not None:
        top = [
            {
                "class": int(index),
                "name": class_names[index],
                "probability": float(found[index]),
            }
            for index in found.argsort()[::-1][: arguments.top]
        ]
    best: dict[str, Any] = (
        top[0] if top else {"class": None, "name": None, "probability": None}
    )
    return {
        "picture": path,
        "ink": bool(top),
        "several": has_several,
        "accepted": bool(top) and best["probability"] >= threshold,
        "rejected": bool(top) and best["probability"] < (arguments.reject or 0),
        **best,
        "top": top,
    }


def _answer(result: dict[str, Any]) -> str:
    if not result["ink"]:
        return "no ink"
    if result["several"]:
        return "several digits, see `keras-lenet read`"
    top = [f"{one['name']} ({one['probability']:.1%})" for one in result["top"]]
    if not result["accepted"]:
        return f"not a digit, most like {', '.join(top)}"
    return ("rejected, " if result["rejected"] else "") + ", ".join(top)
