"""Pictures of sample predictions inside `fit`."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from keras_lenet.callbacks.data import is_dataset, to_array, to_iterable
from keras_lenet.callbacks.isolation import (
    preserve_random_state,
    preserve_training_state,
)
from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.callbacks.tracker import Tracker
from keras_lenet.distribution import is_main_process, repeat_for_devices
from keras_lenet.plots.figure import (
    are_raw_floats,
    check_pixels,
    save_figure,
    to_pixels,
)
from keras_lenet.plots.images import plot_predictions
from keras_lenet.types import Array
from keras_lenet.validation.images import check_images_and_labels

# The maximum number of images to draw from a dataset.
_MAX_IMAGES = 16


class SamplePredictions(PeriodicCallback):
    """Draws images with their actual and predicted class, inside `fit`.

    Wrong predictions are marked. Like `HeldOutEvaluation`, it leaves the run
    unchanged and runs at the same steps. The trackers among the callbacks
    (`keras_lenet.trackers`) log every picture, too.

    Args:
        images: Array of shape `(n, height, width, channels)`, 1 channel
            (grey) or 3 (colour), or `(n, height, width)`; uint8 or floats in
            [0, 255], or floats in [0, 1], whichever the model takes. Or a
            dataset that yields batches of images and labels, e.g. from
            `keras.utils.image_dataset_from_directory`, without `labels`. The
            first 16 images of its first batch are drawn.
        labels: Array of integers of shape `(n,)`, the actual classes. A
            dataset may also yield one-hot labels.
        freq: Integer or `"epoch"`. The number of training steps between two
            pictures. Defaults to `"epoch"`.
        filepath: Template of the output path, with the fields `{step}`, the
            number of steps so far, and `{epoch}`, counted from 1. The suffix
            is that of any Matplotlib format. Folders are created and files
            replaced. `None` writes no file and displays the pictures in the
            running notebook. Defaults to `"predictions-{step:06d}.png"`.
        class_names: Sequence of strings, the names of classes 0, 1, ...
            Defaults to the dataset's `class_names`, or to numbers.
        strict: Boolean. Whether an error while drawing or writing ends the
            run. By default the run continues, with one warning.

    Raises:
        ValueError: If an argument is invalid, `images` and `labels` differ in
            length or are empty, a label has no name, or `filepath` is `None`
            outside a notebook.

    Example:

    >>> from keras_lenet import SamplePredictions
    >>> from keras_lenet.datasets import load_data
    >>> _, (x_test, y_test) = load_data("digits")
    >>> callback = SamplePredictions(
    ...     x_test[:6], y_test[:6], freq=100, filepath="step-{step}.png"
    ... )
    >>> model.fit(x_train, y_train, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        images: Any,
        labels: npt.ArrayLike | None = None,
        freq: int | str = "epoch",
        filepath: str | os.PathLike[str] | None = "predictions-{step:06d}.png",
        class_names: Sequence[str] | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__(freq, strict)
        if labels is None:
            if class_names is None:
                class_names = getattr(images, "class_names", None)
            images, labels = _first_images(images)
        self.images, self.labels = _standardize_images(
            images, labels, None if class_names is None else len(class_names)
        )
        self.filepath: str | None = (
            None if filepath is None else os.fspath(filepath)
        )
        if self.filepath is None:
            if not _in_notebook():
                raise ValueError(
                    "`filepath` must be given outside a notebook, which could "
                    "display the pictures. Received: filepath=None"
                )
        else:
            _check_template(self.filepath)
        self.class_names = class_names

    def on_interval(self, step: int, epoch: int) -> None:
        model = self.model
        with preserve_training_state(model):
            # Drop the outputs for images that are repeated for devices.
            images, _ = repeat_for_devices(self.images)
            outputs = model.predict_on_batch(images)[: len(self.images)]
        figure = plot_predictions(
            self.images, self.labels, outputs, self.class_names
        )
        if not is_main_process():
            return
        path = None
        if self.filepath is None:
            importlib.import_module("IPython.display").display(figure)
        else:
            path = Path(self.filepath.format(step=step, epoch=epoch + 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            save_figure(figure, path)
        self._send(figure, path, step)
        # Free the figure now: it contains reference cycles.
        figure.clear()

    def _send(self, figure: Figure, path: Path | None, step: int) -> None:
        """Sends a figure to the trackers of the `fit`."""
        if not (trackers := Tracker.of_fit(self.params)):
            return
        others = SamplePredictions.of_fit(self.params)
        name = "predictions"
        if len(others) > 1:
            name += f"_{others.index(self) + 1}"
        image = to_pixels(figure, path)
        for tracker in trackers:
            tracker.send_image(name, image, step)


def _first_images(dataset: Any) -> tuple[Array, Array]:
    """Returns the first images of a dataset, and their classes."""
    if not is_dataset(dataset):
        raise ValueError(
            "`labels` must be given unless `images` is a dataset. Received: "
            f"labels=None, images of type {type(dataset).__name__}."
        )
    with preserve_random_state():
        batch = next(iter(to_iterable(dataset)), None)
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if not all(len(getattr(part, "shape", ())) for part in (x, y)):
        parts = keras.tree.flatten(batch)
        raise ValueError(
            "`images` must be a dataset of batches `(images, labels)`. "
            "Received: a first batch with shapes "
            f"{[tuple(getattr(part, 'shape', ())) for part in parts]}."
        )
    images, labels = to_array(x)[:_MAX_IMAGES], to_array(y)[:_MAX_IMAGES]
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)
    if labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels)):
        # `label_mode="binary"` yields floats.
        labels = labels.astype("int64")
    return images, labels


def _standardize_images(
    images: Any, labels: Any, num_classes: int | None
) -> tuple[Array, Array]:
    """Checks images and labels, also floats in [0, 255]."""
    if not isinstance(images, list):
        images = to_array(images)
    raw = isinstance(images, np.ndarray) and are_raw_floats(images)
    if raw:
        check_pixels(images)
    checked, labels = check_images_and_labels(
        images / 255 if raw else images, labels, num_classes
    )
    if checked.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must have 1 or 3 channels. Received: images of "
            f"shape {checked.shape}."
        )
    if raw:
        checked = images.reshape(checked.shape).astype("float32")
    return checked, labels


def _check_template(filepath: str) -> None:
    try:
        filepath.format(step=0, epoch=1)
    except (AttributeError, LookupError, ValueError) as error:
        raise ValueError(
            "`filepath` must be a template with no fields other than {step} "
            f"and {{epoch}}. Received: filepath={filepath!r}"
        ) from error


def _in_notebook() -> bool:
    """Returns whether IPython runs with a kernel, which displays images."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
