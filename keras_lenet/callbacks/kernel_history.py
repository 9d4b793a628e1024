"""Recording how kernels change inside `fit`."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.callbacks.isolation import get_values
from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.distribution import is_main_process
from keras_lenet.files.atomic import check_file
from keras_lenet.plots.kernel_history import save_kernel_animation
from keras_lenet.types import Array, Logs


class KernelHistory(PeriodicCallback):
    """Records the kernels of a layer every few training steps, inside `fit`.

    `keras_lenet.plots.plot_kernel_history` draws them, and `filepath` gets an
    animation of them. Like `HeldOutEvaluation`, it leaves the run unchanged and
    runs at the same steps.

    If a run is interrupted, `history` has the kernels so far, and
    `save_animation` writes them. A run that `ResumableTraining` resumes has the
    history of all of its steps.

    Args:
        layer_name: String. The name of the layer, with a kernel of shape
            `(height, width, ...)`, e.g. a `Conv2D`. Defaults to `"c1"`.
        freq: Integer or `"epoch"`. The number of training steps between two
            entries. Defaults to `"epoch"`.
        filepath: Path of an animated `.gif` file, written at the end of `fit`.
            It has at most 100 frames, spaced evenly over the entries, and the
            first 100 kernels. By default no file is written.
        strict: Boolean. Whether an error while recording or writing ends the
            run. By default the run continues, with one warning.

    Attributes:
        history: Dict of lists with one entry for the beginning of the last run
            and one for each interval: `"step"`, the number of training steps
            so far, and `"kernel"`, a float32 array of the kernel's shape.

    Raises:
        ValueError: If an argument is invalid. In `fit`, if the model has no
            such layer, or the layer has no such kernel or is not built.

    Example:

    >>> from keras_lenet import KernelHistory, LeNet5
    >>> from keras_lenet.datasets import load_data
    >>> (x_train, y_train), _ = load_data("digits")
    >>> model = LeNet5()
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> kernels = KernelHistory("c1", freq=5)
    >>> history = model.fit(
    ...     x_train, y_train, batch_size=100, verbose=0, callbacks=[kernels]
    ... )
    >>> kernels.history["step"]
    [0, 5, 10, 15]
    >>> kernels.history["kernel"][0].shape
    (5, 5, 1, 6)
    """

    def __init__(
        self,
        layer_name: str = "c1",
        freq: int | str = "epoch",
        filepath: str | os.PathLike[str] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(freq, strict)
        if not isinstance(layer_name, str):
            raise ValueError(
                "`layer_name` must be a string. "
                f"Received: layer_name={layer_name!r}"
            )
        if filepath is not None:
            check_file(Path(filepath), "filepath", ".gif")
        self.layer_name = layer_name
        self.filepath = filepath
        self.history: dict[str, list[Any]] = {}

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        names = [layer.name for layer in self.model.layers if _fits(layer)]
        if self.layer_name not in names:
            raise ValueError(
                "`layer_name` must be the name of a built layer with a kernel "
                f"of shape (height, width, ...), here one of {names}. "
                f"Received: layer_name={self.layer_name!r}"
            )
        self.history = {"step": [0], "kernel": [self._kernel()]}

    def get_state(self) -> dict[str, Any]:
        return {
            **super().get_state(),
            "layer_name": self.layer_name,
            "step": self.history["step"],
            "kernel": np.stack(self.history["kernel"]),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        if state["layer_name"] != self.layer_name:
            raise ValueError(
                "`layer_name` must be that of the interrupted run, "
                f"{state['layer_name']!r}. "
                f"Received: layer_name={self.layer_name!r}"
            )
        super().set_state(state)
        self.history = {"step": state["step"], "kernel": list(state["kernel"])}

    def on_interval(self, step: int, epoch: int) -> None:
        kernel = self._kernel()
        self.history["step"].append(step)
        self.history["kernel"].append(kernel)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.filepath is not None and is_main_process():
            self._attempt("at the end", self.save_animation)

    def save_animation(self) -> None:
        """Writes the animation of `history` to `filepath`.

        `fit` calls it at its end. Call it after an interrupted run.

        Raises:
            ValueError: If there is no `filepath` or no `history`.
        """
        if self.filepath is None:
            raise ValueError(
                "`filepath` must be given to save an animation. "
                "Received: filepath=None"
            )
        save_kernel_animation(self.history, self.filepath)

    def _kernel(self) -> Array:
        kernel = self.model.get_layer(self.layer_name).kernel
        return get_values([kernel])[0].astype("float32")


def _fits(layer: Any) -> bool:
    """Returns whether a layer has a kernel that can be drawn."""
    # An unbuilt layer of Keras raises an `AttributeError` here.
    kernel = getattr(layer, "kernel", None)
    return len(getattr(kernel, "shape", ())) in (3, 4)
