"""Recipes by name, and `train`, which runs one from data to files."""

import contextlib
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_lenet.datasets import image_dataset_from_array, load_data
from keras_lenet.files.atomic import atomic_write
from keras_lenet.types import Array
from keras_lenet.validation.arguments import check_positive_integer
from keras_lenet.validation.images import check_labels

# Keras reads its backend when it is imported. The command line needs the
# recipes before that, so the functions below import what needs Keras.
if TYPE_CHECKING:
    from keras_lenet.callbacks import HeldOutEvaluation, ResumableTraining
    from keras_lenet.datasets import ImageData

# The files that `train` writes into its folder.
_MODEL = "model.keras"
_HISTORY = "history.csv"
_CURVES = "learning_curves.png"
_PREDICTIONS = "predictions.png"
_STATE = "training.npz"

# The arguments of `train` that decide what is saved in the state of a run.
_DECIDED_BY = {
    "steps_per_epoch": "`steps`",
    "callbacks.": "`eval_every`",
    "data.batch_size": "`batch_size`",
    "data.seed": "`seed`",
    "data.augment": "`recipe`",
    "compile.": "`recipe`",
    "data.arrays": "`dataset` or `model`",
    # The recipe of the original model keeps one order.
    "data.shuffle": "`dataset` or `model`",
    "model.": "`dataset` or `model`",
}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        description: String for `--help` and the documentation.
        compile_arguments: Function of the numbers of steps and of images per
            step. Returns the arguments of `compile`.
        model: String. The model that the recipe trains.
        batch_size: Integer. The number of images per step.
        steps: Integer. The number of steps. `None`: as many as `epochs` has.
        epochs: Integer. The number of epochs, where `steps` is `None`.
        eval_every: Integer. The number of steps between evaluations. `None`:
            as many as an epoch has.
        distorts: Boolean. Whether images are distorted randomly.
        shuffles: Boolean. Whether every epoch has its own order.
        estimates_curvature: Boolean. Whether the optimizer needs curvatures.
    """

    description: str
    compile_arguments: Callable[[int, int], dict[str, Any]]
    model: str = "lenet5"
    batch_size: int = 100
    steps: int | None = None
    epochs: int = 1
    eval_every: int | None = None
    distorts: bool = False
    shuffles: bool = True
    estimates_curvature: bool = False

    def numbers(self, count: int, batch_size: int) -> tuple[int, int]:
        """Returns the numbers of steps, and of steps between evaluations.

        Args:
            count: Integer. The number of training images.
            batch_size: Integer. The number of images per step.
        """
        in_epoch = max(1, count // batch_size)
        return (
            self.steps or self.epochs * in_epoch,
            self.eval_every or in_epoch,
        )


def _cookbook(steps: int, batch_size: int) -> dict[str, Any]:
    return {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }


def _fast(steps: int, batch_size: int) -> dict[str, Any]:
    from keras_lenet import recipes

    return recipes.fast(steps)


def _accurate(steps: int, batch_size: int) -> dict[str, Any]:
    from keras_lenet import recipes

    return recipes.accurate(steps)


def _paper(steps: int, batch_size: int) -> dict[str, Any]:
    from keras_lenet import recipes

    return recipes.paper(steps, batch_size)


# The first recipe of a model is its default.
RECIPES = {
    "cookbook": Recipe(
        "Adam with Keras' defaults", _cookbook, steps=300, eval_every=5
    ),
    "fast": Recipe(
        "a one-cycle learning rate and label smoothing, more accurate after "
        "as many steps",
        _fast,
        steps=300,
        eval_every=5,
    ),
    "accurate": Recipe(
        "randomly distorted images for many epochs, the most accurate",
        _accurate,
        batch_size=250,
        epochs=90,
        distorts=True,
    ),
    "paper": Recipe(
        "the training of the 1998 paper",
        _paper,
        model="original",
        batch_size=1,
        epochs=20,
        shuffles=False,
        estimates_curvature=True,
    ),
}


class TrainingResult(NamedTuple):
    """What `train` returns.

    Attributes:
        model: The trained and compiled model.
        history: Dict of lists, as `HeldOutEvaluation.history`.
        accuracy: Float. The accuracy on all test images.
        files: List of paths of the files written.
    """

    model: Any
    history: dict[str, list[Any]]
    accuracy: float
    files: list[Path]


class TrainingInterrupted(KeyboardInterrupt):
    """Raised by `train` after a signal, once the run is saved.

    Attributes:
        number: Integer. The number of the signal.
        path: Path of the file with the state of the run.
    """

    def __init__(self, number: int, path: Path) -> None:
        super().__init__(f"the run is saved in {path}")
        self.number = number
        self.path = path


def train(
    dataset: str | os.PathLike[str] = "digits",
    recipe: str | None = None,
    model: str | None = None,
    start_from: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    eval_every: int | None = None,
    eval_size: int = 500,
    seed: int = 98,
    output: str | os.PathLike[str] = "lenet5-run",
    resume: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    verbose: int = 1,
) -> TrainingResult:
    """Trains a model by a recipe, and writes model, history and plots.

    While it runs, Ctrl-C and SIGTERM save the run and end it. With the same
    arguments and `resume=True` it continues exactly where it ended.

    Args:
        dataset: Name or path of the data set, as for
            `keras_lenet.datasets.load_data`. Defaults to `"digits"`.
        recipe: String. A name of `RECIPES`. Defaults to the first recipe of
            the model.
        model: String. `"lenet5"` or `"original"`. Defaults to the model of
            the recipe.
        start_from: Preset or `.keras` file of a `LeNet5` to start from. With
            other classes, its output layer is initialized again.
        steps: Integer. The number of training steps. Defaults to the
            recipe's.
        batch_size: Integer. The number of images per step. Defaults to the
            recipe's.
        eval_every: Integer. The number of steps between evaluations. Defaults
            to the recipe's.
        eval_size: Integer. The number of test images that an evaluation
            samples. Defaults to `500`.
        seed: Integer. Decides weights, order and samples. Defaults to `98`.
        output: Path of the folder to write to. Defaults to `"lenet5-run"`.
        resume: Boolean. Whether to continue an interrupted run in `output`,
            if there is one. Defaults to `False`.
        data_dir: Path, as for `load_data`.
        verbose: 0 or 1. Whether to print the model and every evaluation, and
            in a terminal a progress bar. Defaults to `1`.

    Returns:
        A `TrainingResult`. Where several processes train together, only the
        main one evaluates and writes; the accuracy of the others is NaN.

    Raises:
        ValueError: If an argument is not of the form above, or `output` has
            an interrupted run and `resume=False`, or one with other arguments
            and `resume=True`.
        TrainingInterrupted: If a signal ended the run. It is a
            `KeyboardInterrupt`.

    Example:

    >>> from keras_lenet import train
    >>> result = train("mnist", recipe="fast", steps=960)  # doctest: +SKIP
    >>> result.accuracy  # doctest: +SKIP
    0.9889
    """
    import keras

    from keras_lenet.distribution import is_main_process

    for name, value in (
        ("steps", steps),
        ("batch_size", batch_size),
        ("eval_every", eval_every),
        ("eval_size", eval_size),
    ):
        if value is not None:
            check_positive_integer(name, value)
    used = _choose_recipe(recipe, model, start_from)
    batch_size = batch_size or used.batch_size
    _check_batch_size(batch_size)
    output = Path(output)
    is_main = is_main_process()
    if is_main:
        _check_state(output / _STATE, resume)

    keras.utils.set_random_seed(seed)
    data = load_data(dataset, data_dir)
    (x_train, _), (x_test, _) = data
    _check_images(dataset, x_train, batch_size)
    default_steps, default_every = used.numbers(len(x_train), batch_size)
    steps = steps or default_steps
    trained = _make_model(used.model, start_from, data)
    trained.compile(**used.compile_arguments(steps, batch_size))
    check_labels(data[1][1], trained.num_classes)
    if is_main:
        make_writable(output)
        if verbose:
            trained.summary()

    generator = np.random.default_rng(seed)
    x_train, y_train = _in_order(used, data, generator)
    batches = _make_batches(used, x_train, y_train, batch_size, seed)
    held_out, resumable, callbacks = _make_callbacks(
        data,
        batches,
        generator,
        output=output,
        eval_every=eval_every or default_every,
        eval_size=min(eval_size, len(x_test)),
        seed=seed,
        verbose=verbose,
    )
    if used.estimates_curvature:
        callbacks.insert(0, _curvature(x_train, y_train, batch_size, seed))
    has_bar = bool(verbose) and is_main and sys.stdout.isatty()
    if has_bar:
        callbacks.append(progress_bar())
    _fit(trained, batches, steps, callbacks, resumable, has_bar)
    return _finish(trained, held_out, data, output, verbose)


def _choose_recipe(
    recipe: str | None, model: str | None, start_from: Any
) -> Recipe:
    models = list(dict.fromkeys(entry.model for entry in RECIPES.values()))
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(
            f"`recipe` must be one of {', '.join(RECIPES)}. "
            f"Received: recipe={recipe!r}"
        )
    if model is not None and model not in models:
        raise ValueError(
            f"`model` must be one of {', '.join(models)}. "
            f"Received: model={model!r}"
        )
    if recipe is None:
        model = model or models[0]
        recipe = next(name for name, r in RECIPES.items() if r.model == model)
    used = RECIPES[recipe]
    if model not in (None, used.model):
        fitting = [name for name, r in RECIPES.items() if r.model == model]
        raise ValueError(
            f"`recipe` must be one for the model {model!r}: "
            f"{', '.join(fitting)}. Received: recipe={recipe!r}"
        )
    if start_from is not None and used.model != "lenet5":
        raise ValueError(
            "`start_from` needs a recipe for the model 'lenet5'. "
            f"Received: recipe={recipe!r}, start_from={str(start_from)!r}"
        )
    return used


def _check_batch_size(batch_size: int) -> None:
    from keras_lenet.distribution import device_count

    devices = device_count()
    if batch_size % devices:
        raise ValueError(
            f"`batch_size` must be a multiple of {devices}, the number of "
            f"devices. Received: batch_size={batch_size}"
        )


def _check_state(state: Path, resume: bool) -> None:
    """Deletes the state of a finished run, and keeps that of any other."""
    from keras_lenet.callbacks.resumable_training import is_finished

    if not state.exists() or resume:
        return
    if not is_finished(state):
        raise ValueError(
            f"{state}: expected no interrupted run. Received: one. Continue "
            "it with `resume`, start again in another `output`, or delete the "
            "file."
        )
    state.unlink()


def _check_images(dataset: Any, images: Array, batch_size: int) -> None:
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


def _make_model(name: str, start_from: Any, data: "ImageData") -> Any:
    from keras_lenet import saving

    (x_train, _), _ = data
    arguments = {
        "num_classes": len(data.class_names),
        "input_shape": x_train.shape[1:],
    }
    if start_from is None:
        return saving.MODELS[name](**arguments)
    start: Any = saving.load(start_from)
    if not isinstance(start, saving.MODELS[name]):
        raise ValueError(
            "`start_from` must be a LeNet5. Received: "
            f"{start_from}, of class {type(start).__name__}."
        )
    if start.input_shape[-1] != x_train.shape[-1]:
        raise ValueError(
            "`start_from` must be a model for images with as many channels as "
            f"those of `dataset`, {x_train.shape[-1]}. Received: "
            f"{start_from}, for {start.input_shape[-1]}."
        )
    return saving.adapt(
        start,
        include_preprocessing=True,
        classifier_activation="softmax",
        **arguments,
    )


def _in_order(
    recipe: Recipe, data: "ImageData", generator: np.random.Generator
) -> Any:
    """Returns training images and labels in the order of all epochs."""
    (x_train, y_train), _ = data
    if recipe.shuffles:
        return x_train, y_train
    order = generator.permutation(len(x_train))
    return x_train[order], y_train[order]


def _make_batches(
    recipe: Recipe, x_train: Any, y_train: Any, batch_size: int, seed: int
) -> Any:
    augment = None
    if recipe.distorts:
        from keras_lenet.datasets.distortion import RandomDistortion

        augment = RandomDistortion()
    return image_dataset_from_array(
        x_train,
        y_train,
        batch_size,
        shuffle=recipe.shuffles,
        seed=seed,
        drop_remainder=True,
        augment=augment,
    )


def _make_callbacks(
    data: "ImageData",
    batches: Any,
    generator: np.random.Generator,
    output: Path,
    eval_every: int,
    eval_size: int,
    seed: int,
    verbose: int,
) -> "tuple[HeldOutEvaluation, ResumableTraining, list[Any]]":
    from keras_lenet.callbacks import (
        HeldOutEvaluation,
        ResumableTraining,
        SamplePredictions,
    )

    _, (x_test, y_test) = data
    held_out = HeldOutEvaluation(
        (x_test, y_test),
        freq=eval_every,
        sample_size=eval_size,
        seed=seed,
        at_end=True,
        filename=output / _HISTORY,
        verbose=verbose,
    )
    six = generator.choice(len(x_test), min(6, len(x_test)), replace=False)
    template = str(output / _PREDICTIONS).replace("{", "{{").replace("}", "}}")
    predictions = SamplePredictions(
        x_test[six],
        y_test[six],
        filepath=template,
        class_names=data.class_names,
    )
    # Save only at steps with an evaluation, so that executions can be long.
    freq = eval_every * math.ceil(100 / eval_every)
    resumable = ResumableTraining(
        output / _STATE, batches, freq=freq, verbose=verbose
    )
    return held_out, resumable, [held_out, predictions, resumable]


def _curvature(x: Any, y: Any, batch_size: int, seed: int) -> Any:
    from keras_lenet.original import CurvatureEstimation

    return CurvatureEstimation(
        x,
        y,
        freq=max(1, len(x) // batch_size),
        sample_size=min(500, len(x)),
        seed=seed,
    )


def _fit(
    model: Any,
    batches: Any,
    steps: int,
    callbacks: list[Any],
    resumable: "ResumableTraining",
    has_bar: bool,
) -> None:
    from keras_lenet.callbacks.resumable_training import OtherRunError

    with _signals_call(resumable.interrupt) as received:
        try:
            model.fit(
                batches.repeat(),
                steps_per_epoch=steps,
                callbacks=callbacks,
                shuffle=False,
                verbose=int(has_bar),
            )
        except OtherRunError as error:
            raise ValueError(
                f"{error.path}: expected the state of this run. Received: "
                "that of a run with another "
                f"{_describe_differences(error.differences)}. Give the "
                "arguments of that run, give another `output`, or delete the "
                "file to start again."
            ) from error
        except KeyboardInterrupt:
            # Another process may have received the signal.
            number = received[0] if received else signal.SIGTERM
            raise TrainingInterrupted(number, resumable.filepath) from None


def _finish(
    model: Any,
    held_out: "HeldOutEvaluation",
    data: "ImageData",
    output: Path,
    verbose: int,
) -> TrainingResult:
    """Evaluates the trained model, and writes it with its curves."""
    import keras

    from keras_lenet import plots
    from keras_lenet.distribution import is_main_process, without_distribution

    if not is_main_process():
        return TrainingResult(model, held_out.history, math.nan, [])
    with atomic_write(output / _MODEL) as temporary, without_distribution():
        model.save(temporary)
    if keras.distribution.distribution() is not None:
        # The other processes have ended.
        keras.distribution.set_distribution(None)
        model = keras.saving.load_model(output / _MODEL)
    _, (x_test, y_test) = data
    _, accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0)
    if verbose:
        print(f"accuracy on all {len(x_test):,} test images: {accuracy:.2%}")
    with atomic_write(output / _CURVES) as temporary:
        plots.plot_history(held_out.history).savefig(temporary, dpi=150)
    names = (_MODEL, _HISTORY, _CURVES, _PREDICTIONS, _STATE)
    return TrainingResult(
        model,
        held_out.history,
        float(accuracy),
        [output / name for name in names],
    )


def progress_bar() -> Any:
    """Returns Keras' progress bar without metrics, which fits 80 columns.

    The lines of the evaluations have the metrics.
    """
    import keras

    class ProgressBar(keras.callbacks.ProgbarLogger):
        async_safe = True
        # Let `fit` run several steps per execution.
        acts_only_at_freq = True
        freq = "epoch"

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_end(epoch)

    return ProgressBar()


def _describe_differences(differences: dict[str, tuple[Any, Any]]) -> str:
    """Returns which arguments differ, or else what in the state does."""
    found = []
    for name, (saved, now) in differences.items():
        found.append(f"{name} ({saved}, now {now})")
        for beginning, arguments in _DECIDED_BY.items():
            if name.startswith(beginning):
                found[-1] = arguments
    return ", ".join(dict.fromkeys(found))


@contextlib.contextmanager
def _signals_call(interrupt: Callable[[], None]) -> Iterator[list[int]]:
    """Calls a function on Ctrl-C and SIGTERM.

    Python handles signals in the main thread only. In any other thread they
    keep their effect.

    Yields:
        List of the numbers of the signals received.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        interrupt()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
