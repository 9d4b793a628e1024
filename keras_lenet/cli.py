"""The command line: `keras-lenet train | evaluate | predict`."""

import argparse
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
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
        The exit code: 0, 2 for input that cannot be used, or 130 when
        interrupted.
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
    except KeyboardInterrupt:
        print("\nkeras-lenet: interrupted", file=sys.stderr)
        return 130
    return 0


def train(arguments: argparse.Namespace) -> None:
    """Trains as the recipe does, and writes model, history and pictures."""
    output = _writable_folder(arguments.output)
    import keras
    import numpy as np

    from keras_lenet import (
        callbacks,
        datasets,
        files,
        models,
        plots,
        recipes,
    )

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
    model.fit(
        batches.repeat(),
        steps_per_epoch=arguments.steps,
        callbacks=[held_out, pictures],
        shuffle=False,
        # Without a terminal, a bar that moves fills the log.
        verbose=1 if sys.stdout.isatty() else 2,
    )
    _, accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0)
    print(f"accuracy on all {len(x_test):,} test images: {accuracy:.2%}")

    with files.replacing(output / "model.keras") as temporary:
        model.save(temporary)
    with files.replacing(output / "learning_curves.png") as temporary:
        plots.plot_history(held_out.history).savefig(temporary, dpi=150)
    for name in (
        "model.keras",
        "history.csv",
        "learning_curves.png",
        "predictions.png",
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


def _load_model(path: str) -> "LeNet5":
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        ours = config["registered_name"] == "keras_lenet>LeNet5"
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile):
        ours = False
    if not ours:
        raise ValueError(
            f"{path}: expected a `.keras` file with a LeNet5, as `keras-lenet "
            "train` writes it. Received: something else."
        )
    import keras

    import keras_lenet.models  # noqa: F401

    try:
        model: LeNet5 = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            f"{path}: the model cannot be loaded, the file is damaged: {error}"
        ) from error
    return model


def _read_picture(
    path: str, model: "LeNet5", invert: bool | None
) -> tuple["np.ndarray[Any, Any]", str]:
    """Returns a picture's pixels as the model was trained on them."""
    import keras
    import numpy as np

    height, width = _image_size(model)
    channels = model.input_shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            "The model must take grey or colour images, 1 or 3 channels. "
            f"Received: a model for {channels}."
        )
    as_colour = {
        "target_size": (height, width),
        "interpolation": "bilinear",
        "keep_aspect_ratio": True,
    }
    as_grey = {"color_mode": "grayscale"}
    try:
        pixels = np.asarray(
            keras.utils.load_img(
                path, **as_grey if channels == 1 else as_colour
            )
        )
    except Exception as error:
        reason = getattr(error, "strerror", None) or "something else"
        raise ValueError(
            f"{path}: expected a picture, e.g. a PNG or JPEG file. "
            f"Received: {reason}."
        ) from error
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


def _writable_folder(path: str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`--output` must be a folder that can be written to. "
            f"Received: {path} ({error.strerror})."
        ) from error
    return folder


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
