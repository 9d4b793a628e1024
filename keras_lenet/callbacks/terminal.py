"""Lines in a terminal that shows Keras' progress bar."""

import sys

import keras

# As long as Keras' progress bar gets, with the codes of its colours.
_BAR_WIDTH = 160


def shows_progress_bar(callback: keras.callbacks.Callback) -> bool:
    """Returns whether the `fit` of a callback draws Keras' progress bar."""
    return (callback.params or {}).get("verbose") in (1, "auto")


def print_line(text: str, has_bar: bool) -> None:
    """Prints a line, above Keras' progress bar where there is one.

    Args:
        text: String.
        has_bar: Boolean. Whether the current line has a progress bar.
    """
    if has_bar and sys.stdout.isatty():
        # Make room below the bar, then insert a line, which moves it there.
        text = f"\n\x1b[A\r\x1b[L{text}"
    elif has_bar:
        # A notebook has no cursor: write over the bar, which Keras draws again.
        text = f"\r{text:{_BAR_WIDTH}}"
    print(text, flush=True)
