"""`train`, which runs a recipe from data to files."""

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_lenet.datasets import image_dataset_from_array, load_data
from keras_lenet.files.atomic import atomic_write
from keras_lenet.training.checks import (
    check_data,
    check_devices,
    check_not_interrupted,
    check_trackers,
    choose_recipe,
    make_writable,
)
from keras_lenet.training.registry import Recipe
from keras_lenet.validation.arguments import check_positive_integer
from keras_lenet.validation.images import check_labels

# Keras fixes its backend when it is imported, but the command line imports this
# module before. So functions import what needs Keras.
if TYPE_CHECKING:
    from keras_lenet.callbacks import HeldOutEvaluation, ResumableTraining
    from keras_lenet.datasets import ImageData

# Files in the output folder of `train`.
_MODEL = "model.keras"
_HISTORY = "history.csv"
_CURVES = "learning_curves.png"
_PREDICTIONS = "predictions.png"
_STATE = "training.npz"

# Entries in the state of a run, by prefix, and the arguments that decide them.
_DECIDED_BY = {
    "steps_per_epoch": "`steps`",
    "callbacks.": "`eval_every` or `log`",
    "data.batch_size": "`batch_size`",
    "data.seed": "`seed`",
    "data.augment": "`recipe`",
    "compile.": "`recipe`",
    "data.arrays": "`dataset` or `model`",
    # The recipe of the original model does not shuffle.
    "data.shuffle": "`dataset` or `model`",
    "model.": "`dataset` or `model`",
}


class TrainingResult(NamedTuple):
    """What `train` returns.

    Attributes:
        model: The trained and compiled model.
        history: Dict of lists, `HeldOutEvaluation.history`.
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
    log: Sequence[str] = (),
) -> TrainingResult:
    """Trains a model with a recipe, and writes model, history and plots.

    Ctrl-C and SIGTERM save the run, then end it. With the same arguments and
    `resume=True`, it continues exactly where it ended. Calls from a thread
    other than the main one leave signals alone.

    Args:
        dataset: Name or path of the data set, as for
            `keras_lenet.datasets.load_data`. Defaults to `"digits"`.
        recipe: String. A name in `RECIPES`. Defaults to the first recipe of
            the model.
        model: String. `"lenet5"` or `"original"`. Defaults to the model of
            the recipe.
        start_from: Name or folder of a preset, or path of a `.keras` file: a
            `LeNet5` to start from. If the number of classes differs, its
            output layer is initialized again.
        steps: Integer. The number of training steps. Defaults to the
            recipe's.
        batch_size: Integer. The number of images per step. Defaults to the
            recipe's.
        eval_every: Integer. The number of steps between evaluations. Defaults
            to the recipe's.
        eval_size: Integer. The number of test images that an evaluation
            samples. Defaults to `500`.
        seed: Integer. Decides weights, order and samples. Sets the global
            random seed. Defaults to `98`.
        output: Path of the folder to write to. Files of an earlier run are
            overwritten. Defaults to `"lenet5-run"`.
        resume: Boolean. Whether to continue an interrupted run in `output`,
            if there is one. Defaults to `False`.
        data_dir: Path, as for `load_data`.
        verbose: 0 or 1. Whether to print the model's summary and every
            evaluation, and to show a progress bar in a terminal. Defaults to
            `1`.
        log: Sequence of names in `keras_lenet.trackers.TRACKERS`: `"csv"`,
            `"tensorboard"`, `"wandb"`, `"mlflow"` or `"trackio"`. These log
            every evaluation and the pictures, the first two in `output`.
            Defaults to none.

    Returns:
        A `TrainingResult`. If several processes train together, only the main
        one evaluates and writes; the accuracy of the others is NaN.

    Raises:
        ValueError: If an argument is invalid, `output` has an interrupted run
            and `resume=False`, or a run with other arguments and
            `resume=True`.
        TrainingInterrupted: If a signal ends the run. It is a
            `KeyboardInterrupt`.

    Example:

    >>> from keras_lenet import train
    >>> result = train("mnist", recipe="fast", steps=960)  # doctest: +SKIP
    >>> result.model.predict(images)  # doctest: +SKIP
    """
    import keras

    from keras_lenet.callbacks.tracker import Tracker
    from keras_lenet.distribution import is_main_process

    for name, value in (
        ("steps", steps),
        ("batch_size", batch_size),
        ("eval_every", eval_every),
        ("eval_size", eval_size),
    ):
        if value is not None:
            check_positive_integer(name, value)
    check_trackers(log)
    used = choose_recipe(recipe, model, start_from)
    batch_size = batch_size or used.batch_size
    check_devices(batch_size)
    output = Path(output)
    is_main = is_main_process()
    if is_main and not resume:
        check_not_interrupted(output / _STATE)

    keras.utils.set_random_seed(seed)
    data = load_data(dataset, data_dir)
    (x_train, y_train), (x_test, y_test) = data
    check_data(dataset, x_train, batch_size)
    epoch = max(1, len(x_train) // batch_size)
    steps = steps or used.steps or used.epochs * epoch
    trained = _make_model(used.model, start_from, data)
    trained.compile(**used.compile_arguments(steps, batch_size))
    check_labels(y_test, trained.num_classes)
    if is_main:
        make_writable(output)
        if not resume:
            if verbose and (output / _MODEL).exists():
                print(f"replacing the finished run in {output}")
            (output / _STATE).unlink(missing_ok=True)
        if verbose:
            trained.summary()

    generator = np.random.default_rng(seed)
    if not used.shuffles:
        order = generator.permutation(len(x_train))
        x_train, y_train = x_train[order], y_train[order]
    batches = _make_batches(used, x_train, y_train, batch_size, seed)
    callbacks = _make_callbacks(
        data,
        batches,
        generator,
        output=output,
        eval_every=eval_every or used.eval_every or epoch,
        eval_size=min(eval_size, len(x_test)),
        seed=seed,
        log=log,
        verbose=verbose,
    )
    held_out, *_, resumable = callbacks
    if used.estimates_curvature:
        from keras_lenet.original import CurvatureEstimation

        sample_size = min(500, len(x_train))
        callbacks.insert(
            0, CurvatureEstimation(x_train, y_train, epoch, sample_size, seed)
        )
    has_bar = bool(verbose) and is_main and sys.stdout.isatty()
    if has_bar:
        callbacks.append(_progress_bar())
    _fit(trained, batches, steps, callbacks, resumable, has_bar)
    result = _finish(trained, held_out, data, output, verbose)
    if is_main:
        logs = [c.path for c in callbacks if isinstance(c, Tracker) and c.path]
        result.files.extend(logs)
    return result


def _make_model(name: str, start_from: Any, data: "ImageData") -> Any:
    from keras_lenet import saving

    (x_train, _), _ = data
    arguments = {
        "num_classes": len(data.class_names),
        "input_shape": x_train.shape[1:],
        "class_names": data.class_names,
    }
    if start_from is None:
        return saving.MODELS[name](**arguments)
    try:
        start: Any = saving.load(start_from)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`start_from` must be a preset, the folder of a preset, or a "
            f"`.keras` file of a LeNet5. Received: {error}"
        ) from error
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


def _make_batches(
    recipe: Recipe, x_train: Any, y_train: Any, batch_size: int, seed: int
) -> Any:
    from keras_lenet.datasets.distortion import RandomDistortion

    return image_dataset_from_array(
        x_train,
        y_train,
        batch_size,
        shuffle=recipe.shuffles,
        seed=seed,
        drop_remainder=True,
        augment=RandomDistortion() if recipe.distorts else None,
    )


def _make_callbacks(
    data: "ImageData",
    batches: Any,
    generator: np.random.Generator,
    output: Path,
    eval_every: int,
    eval_size: int,
    seed: int,
    log: Sequence[str],
    verbose: int,
) -> list[Any]:
    from keras_lenet import callbacks
    from keras_lenet.trackers import TRACKERS

    _, (x_test, y_test) = data
    held_out = callbacks.HeldOutEvaluation(
        (x_test, y_test),
        freq=eval_every,
        sample_size=eval_size,
        seed=seed,
        at_end=True,
        filename=output / _HISTORY,
        verbose=verbose,
    )
    shown = generator.choice(len(x_test), min(6, len(x_test)), replace=False)
    # `SamplePredictions` formats its path with the epoch and the step.
    path = str(output / _PREDICTIONS).replace("{", "{{").replace("}", "}}")
    predictions = callbacks.SamplePredictions(
        x_test[shown],
        y_test[shown],
        filepath=path,
        class_names=data.class_names,
    )
    # Save at steps with an evaluation only, so that executions can be long.
    freq = eval_every * math.ceil(100 / eval_every)
    resumable = callbacks.ResumableTraining(
        output / _STATE, batches, freq=freq, verbose=verbose
    )
    trackers = [TRACKERS[name](output) for name in log]
    return [held_out, predictions, *trackers, resumable]


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
            # The signal may have reached another process.
            number = received[0] if received else signal.SIGTERM
            raise TrainingInterrupted(number, resumable.filepath) from None


def _finish(
    model: Any,
    held_out: "HeldOutEvaluation",
    data: "ImageData",
    output: Path,
    verbose: int,
) -> TrainingResult:
    """Evaluates the trained model, and writes it and its curves."""
    import keras

    from keras_lenet import plots
    from keras_lenet.distribution import is_main_process, without_distribution
    from keras_lenet.plots.figure import save_figure

    if not is_main_process():
        return TrainingResult(model, held_out.history, math.nan, [])
    with atomic_write(output / _MODEL) as temporary, without_distribution():
        model.save(temporary)
    if keras.distribution.distribution() is not None:
        # The other processes have ended, so evaluate without them.
        keras.distribution.set_distribution(None)
        model = keras.saving.load_model(output / _MODEL)
    _, (x_test, y_test) = data
    _, accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0)
    if verbose:
        print(f"accuracy on all {len(x_test):,} test images: {accuracy:.2%}")
    save_figure(plots.plot_history(held_out.history), output / _CURVES)
    names = (_MODEL, _HISTORY, _CURVES, _PREDICTIONS, _STATE)
    files = [output / name for name in names]
    return TrainingResult(model, held_out.history, float(accuracy), files)


def _progress_bar() -> Any:
    """Returns Keras' progress bar without metrics, so it fits 80 columns.

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
    """Returns the arguments that differ, or else the entries of the state."""
    found = [
        next(
            (
                arguments
                for prefix, arguments in _DECIDED_BY.items()
                if name.startswith(prefix)
            ),
            f"{name} ({saved}, now {now})",
        )
        for name, (saved, now) in differences.items()
    ]
    return ", ".join(dict.fromkeys(found))


@contextlib.contextmanager
def _signals_call(interrupt: Callable[[], None]) -> Iterator[list[int]]:
    """Calls a function on Ctrl-C and SIGTERM, and yields the signals' numbers.

    Only the main thread can handle signals. In another thread, they keep their
    effect.
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
