"""The order of callbacks in `fit`."""

from typing import Any

import keras

from keras_lenet.callbacks.held_out_evaluation import HeldOutEvaluation


def check_order(callbacks: Any, validates: bool) -> None:
    """Checks that no callback monitors values of a later `HeldOutEvaluation`.

    Args:
        callbacks: The `callbacks` argument of `fit`.
        validates: Boolean. Whether `fit` has validation data, whose results
            all callbacks receive.

    Raises:
        ValueError: If one does.
    """
    if validates:
        return
    listed = keras.tree.flatten(callbacks or [])
    for index, callback in enumerate(listed):
        monitor = getattr(callback, "monitor", None)
        if (
            isinstance(monitor, str)
            # `ModelCheckpoint` ignores `monitor` if it saves every epoch.
            and getattr(callback, "save_best_only", True)
            and not any(_may_provide(c, monitor) for c in listed[:index])
            and any(
                isinstance(c, HeldOutEvaluation) and c.provides(monitor)
                for c in listed[index + 1 :]
            )
        ):
            name = type(callback).__name__
            raise ValueError(
                f"`HeldOutEvaluation` must come before `{name}` in "
                f"`callbacks`, which monitors one of its values. Received: "
                f"callbacks={[type(c).__name__ for c in listed]}, "
                f"monitor={monitor!r}"
            )


def _may_provide(callback: Any, name: str) -> bool:
    """Returns whether a callback may add `name` to the logs."""
    if isinstance(callback, HeldOutEvaluation):
        return callback.provides(name)
    # User-defined callbacks may add any value.
    return isinstance(callback, keras.callbacks.LambdaCallback) or type(
        callback
    ).__module__.partition(".")[0] not in ("keras", "keras_lenet")
