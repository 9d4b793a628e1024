"""The parser of the command line."""

import argparse
import re

from keras_lenet.cli import demo, evaluate, export, predict, read, train
from keras_lenet.cli.options import Parser
from keras_lenet.version import __version__


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser. Each command sets `run`, the function it calls."""
    parser = Parser(
        prog="keras-lenet",
        description="Train, evaluate and export LeNet-5, and read pictures "
        "with it.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", dest="command", required=True, parser_class=Parser
    )
    for command in (train, evaluate, predict, read, export, demo):
        command.add_parser(commands)
    return parser


def flags_for_arguments(message: str, arguments: argparse.Namespace) -> str:
    """Replaces the names of arguments in an error message with options.

    `batch_size=7` and `` `batch_size` `` become `--batch-size 7` and
    `` `--batch-size` ``.
    """
    for name in vars(arguments):
        flag = "--" + name.replace("_", "-")
        message = message.replace(f"`{name}`", f"`{flag}`")
        message = re.sub(rf"(?<=Received: ){name}=", f"{flag} ", message)
    return message
