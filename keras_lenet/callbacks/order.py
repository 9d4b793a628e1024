"""The order of callbacks in `fit`."""

from typing import Any

import keras

from keras_lenet.callbacks.held_out_evaluation import HeldOutEvaluation


def check_order(callbacks: Any, validates: bool) -> None:
    """Checks that no callback monitors what only a later one evaluates.

    Args:
        callbacks: As given to `fit`.
        validates: Boolean. Whether `fit` has validation data of its own, so
            that all callbacks get its values.

    Raises:
        ValueError: When one does.
    """
    listed = keras.tree.flatten(callbacks or [])
    for index, callback in enumerate(listed):
        monitor = getattr(callback, "monitor", None)
        if (
            validates
            or not isinstance(monitor, str)
            # `ModelCheckpoint` of every epoch monitors nothing.
            or not getattr(callback, "save_best_only", True)
            or any(_may_give(other, monitor) for other in listed[:index])
        ):
            continue
        for other in listed[index + 1 :]:
            if isinstance(other, HeldOutEvaluation) and other.gives(monitor):
                name = type(callback).__name__
                raise ValueError(
                    f"`HeldOutEvaluation` must come before `{name}` in "
                    f"`callbacks`, which monitors one of its values. Received: "
                    f"callbacks={[type(c).__name__ for c in listed]}, "
                    f"monitor={monitor!r}"
                )


def _may_give(callback: Any, name: str) -> bool:
    """Returns whether a callback may put a value into the logs."""
    if isinstance(callback, HeldOutEvaluation):
        return callback.gives(name)
    # A callback of the user's may.
    return isinstance(callback, keras.callbacks.LambdaCallback) or type(
        callback
    ).__module__.partition(".")[0] not in ("keras", "keras_lenet")
