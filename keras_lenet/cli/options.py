"""Options that several commands share, and the types of their values."""

import argparse
from typing import NoReturn

from keras_lenet.datasets import DATASETS
from keras_lenet.pretrained import PRESETS

_BACKENDS = ("tensorflow", "jax", "torch")

MODEL = (
    f"the name of a preset ({', '.join(PRESETS)}), the folder of a preset, or "
    "a .keras file"
)


class Parser(argparse.ArgumentParser):
    """A parser that prints errors on one line."""

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
        help="Keras' backend (default: that of KERAS_BACKEND or of Keras' "
        "configuration file, else tensorflow)",
    )
    return parser


def data() -> Parser:
    """Returns the options of commands that load a data set."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--dataset",
        default="digits",
        help=f"{', '.join(DATASETS)}, or the path of an .npz or CSV file, or "
        "of a folder with IDX files, CSV files or class folders (default: "
        "%(default)s, which needs no network)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow-datasets' data "
        "(default: ~/tensorflow_datasets)",
    )
    return parser


def pictures() -> Parser:
    """Returns the arguments of commands that read pictures."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "pictures",
        metavar="[MODEL] PICTURE",
        nargs="+",
        help=f"PNG, JPEG, BMP, GIF, TIFF or WebP files; MODEL is {MODEL} "
        "(default: handwritten)",
    )
    parser.add_argument(
        "--accept-all",
        action="store_true",
        help="print a digit even if the picture probably shows none",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the answers as JSON"
    )
    return parser


def plot(plots: str) -> Parser:
    """Returns the options of commands that draw `plots`."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--plot",
        action="store_true",
        help=f"draw {plots} into --output",
    )
    parser.add_argument(
        "--output",
        default="lenet5-plots",
        metavar="DIR",
        help="folder for --plot (default: %(default)s)",
    )
    return parser


def reject() -> Parser:
    """Returns the option of commands that reject uncertain predictions."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--reject",
        type=probability,
        metavar="P",
        help="reject predictions with a probability below P, from 0 to 1",
    )
    return parser


def positive_integer(text: str) -> int:
    """Parses an integer of at least 1."""
    return _integer_from(1, text)


def natural_number(text: str) -> int:
    """Parses an integer of at least 0."""
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


def _integer_from(low: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    # NumPy's largest seed.
    high = 2**32 - 1
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(
            f"expected an integer from {low} to {high}. Received: {text!r}"
        )
    return value
