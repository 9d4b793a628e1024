"""Printing lines beside Keras' progress bar."""

import sys

import keras

# The maximum length of Keras' progress bar, with its colour codes.
_BAR_WIDTH = 160


def shows_progress_bar(callback: keras.callbacks.Callback) -> bool:
    """Returns whether the callback's `fit` draws Keras' progress bar."""
    return (callback.params or {}).get("verbose") in (1, "auto")


def print_line(text: str, has_bar: bool) -> None:
    """Prints a line, above the progress bar if the current line has one."""
    if has_bar and sys.stdout.isatty():
        # Make room below the bar, then insert a line, which moves it there.
        text = f"\n\x1b[A\r\x1b[L{text}"
    elif has_bar:
        # A notebook has no cursor: overwrite the bar, which Keras redraws.
        text = f"\r{text:{_BAR_WIDTH}}"
    print(text, flush=True)
