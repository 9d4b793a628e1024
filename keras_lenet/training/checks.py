"""Checks of the arguments of `train`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_lenet.training.registry import (
    MODEL_NAMES,
    RECIPES,
    TRACKER_PACKAGES,
    Recipe,
)
from keras_lenet.validation.extras import check_installed


def choose_recipe(
    recipe: str | None, model: str | None, start_from: Any
) -> Recipe:
    """Returns the recipe that the arguments of `train` name."""
    for argument, value, choices in (
        ("recipe", recipe, list(RECIPES)),
        ("model", model, MODEL_NAMES),
    ):
        if value is not None and value not in choices:
            raise ValueError(
                f"`{argument}` must be one of {', '.join(choices)}. "
                f"Received: {argument}={value!r}"
            )
    fitting = [n for n, r in RECIPES.items() if model in (None, r.model)]
    recipe = recipe or fitting[0]
    if recipe not in fitting:
        raise ValueError(
            f"`recipe` must be one for the model {model!r}: "
            f"{', '.join(fitting)}. Received: recipe={recipe!r}"
        )
    used = RECIPES[recipe]
    if start_from is not None and used.model != "lenet5":
        raise ValueError(
            "`start_from` needs a recipe for the model 'lenet5'. "
            f"Received: recipe={recipe!r}, start_from={str(start_from)!r}"
        )
    return used


def check_trackers(log: Sequence[str]) -> None:
    """Checks that the trackers of `train` exist and can be imported."""
    if isinstance(log, str) or not (
        set(log) <= set(TRACKER_PACKAGES) and len(set(log)) == len(log)
    ):
        raise ValueError(
            "`log` must be a list of different names: "
            f"{', '.join(TRACKER_PACKAGES)}. Received: log={log!r}"
        )
    for name in log:
        if package := TRACKER_PACKAGES[name]:
            check_installed(package, f"The tracker {name!r}")


def check_not_interrupted(state: Path) -> None:
    """Checks that a file with the state of a run is of a finished one."""
    from keras_lenet.callbacks.resumable_training import is_finished

    if state.exists() and not is_finished(state):
        raise ValueError(
            f"{state}: expected no interrupted run. Received: one. Continue "
            "it with `resume`, start again in another `output`, or delete the "
            "file."
        )


def check_devices(batch_size: int) -> None:
    """Checks that the devices can share each batch."""
    from keras_lenet.distribution import device_count

    devices = device_count()
    if batch_size % devices:
        raise ValueError(
            f"`batch_size` must be a multiple of {devices}, the number of "
            f"devices. Received: batch_size={batch_size}"
        )


def check_data(dataset: Any, images: Any, batch_size: int) -> None:
    """Checks the size and the number of the training images."""
    if max(images.shape[1:3]) > 32:
        raise ValueError(
            "`dataset` must have images of at most 32x32 pixels. Received: "
            f"{dataset}, with images of {shape_text(images.shape[1:])}."
        )
    if batch_size > len(images):
        raise ValueError(
            "`batch_size` must be at most the number of training images, "
            f"{len(images)}. Received: batch_size={batch_size}"
        )


def shape_text(shape: Any) -> str:
    """Returns the shape of an image in words."""
    height, width, channels = shape
    return f"{height}x{width} pixels and {channels} channel(s)"


def make_writable(folder: Path) -> None:
    """Makes a folder, and checks that files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            "`output` must be a folder that can be written to. "
            f"Received: {folder} ({error.strerror})."
        ) from error
