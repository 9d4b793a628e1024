"""The command line: `keras-lenet COMMAND`."""

import os
import signal
import sys
from collections.abc import Sequence

from keras_lenet.cli.parser import flags_for_arguments, make_parser
from keras_lenet.cli.program_cache import use_program_cache
from keras_lenet.cli.terminal import import_keras
from keras_lenet.training import TrainingInterrupted

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Sequence of strings, the arguments. Defaults to those of the
            process.

    Returns:
        The exit code: 0 for success, 2 for invalid input, or 128 plus the
        number of a signal: 130 for Ctrl-C, 143 for SIGTERM.
    """
    arguments = make_parser().parse_args(argv)
    if arguments.backend:
        os.environ["KERAS_BACKEND"] = arguments.backend
    use_program_cache()
    try:
        import_keras(arguments)
        arguments.run(arguments)
    except (ImportError, OSError, ValueError) as error:
        message = flags_for_arguments(" ".join(str(error).split()), arguments)
        print(f"keras-lenet: error: {message}", file=sys.stderr)
        return 2
    except TrainingInterrupted as interrupted:
        print(
            f"\nkeras-lenet: interrupted; the run is saved in "
            f"{interrupted.path}.\n"
            "To continue, repeat the command with --resume.",
            file=sys.stderr,
        )
        return 128 + interrupted.number
    except KeyboardInterrupt:
        print("\nkeras-lenet: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0
