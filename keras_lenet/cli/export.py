"""`keras-lenet export`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lenet.cli import options
from keras_lenet.cli.models import image_size, metadata
from keras_lenet.cli.terminal import silence_tfds
from keras_lenet.datasets import load_data
from keras_lenet.types import Array

if TYPE_CHECKING:
    from keras_lenet.exporting import Comparison

_OUTPUTS = {
    "onnx": "lenet5.onnx",
    "litert": "lenet5.tflite",
    "saved_model": "lenet5-saved-model",
    "c": "lenet5-c",
    "html": "lenet5.html",
}

# A model that is less accurate was probably trained on other data.
_EXPECTED_ACCURACY = 0.5

# How many images the ranges of integers are estimated from.
_REPRESENTATIVE = 500


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "export",
        parents=[options.common(), options.data()],
        help="write a model for other programs and machines",
        description="Write a model for other programs and machines, run it "
        "there on the data set's test images, and compare the outputs with "
        "those of Keras. It takes raw pixels and returns probabilities.",
    )
    parser.add_argument("model", metavar="MODEL", help=options.MODEL)
    parser.add_argument(
        "--format",
        choices=_OUTPUTS,
        required=True,
        help="onnx, litert (formerly TensorFlow Lite), saved_model, c (a C99 "
        "program), or html (a page to draw digits on)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="compute with 8-bit integers, for which the data set's training "
        "images give the ranges",
    )
    parser.add_argument(
        "--logits",
        action="store_true",
        help="return logits rather than probabilities, e.g. for FPGAs",
    )
    names = ", ".join(_OUTPUTS.values())
    parser.add_argument(
        "--output",
        metavar="PATH",
        help=f"file or new folder to write (default: {names})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Exports a model and prints how it compares with Keras."""
    from keras_lenet import saving
    from keras_lenet.exporting import export

    model = saving.load(arguments.model)
    silence_tfds()
    (x_train, _), (x_test, y_test) = load_data(
        arguments.dataset, arguments.data_dir
    )
    shape = (*image_size(model), model.input_shape[-1])
    if x_test.shape[1:] != shape:
        raise ValueError(
            f"`dataset` must have images of shape {shape}, as the model. "
            f"Received: {arguments.dataset}, with images of shape "
            f"{x_test.shape[1:]}"
        )
    path = Path(arguments.output or _OUTPUTS[arguments.format])
    step = max(1, len(x_train) // _REPRESENTATIVE)
    comparison = export(
        model,
        path,
        arguments.format,
        int8=arguments.int8,
        logits=arguments.logits,
        images=x_test,
        representative=x_train[::step][:_REPRESENTATIVE],
        metadata=metadata(arguments.model),
    )
    print(f"wrote {path} ({_size(path):,} bytes)")
    if arguments.format == "c":
        _print_sizes(path)
    if comparison is None:
        needed = "browser" if arguments.format == "html" else "C compiler"
        print(f"not compared with Keras: this machine has no {needed}")
    else:
        _print_comparison(comparison, y_test, arguments)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _print_sizes(folder: Path) -> None:
    from keras_lenet.exporting import c_program

    sizes = c_program.compiled_sizes(folder)
    if sizes is not None:
        flash, memory = sizes
        print(
            f"compiled here: {flash:,} bytes of code and constants, "
            f"{memory:,} bytes of memory"
        )


def _print_comparison(
    comparison: "Comparison", labels: Array, arguments: argparse.Namespace
) -> None:
    accuracies = [
        np.mean(found.argmax(axis=1) == labels)
        for found in (comparison.outputs, comparison.expected)
    ]
    print(
        f"compared on {len(labels):,} test images of {arguments.dataset}: "
        f"outputs differ from Keras' by at most "
        f"{comparison.difference:.1e}; accuracy {accuracies[0]:.2%}, with "
        f"Keras {accuracies[1]:.2%}"
    )
    if accuracies[1] < _EXPECTED_ACCURACY:
        print(
            f"the model was probably not trained on {arguments.dataset}: give "
            "its own data with --dataset for a meaningful accuracy"
        )
