"""The command line: `keras-lenet train | evaluate | predict`."""

import argparse
import contextlib
import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

# Keras reads its backend when it is imported and takes seconds to start, so
# the functions below import what needs it.
if TYPE_CHECKING:
    import numpy as np

    from keras_lenet.models import LeNet5

_BACKENDS = ("tensorflow", "jax", "torch")


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
    # TensorFlow's native notes on how it was built.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
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
        files,
        models,
        plots,
        recipes,
    )

    first = callbacks.is_first_process()
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
    data = datasets.load_data(arguments.dataset, arguments.data_dir)
    (x_train, y_train), (x_test, y_test) = data
    model = models.LeNet5(len(data.class_names), x_train.shape[1:])
    if arguments.recipe == "fast":
        model.compile(**recipes.fast(arguments.steps))
    else:
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
    datasets.check_labels(y_test, model.num_classes)
    if first:
        _make_writable(output)
        model.summary()
    batches = datasets.image_dataset_from_array(
        x_train,
        y_train,
        arguments.batch_size,
        shuffle=True,
        seed=arguments.seed,
        drop_remainder=True,
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
    generator = np.random.default_rng(arguments.seed)
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
    with _signals(resumable.interrupt) as received:
        try:
            model.fit(
                batches.repeat(),
                steps_per_epoch=arguments.steps,
                callbacks=[held_out, pictures, resumable],
                shuffle=False,
                # Without a terminal, a bar that moves fills the log.
                verbose=(1 if sys.stdout.isatty() else 2) if first else 0,
            )
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


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy of a model on a data set's test images."""
    model = _load_model(arguments.model)
    import keras

    from keras_lenet import datasets

    _, (x_test, y_test) = datasets.load_data(
        arguments.dataset, arguments.data_dir
    )
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
    logits = model.classifier_activation is keras.activations.linear
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
        metrics=["accuracy"],
    )
    loss, accuracy = model.evaluate(
        _as_input(model, x_test), y_test, batch_size=500, verbose=0
    )
    print(
        f"accuracy on all {len(x_test):,} test images: {accuracy:.2%}, "
        f"loss: {loss:.4f}"
    )


def predict(arguments: argparse.Namespace) -> None:
    """Prints the class of every picture and how probable the model finds it."""
    model = _load_model(arguments.model)
    import keras
    import numpy as np

    pictures = [
        _read_picture(path, model, arguments.invert)
        for path in arguments.images
    ]
    outputs = model.predict(
        _as_input(model, np.stack([picture for picture, _ in pictures])),
        verbose=0,
    )
    if model.classifier_activation is keras.activations.linear:
        outputs = keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    for path, (_, remark), output in zip(
        arguments.images, pictures, outputs, strict=True
    ):
        best = int(output.argmax())
        print(f"{path}: {best} ({output[best]:.1%}){remark}")


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


def _load_model(path: str) -> "LeNet5":
    from keras_lenet.models import load_model

    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    return load_model(path)


def _read_picture(
    path: str, model: "LeNet5", invert: bool | None
) -> tuple["np.ndarray[Any, Any]", str]:
    """Returns a picture's pixels as the model was trained on them."""
    import numpy as np

    from keras_lenet import files

    height, width = _image_size(model)
    channels = model.input_shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            "The model must take grey or colour images, 1 or 3 channels. "
            f"Received: a model for {channels}."
        )
    with files.parsing(Path(path), "a picture"):
        pixels = _pixels(Path(path), channels, (height, width))
    if channels == 3:
        return pixels, ""
    if pixels.dtype != np.uint8:
        # Grey pictures of 16 bits keep them.
        pixels = np.clip(pixels // 257, 0, 255).astype("uint8")
    border = np.concatenate(
        [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    )
    remark = ""
    if invert is None:
        invert = bool(np.median(border) > 127)
        remark = " dark on bright, so inverted" if invert else ""
    if invert:
        pixels = 255 - pixels
    if pixels.shape != (height, width):
        pixels = _fit(pixels, height, width, path)
    return pixels[..., np.newaxis], remark


def _pixels(
    path: Path, channels: int, size: tuple[int, int]
) -> "np.ndarray[Any, Any]":
    import keras
    import numpy as np
    from PIL import Image

    from keras_lenet import files

    # Of the formats that Pillow reads, some start other programs. To open a
    # picture reads its size only.
    with Image.open(
        path, formats=("PNG", "JPEG", "BMP", "GIF", "TIFF")
    ) as image:
        files.check_inflation(
            path,
            "pixels",
            math.prod(image.size) * len(image.getbands()),
            path.stat().st_size,
            # Those of a photograph, also of blank paper.
            always=2**26,
        )
    as_colour = {
        "target_size": size,
        "interpolation": "bilinear",
        "keep_aspect_ratio": True,
    }
    as_grey = {"color_mode": "grayscale"}
    return np.asarray(
        keras.utils.load_img(path, **as_grey if channels == 1 else as_colour)
    )


def _fit(
    pixels: "np.ndarray[Any, Any]", height: int, width: int, path: str
) -> "np.ndarray[Any, Any]":
    """Brings a character to the size and place of those of MNIST.

    They fill 20x20 of 28x28 pixels and are placed by their centre of mass
    (https://doi.org/10.1109/5.726791, section III-A).
    """
    import keras
    import numpy as np

    from keras_lenet.datasets import center_by_mass

    ink = pixels > (int(pixels.min()) + int(pixels.max())) / 2
    if not ink.any():
        raise ValueError(f"{path}: expected a character. Received: no ink.")
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cut = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(height, width) * 20 / 28 / max(cut.shape)
    size = [max(1, round(side * scale)) for side in cut.shape]
    small = keras.ops.image.resize(
        cut[..., np.newaxis].astype("float32"),
        size,
        antialias=True,
        data_format="channels_last",
    )
    small = np.rint(keras.ops.convert_to_numpy(small)).astype("uint8")
    side = max(height, width)
    field = center_by_mass(small[np.newaxis, ..., 0], side)[0]
    top, left = (side - height) // 2, (side - width) // 2
    return np.asarray(field[top : top + height, left : left + width])


def _image_size(model: "LeNet5") -> tuple[int, int]:
    """Returns the size of the pictures that a model was trained on."""
    if not model.include_preprocessing:
        return 28, 28
    _, height, width, _ = model.input_shape
    return height, width


def _as_input(model: "LeNet5", images: "np.ndarray[Any, Any]") -> Any:
    if model.include_preprocessing:
        return images
    import keras

    from keras_lenet.layers import PadTo32

    return keras.ops.convert_to_numpy(PadTo32()(images)) / 255


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
        "emnist/balanced, emnist/digits, cifar10, a folder of IDX files or "
        "an .npz file (default: %(default)s, which needs no network)",
    )
    data.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where tensorflow-datasets keeps its data "
        "(default: ~/tensorflow_datasets)",
    )

    command = commands.add_parser(
        "train",
        parents=[common, data],
        help="train, and write model, history and pictures",
        description="Train LeNet-5. The defaults are the cookbook's: 300 steps "
        "of 100 images, an evaluation on 500 held-out images every 5 steps.",
    )
    numbers = (
        ("--steps", 300, "how many training steps to make"),
        ("--batch-size", 100, "how many images a step has"),
        ("--eval-every", 5, "how many steps lie between evaluations"),
        ("--eval-size", 500, "how many test images each evaluation draws"),
    )
    for flag, default, text in numbers:
        command.add_argument(
            flag,
            type=_positive_integer,
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    command.add_argument(
        "--recipe",
        choices=("cookbook", "fast"),
        default="cookbook",
        help="Adam as it comes, or a one-cycle learning rate and label "
        "smoothing, which gets further in as many steps (default: "
        "%(default)s)",
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
        parents=[common, data],
        help="print a model's accuracy on test images",
        description="Print the accuracy of a model on a data set's test "
        "images.",
    )
    command.add_argument("model", metavar="MODEL", help="a .keras file")
    command.set_defaults(run=evaluate)

    command = commands.add_parser(
        "predict",
        parents=[common],
        help="tell what pictures show",
        description="Print the class of each picture and the probability "
        "that the model gives it.",
    )
    command.add_argument("model", metavar="MODEL", help="a .keras file")
    command.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="a PNG or JPEG file of one character, of any size",
    )
    command.add_argument(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="whether grey pictures are dark on bright, where MNIST's are "
        "bright on dark (default: found out from the border, and said)",
    )
    command.set_defaults(run=predict)
    return parser


def _positive_integer(text: str) -> int:
    return _integer_from(1, text)


def _seed(text: str) -> int:
    return _integer_from(0, text)


def _integer_from(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 2**32:
        raise argparse.ArgumentTypeError(
            f"expected an integer from {least} on. Received: {text!r}"
        )
    return value
