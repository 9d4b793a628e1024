"""The command line: `keras-lenet train | evaluate | predict`."""

import argparse
import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# Keras reads its backend when it is imported and takes seconds to start, so
# the functions below import what needs it.
if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from keras_lenet import datasets
    from keras_lenet.models import LeNet5

_BACKENDS = ("tensorflow", "jax", "torch")
# Information, how absl logs, and that there is no library of CUDA (303).
_START_UP_LINES = (
    r"I\d{4} |WARNING: All log messages before absl::InitializeLog|"
    r"E\d{4} .*failed call to cuInit: .*\(303\)"
)
# Which options decide what is described in a saved state.
_DECIDED_BY = {
    "steps_per_epoch": "--steps",
    "callbacks.": "--eval-every",
    "data.batch_size": "--batch-size",
    "data.seed": "--seed",
    "data.augment": "--recipe",
    "compile.": "--recipe",
    # The recipe of the original model has an order of its own.
    "data.arrays": "--dataset or --model",
    "data.shuffle": "--dataset or --model",
    "model.": "--dataset or --model",
}
# How many passes through the images a recipe makes.
_PASSES = {"accurate": 90, "paper": 20}

_MODEL = (
    "mnist, digits or original, which come with it, a folder of a preset, or "
    "a .keras file"
)

# What other networks of the 1998 paper must reject for an error of 0.5 %
# (https://doi.org/10.1109/5.726791, figure 10).
_PAPER = {
    "LeNet-4 (1998)": (0.018, 0.005),
    "boosted LeNet-4 (1998)": (0.005, 0.005),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Sequence of strings, the arguments. By default those of the
            process.

    Returns:
        The exit code: 0, 2 for input that cannot be used, or 128 and the
        number of the signal when interrupted: 130 by Ctrl-C, 143 by SIGTERM.
    """
    arguments = _parser().parse_args(argv)
    if arguments.backend:
        os.environ["KERAS_BACKEND"] = arguments.backend
    try:
        _import_keras(arguments)
        arguments.run(arguments)
    except (ImportError, OSError, ValueError) as error:
        message = " ".join(str(error).split())
        print(f"keras-lenet: error: {message}", file=sys.stderr)
        return 2
    except _Interrupted as interrupted:
        print(f"\nkeras-lenet: interrupted; {interrupted}", file=sys.stderr)
        return 128 + interrupted.number
    except KeyboardInterrupt:
        print("\nkeras-lenet: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _import_keras(arguments: argparse.Namespace) -> None:
    """Imports Keras, and TensorFlow where it is used, quietly."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with _without_start_up_lines():
        import keras

        from keras_lenet.datasets import NAMES

        data = getattr(arguments, "dataset", "digits")
        uses_tensorflow = (
            keras.backend.backend() == "tensorflow"
            or arguments.run is train
            or (data in NAMES and data != "digits")
        )
        # Where it is missing, the data say so.
        with contextlib.suppress(ImportError):
            if uses_tensorflow:
                import tensorflow as tf

                tf.config.list_physical_devices()


@contextlib.contextmanager
def _without_start_up_lines() -> Iterator[None]:
    """Drops the lines that TensorFlow prints whenever it starts.

    Its C++ code writes them to stderr before it reads any setting. A process
    of its own drops them, so that all other lines arrive even if this process
    crashes.
    """
    code = (
        "import re, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "for line in sys.stdin.buffer:\n"
        "    if not re.match(sys.argv[1].encode(), line):\n"
        "        sys.stderr.buffer.write(line)\n"
        "        sys.stderr.buffer.flush()\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code, _START_UP_LINES]
    stderr = os.dup(2)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as filter_:
        pipe: Any = filter_.stdin
        os.dup2(pipe.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


class _Interrupted(Exception):
    """Says how a training that a signal has interrupted goes on."""

    def __init__(self, number: int, how: str) -> None:
        super().__init__(how)
        self.number = number


def train(arguments: argparse.Namespace) -> None:
    """Trains as the recipe does, and writes model, history and pictures."""
    output = Path(arguments.output)
    state = output / "training.npz"
    devices = _join_processes(arguments)
    import keras
    import numpy as np

    from keras_lenet import (
        callbacks,
        checkpoints,
        datasets,
        distortions,
        files,
        models,
        original,
        plots,
        recipes,
        saving,
    )

    first = callbacks.is_first_process()
    if arguments.model == "original":
        if arguments.recipe or arguments.start_from:
            raise ValueError(
                "`--model original` is trained as the paper says, from the "
                "beginning. Received: --recipe or --start-from."
            )
        arguments.recipe = "paper"
    arguments.recipe = arguments.recipe or "cookbook"
    if arguments.batch_size is None:
        sizes = {"accurate": 250, "paper": 1}
        arguments.batch_size = sizes.get(arguments.recipe, 100)
    if arguments.batch_size % devices:
        raise ValueError(
            f"`--batch-size` must be a multiple of {devices}, the number of "
            f"devices. Received: --batch-size {arguments.batch_size}."
        )
    if state.exists() and not arguments.resume and first:
        if not checkpoints.is_finished(state):
            raise ValueError(
                f"{state}: expected no training that was interrupted. "
                "Received: one. Go on with it by `--resume`, start anew in "
                "another folder by `--output`, or delete the file."
            )
        state.unlink()

    keras.utils.set_random_seed(arguments.seed)
    data = _load_data(arguments)
    (x_train, y_train), (x_test, y_test) = data
    if max(x_train.shape[1:3]) > 32:
        raise ValueError(
            "`--dataset` must have images of at most 32x32 pixels. Received: "
            f"{arguments.dataset}, with images of "
            f"{_shape_text(x_train.shape[1:])}."
        )
    if arguments.batch_size > len(x_train):
        raise ValueError(
            "`--batch-size` must be at most the number of training images, "
            f"{len(x_train)}. Received: --batch-size {arguments.batch_size}."
        )
    form: dict[str, Any] = {
        "num_classes": len(data.class_names),
        "input_shape": x_train.shape[1:],
    }
    if arguments.start_from:
        start = _load_model(arguments.start_from)
        if not isinstance(start, models.LeNet5):
            raise ValueError(
                "`--start-from` must be a LeNet5. Received: "
                f"{arguments.start_from}, of class {type(start).__name__}."
            )
        if start.input_shape[-1] != x_train.shape[-1]:
            raise ValueError(
                "`--start-from` must be a model for images with as many "
                f"channels as those of --dataset, {x_train.shape[-1]}. "
                f"Received: {arguments.start_from}, for "
                f"{start.input_shape[-1]}."
            )
        model = saving.adapt(
            start,
            include_preprocessing=True,
            classifier_activation="softmax",
            **form,
        )
    elif arguments.model == "original":
        model = original.OriginalLeNet5(**form)
    else:
        model = models.LeNet5(**form)
    _choose_numbers(arguments, len(x_train))
    if arguments.recipe == "fast":
        model.compile(**recipes.fast(arguments.steps))
    elif arguments.recipe == "accurate":
        model.compile(**recipes.accurate(arguments.steps))
    elif arguments.recipe == "paper":
        model.compile(**recipes.paper(arguments.steps, arguments.batch_size))
    else:
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
    datasets.check_labels(y_test, model.num_classes)
    if first:
        _make_writable(output)
        model.summary()
    generator = np.random.default_rng(arguments.seed)
    by_paper = arguments.recipe == "paper"
    if by_paper:
        # In one order for all passes.
        order = generator.permutation(len(x_train))
        x_train, y_train = x_train[order], y_train[order]
    batches = datasets.image_dataset_from_array(
        x_train,
        y_train,
        arguments.batch_size,
        shuffle=not by_paper,
        seed=arguments.seed,
        drop_remainder=True,
        augment=(
            distortions.RandomDistortion()
            if arguments.recipe == "accurate"
            else None
        ),
    )
    held_out = callbacks.HeldOutEvaluation(
        (x_test, y_test),
        freq=arguments.eval_every,
        sample_size=min(arguments.eval_size, len(x_test)),
        seed=arguments.seed,
        at_end=True,
        filename=output / "history.csv",
        verbose=1,
    )
    six = generator.choice(len(x_test), min(6, len(x_test)), replace=False)
    pictures = callbacks.SamplePredictions(
        x_test[six],
        y_test[six],
        filepath=str(output / "predictions.png")
        .replace("{", "{{")
        .replace("}", "}}"),
        class_names=data.class_names,
    )
    # At steps that have an evaluation, so that executions can be long.
    freq = arguments.eval_every * math.ceil(100 / arguments.eval_every)
    resumable = checkpoints.ResumableTraining(state, batches, freq=freq)
    together = [held_out, pictures, resumable]
    # Without a terminal, the lines of the evaluations are enough.
    has_bar = first and sys.stdout.isatty()
    if has_bar:
        together.append(_progress_bar())
    if by_paper:
        together.insert(
            0,
            callbacks.CurvatureEstimation(
                x_train,
                y_train,
                freq=max(1, len(x_train) // arguments.batch_size),
                sample_size=min(500, len(x_train)),
                seed=arguments.seed,
            ),
        )
    with _signals(resumable.interrupt) as received:
        try:
            model.fit(
                batches.repeat(),
                steps_per_epoch=arguments.steps,
                callbacks=together,
                shuffle=False,
                verbose=int(has_bar),
            )
        except checkpoints.OtherRunError as error:
            raise ValueError(
                f"{state}: expected the state of this run. Received: that of a "
                f"run with another {_describe_differences(error.differences)}. "
                "Give the options of that run, give another --output, or "
                "delete the file to start again."
            ) from error
        except KeyboardInterrupt:
            raise _Interrupted(
                # Where none came, another process has got one.
                received[0] if received else signal.SIGTERM,
                f"the training is saved in {state}. To go on, give the same "
                "command with --resume.",
            ) from None
    if not first:
        return
    with files.replacing(output / "model.keras") as temporary:
        with checkpoints.alone():
            model.save(temporary)
    if devices > 1:
        # The others do not take part any more.
        keras.distribution.set_distribution(None)
        model = keras.saving.load_model(output / "model.keras")
    _, accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0)
    print(f"accuracy on all {len(x_test):,} test images: {accuracy:.2%}")

    with files.replacing(output / "learning_curves.png") as temporary:
        plots.plot_history(held_out.history).savefig(temporary, dpi=150)
    for name in (
        "model.keras",
        "history.csv",
        "learning_curves.png",
        "predictions.png",
        "training.npz",
    ):
        print(f"wrote {output / name}")


def _progress_bar() -> Any:
    """Returns Keras' progress bar without metrics, which fits 80 columns.

    The lines of the evaluations have the metrics.
    """
    import keras

    class ProgressBar(keras.callbacks.ProgbarLogger):
        async_safe = True
        # Let `fit` make several steps in one execution.
        looks_only_at_freq = True
        freq = "epoch"

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_end(epoch)

    return ProgressBar()


def _describe_differences(differences: dict[str, tuple[Any, Any]]) -> str:
    """Returns which options were others, or else what differs."""
    found = []
    for name, (saved, now) in differences.items():
        found.append(f"{name} ({saved}, now {now})")
        for beginning, option in _DECIDED_BY.items():
            if name.startswith(beginning):
                found[-1] = option
    return ", ".join(dict.fromkeys(found))


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy of a model on a data set's test images."""
    model = _load_model(arguments.model)
    import keras

    from keras_lenet import datasets

    data = _load_data(arguments)
    _, (x_test, y_test) = data
    datasets.check_images_and_labels(x_test, y_test, model.num_classes)
    size, channels = x_test.shape[1:3], x_test.shape[3]
    expected = _image_size(model)
    if (size != expected and model.include_preprocessing) or (
        channels != model.input_shape[-1]
    ):
        raise ValueError(
            f"`--dataset` must have the images that {arguments.model} was "
            f"trained on, {_shape_text((*expected, model.input_shape[-1]))}. "
            f"Received: {arguments.dataset}, with images of "
            f"{_shape_text(x_test.shape[1:])}."
        )
    if arguments.plot:
        _make_writable(Path(arguments.output))
    probabilities = _probabilities(model, x_test)
    right = probabilities.argmax(axis=1) == y_test
    loss = keras.losses.SparseCategoricalCrossentropy()(y_test, probabilities)
    print(
        f"accuracy on all {len(x_test):,} test images: {right.mean():.2%}, "
        f"loss: {float(loss):.4f}"
    )
    if arguments.reject is not None:
        kept = probabilities.max(axis=1) >= arguments.reject
        others = f"{right[kept].mean():.2%}" if kept.any() else "none"
        print(
            f"rejected below {arguments.reject:g}: {1 - kept.mean():.2%}, "
            f"accuracy on the others: {others}"
        )
    if arguments.plot:
        _plot_evaluation(arguments, data, probabilities)


def _plot_evaluation(
    arguments: argparse.Namespace,
    data: "datasets.ImageData",
    probabilities: "np.ndarray[Any, Any]",
) -> None:
    from keras_lenet import calibration, plots

    _, (x_test, y_test) = data
    curve = calibration.rejection_curve(probabilities, y_test)
    enough = curve["error"] <= 0.001
    if enough.any():
        share = curve["rejected"][enough.argmax()]
        print(f"to reach an error of 0.1%, reject {share:.2%}")
    figures = {
        "confusion_matrix": plots.plot_confusion_matrix(
            y_test, probabilities, data.class_names
        ),
        "errors": plots.plot_errors(
            x_test, y_test, probabilities, data.class_names
        ),
        "rejection": plots.plot_rejection(
            curve["rejected"],
            curve["error"],
            references=_PAPER if arguments.dataset == "mnist" else None,
        ),
    }
    _write_figures(Path(arguments.output), figures)


def predict(arguments: argparse.Namespace) -> None:
    """Prints the class of every picture and how probable the model finds it."""
    name, paths = _model_and_pictures(arguments.pictures)
    model = _load_model(name)
    import numpy as np

    from keras_lenet import pictures, plots

    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    originals = [pictures.load_picture(path) for path in paths]
    images = [_prepared(model, picture) for picture in originals]
    if arguments.plot:
        _make_writable(Path(arguments.output))
    with_ink = [image for image in images if image is not None]
    outputs = iter(
        _probabilities(model, np.stack(with_ink)) if with_ink else ()
    )
    found = [
        _describe(path, None if image is None else next(outputs), arguments)
        for path, image in zip(paths, images, strict=True)
    ]
    answers = [_answer(result) for result in found]
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for path, answer in zip(paths, answers, strict=True):
            print(f"{path}: {answer}")
    if arguments.plot:
        titles = [
            f"{Path(path).name}\n{answer}"
            for path, answer in zip(paths, answers, strict=True)
        ]
        figure = plots.plot_pictures(originals, images, titles)
        _write_figures(Path(arguments.output), {"pictures": figure})


def _model_and_pictures(given: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Returns which model is asked for, and about which pictures."""
    from keras_lenet import presets

    first, *others = given
    # No picture is called so.
    is_model = (
        first in presets.NAMES
        or Path(first).suffix == ".keras"
        or Path(first).is_dir()
    )
    if not is_model:
        return "mnist", given
    if not others:
        raise ValueError(
            f"PICTURE must be given. Received: the model {first} alone."
        )
    return first, others


def _prepared(
    model: "LeNet5", picture: "np.ndarray[Any, Any]"
) -> "np.ndarray[Any, Any] | None":
    """Returns a picture as the model was trained on them."""
    from keras_lenet import pictures

    size, channels = _image_size(model), model.input_shape[-1]
    if channels == 1:
        return pictures.prepare_character(picture, size)
    if channels == 3:
        return pictures.fit_colour(picture, size)
    raise ValueError(
        "The model must take grey or colour images, 1 or 3 channels. "
        f"Received: a model for {channels}."
    )


def _describe(
    path: str,
    probabilities: "np.ndarray[Any, Any] | None",
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Returns what `--json` says of a picture."""
    found: dict[str, Any] = {
        "picture": path,
        "ink": probabilities is not None,
        "rejected": False,
        "class": None,
        "probability": None,
        "top": [],
    }
    if probabilities is not None:
        found["top"] = [
            {"class": int(index), "probability": float(probabilities[index])}
            for index in probabilities.argsort()[::-1][: arguments.top]
        ]
        found |= found["top"][0]
        found["rejected"] = found["probability"] < (arguments.reject or 0)
    return found


def _answer(found: dict[str, Any]) -> str:
    if not found["ink"]:
        return "no ink"
    top = [f"{one['class']} ({one['probability']:.1%})" for one in found["top"]]
    return ("rejected, " if found["rejected"] else "") + ", ".join(top)


def _write_figures(folder: Path, figures: "dict[str, Figure]") -> None:
    from keras_lenet import files

    for name, figure in figures.items():
        path = folder / f"{name}.png"
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
        # Where nothing but JSON is expected, it stays alone.
        print(f"wrote {path}", file=sys.stderr)


def _probabilities(
    model: "LeNet5", images: "np.ndarray[Any, Any]"
) -> "np.ndarray[Any, Any]":
    """Returns the probabilities of the classes for raw pixels."""
    import keras
    import numpy as np

    from keras_lenet import saving

    if not model.include_preprocessing:
        shape = images.shape[1:]
        model = saving.adapt(
            model, include_preprocessing=True, input_shape=shape
        )
    outputs = model.predict(images, batch_size=500, verbose=0)
    if model.classifier_activation is keras.activations.linear:
        outputs = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return np.asarray(outputs)


def _join_processes(arguments: argparse.Namespace) -> int:
    """Lets several processes train together; returns how many devices do."""
    given = {
        "--coordinator": arguments.coordinator,
        "--num-processes": arguments.num_processes,
        "--process-id": arguments.process_id,
    }
    missing = [flag for flag, value in given.items() if value is None]
    if len(missing) == len(given):
        return 1
    if missing:
        raise ValueError(
            f"{', '.join(given)} must be given together. "
            f"Received: no {', no '.join(missing)}."
        )
    if arguments.process_id >= arguments.num_processes:
        raise ValueError(
            "`--process-id` must be below --num-processes. Received: "
            f"{arguments.process_id} of {arguments.num_processes}."
        )
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(
            "`--coordinator` needs --backend jax. "
            f"Received: the backend {keras.backend.backend()}."
        )
    import jax

    # What several processes on CPUs talk by.
    name = "jax_cpu_collectives_implementation"
    jax.config.update(name, "gloo")  # type: ignore[no-untyped-call]
    jax.distributed.initialize(
        arguments.coordinator, arguments.num_processes, arguments.process_id
    )
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    return len(jax.devices())


@contextlib.contextmanager
def _signals(interrupt: Callable[[], None]) -> Iterator[list[int]]:
    """Calls a function at Ctrl-C and SIGTERM; gives the numbers received."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        interrupt()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _load_data(arguments: argparse.Namespace) -> "datasets.ImageData":
    from keras_lenet import datasets

    # What tensorflow-datasets logs is in the error too.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        return datasets.load_data(arguments.dataset, arguments.data_dir)
    except (ConnectionError, ValueError) as error:
        message = str(error)
        for word, option in (
            ("`name`", "`--dataset`"),
            ("Received: name=", "Received: --dataset "),
            ("`data_dir`", "`--data-dir`"),
        ):
            message = message.replace(word, option)
        raise ValueError(message) from error


def _load_model(name: str) -> Any:
    from keras_lenet import presets, saving

    if name in presets.NAMES or Path(name).is_dir():
        return saving.load_preset(name)
    if not Path(name).is_file():
        raise ValueError(
            f"{name}: no such file, and none of the presets "
            f"{', '.join(presets.NAMES)}"
        )
    return saving.load_model(name)


def _choose_numbers(arguments: argparse.Namespace, count: int) -> None:
    """Sets those numbers of `train` that were not given, by the recipe."""
    steps, every = 300, 5
    if arguments.recipe in _PASSES:
        every = max(1, count // arguments.batch_size)
        steps = _PASSES[arguments.recipe] * every
    arguments.steps = arguments.steps or steps
    arguments.eval_every = arguments.eval_every or every


def _image_size(model: "LeNet5") -> tuple[int, int]:
    """Returns the size of the pictures that a model was trained on."""
    if not model.include_preprocessing:
        return 28, 28
    _, height, width, _ = model.input_shape
    return height, width


def _shape_text(shape: Sequence[int]) -> str:
    height, width, channels = shape
    return f"{height}x{width} pixels and {channels} channel(s)"


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`--output` must be a folder that can be written to. "
            f"Received: {folder} ({error.strerror})."
        ) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(
            2, f"{self.prog}: error: {message} (see {self.prog} --help)\n"
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="keras-lenet",
        description="Train LeNet-5 on small images, evaluate it, and use it.",
    )
    from keras_lenet import __version__

    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=_Parser
    )

    common = _Parser(add_help=False)
    common.add_argument(
        "--backend",
        choices=_BACKENDS,
        help="what Keras computes with (default: as KERAS_BACKEND or Keras' "
        "configuration says, else tensorflow)",
    )
    data = _Parser(add_help=False)
    data.add_argument(
        "--dataset",
        default="digits",
        help="digits, mnist, fashion_mnist, kmnist, emnist/letters, "
        "emnist/balanced, emnist/digits, cifar10, an .npz or CSV file, or a "
        "folder of IDX files, CSV files or class folders (default: "
        "%(default)s, which needs no network)",
    )
    data.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where tensorflow-datasets keeps its data "
        "(default: ~/tensorflow_datasets)",
    )

    judging = _Parser(add_help=False)
    judging.add_argument(
        "--reject",
        type=_probability,
        metavar="BELOW",
        help="reject what is less probable, a number from 0 to 1",
    )
    judging.add_argument(
        "--plot",
        action="store_true",
        help="draw into --output: `evaluate` the confusion matrix, the errors "
        "and the rejection curve, `predict` what the model saw",
    )
    judging.add_argument(
        "--output",
        default="lenet5-plots",
        metavar="DIR",
        help="where --plot writes (default: %(default)s)",
    )

    command = commands.add_parser(
        "train",
        parents=[common, data],
        help="train, and write model, history and pictures",
        description="Train LeNet-5. The defaults are the cookbook's: 300 steps "
        "of 100 images, an evaluation on 500 held-out images every 5 steps.",
    )
    numbers = (
        (
            "--steps",
            "how many training steps to make (default: 300; of the recipe "
            f"accurate, as many as {_PASSES['accurate']} passes through the "
            f"images have; of --model original, {_PASSES['paper']} passes)",
        ),
        (
            "--batch-size",
            "how many images a step has (default: 100; accurate: 250; "
            "original: 1)",
        ),
        (
            "--eval-every",
            "how many steps lie between evaluations (default: 5; accurate and "
            "original: as many as a pass has)",
        ),
    )
    for flag, text in numbers:
        command.add_argument(
            flag, type=_positive_integer, metavar="N", help=text
        )
    command.add_argument(
        "--eval-size",
        type=_positive_integer,
        default=500,
        metavar="N",
        help="how many test images each evaluation draws (default: "
        "%(default)s)",
    )
    command.add_argument(
        "--model",
        choices=("lenet5", "original"),
        default="lenet5",
        help="LeNet-5 as it is used today, or as the paper of 1998 has it and "
        "trains it, for which there is no --recipe (default: %(default)s)",
    )
    command.add_argument(
        "--recipe",
        choices=("cookbook", "fast", "accurate"),
        help="Adam as it comes; a one-cycle learning rate and label "
        "smoothing, which gets further in as many steps; or images distorted "
        "anew in each of many passes, which gets furthest (default: "
        "cookbook)",
    )
    command.add_argument(
        "--start-from",
        metavar="MODEL",
        help="begin with the weights of a LeNet5: mnist or digits, which come "
        "with it, a folder of a preset, or a .keras file; with other classes "
        "the last layer starts anew",
    )
    command.add_argument(
        "--seed",
        type=_seed,
        default=98,
        metavar="N",
        help="decides weights, order and samples (default: %(default)s)",
    )
    command.add_argument(
        "--output",
        default="lenet5-run",
        metavar="DIR",
        help="where to write (default: %(default)s)",
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with the training that was interrupted in --output, with "
        "the same other options; where there is none, start",
    )
    together = command.add_argument_group(
        "several processes",
        "Start the same command on every machine, with --backend jax.",
    )
    together.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where the first process listens",
    )
    together.add_argument(
        "--num-processes",
        type=_positive_integer,
        metavar="N",
        help="how many processes there are",
    )
    together.add_argument(
        "--process-id",
        type=_seed,
        metavar="I",
        help="which of them this is, from 0 on; the first writes and prints",
    )
    command.set_defaults(run=train)

    command = commands.add_parser(
        "evaluate",
        parents=[common, data, judging],
        help="print a model's accuracy on test images",
        description="Print the accuracy of a model on a data set's test "
        "images.",
    )
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.set_defaults(run=evaluate)

    command = commands.add_parser(
        "predict",
        parents=[common, judging],
        help="tell what pictures show",
        description="Print what each picture shows, one character on paper of "
        "any colour, in any light, size and place, and how probable that is.",
        usage="%(prog)s [options] [MODEL] PICTURE [PICTURE ...]",
    )
    command.add_argument(
        "pictures",
        metavar="[MODEL] PICTURE",
        nargs="+",
        help="PNG, JPEG, BMP, GIF, TIFF or WebP files; the first may be a "
        "model: "
        f"{_MODEL} (default: mnist)",
    )
    command.add_argument(
        "--top",
        type=_positive_integer,
        default=1,
        metavar="N",
        help="print as many of the most probable (default: %(default)s)",
    )
    command.add_argument(
        "--json", action="store_true", help="print a list of objects as JSON"
    )
    command.set_defaults(run=predict)
    return parser


def _positive_integer(text: str) -> int:
    return _integer_from(1, text)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 1. Received: {text!r}"
        )
    return value


def _seed(text: str) -> int:
    return _integer_from(0, text)


def _integer_from(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    most = 2**32 - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(
            f"expected an integer from {least} to {most}. Received: {text!r}"
        )
    return value
