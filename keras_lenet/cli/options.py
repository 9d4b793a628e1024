"""Options that several commands share, and the types of their values."""

import argparse
from typing import NoReturn

from keras_lenet.datasets import DATASETS
from keras_lenet.pretrained import PRESETS

_BACKENDS = ("tensorflow", "jax", "torch")

MODEL = (
    f"{', '.join(PRESETS[:-1])} or {PRESETS[-1]}, which come with the package, "
    "the folder of a preset, or a .keras file"
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors have one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(
            2, f"{self.prog}: error: {message} (see {self.prog} --help)\n"
        )


def common() -> Parser:
    """Returns the options of every command."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--backend",
        choices=_BACKENDS,
        help="Keras' backend (default: as KERAS_BACKEND or Keras' "
        "configuration says, else tensorflow)",
    )
    return parser


def data() -> Parser:
    """Returns the options of commands that load a data set."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--dataset",
        default="digits",
        help=f"{', '.join(DATASETS)}, an .npz or CSV file, or a folder of IDX "
        "files, CSV files or class folders (default: %(default)s, which needs "
        "no network)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where tensorflow-datasets keeps its data "
        "(default: ~/tensorflow_datasets)",
    )
    return parser


def judging() -> Parser:
    """Returns the options of commands that use a model's probabilities."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--reject",
        type=probability,
        metavar="BELOW",
        help="reject what is less probable, a number from 0 to 1",
    )
    parser.add_argument(
        "--plot",
        action="store_true",
        help="draw into --output: `evaluate` the confusion matrix, the errors "
        "and the risk-coverage curve, `predict` what the model saw",
    )
    parser.add_argument(
        "--output",
        default="lenet5-plots",
        metavar="DIR",
        help="where --plot writes (default: %(default)s)",
    )
    return parser


def positive_integer(text: str) -> int:
    """Parses an integer from 1."""
    return _integer_from(1, text)


def natural_number(text: str) -> int:
    """Parses an integer from 0."""
    return _integer_from(0, text)


def probability(text: str) -> float:
    """Parses a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 1. Received: {text!r}"
        )
    return value


def _integer_from(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    most = 2**32 - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(
            f"expected an integer from {least} to {most}. Received: {text!r}"
        )
    return value
