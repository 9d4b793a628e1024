"""The parser of the command line."""

import argparse
import re

from keras_lenet.cli import evaluate, predict, train
from keras_lenet.cli.options import Parser
from keras_lenet.version import __version__


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser. Every command sets `run`, which runs it."""
    parser = Parser(
        prog="keras-lenet",
        description="Train LeNet-5 on small images, evaluate it, and use it.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", dest="command", required=True, parser_class=Parser
    )
    for command in (train, evaluate, predict):
        command.add_parser(commands)
    return parser


def flags_for_arguments(message: str, arguments: argparse.Namespace) -> str:
    """Returns an error of a function in the words of the command line.

    The arguments of functions become options: `batch_size=7` and
    `` `batch_size` `` become `--batch-size 7` and `` `--batch-size` ``.

    Args:
        message: String.
        arguments: The parsed arguments, whose names are those of options.
    """
    names = {**dict.fromkeys(vars(arguments)), "name": "dataset"}
    for name, option in names.items():
        flag = "--" + (option or name).replace("_", "-")
        message = message.replace(f"`{name}`", f"`{flag}`")
        message = re.sub(rf"(?<=Received: ){name}=", f"{flag} ", message)
    return message
