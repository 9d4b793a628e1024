"""`keras-lenet demo`."""

import argparse
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from keras_lenet.cli import options
from keras_lenet.cli.models import metadata


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "demo",
        parents=[options.common()],
        help="open a page to draw digits on",
        description="Write a page to draw digits on, which shows what the "
        "network computes, and open it in a browser. `keras-lenet export "
        "--format html` writes the same page where you want it.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default="handwritten",
        help=f"{options.MODEL} (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the page into a temporary folder and opens it."""
    from keras_lenet import saving
    from keras_lenet.exporting import export

    # The browser reads the page after this process has ended.
    path = Path(tempfile.mkdtemp(prefix="keras-lenet-"), "lenet5.html")
    export(
        saving.load(arguments.model),
        path,
        "html",
        metadata=metadata(arguments.model),
    )
    print(f"wrote {path}")
    if not webbrowser.open(path.as_uri()):
        print("open it in a browser: none could be started here")
