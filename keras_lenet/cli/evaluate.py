"""`keras-lenet evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_lenet.cli import options
from keras_lenet.cli.models import image_size, probabilities, write_figures
from keras_lenet.cli.terminal import silence_tfds
from keras_lenet.datasets import load_data
from keras_lenet.training.checks import make_writable, shape_text
from keras_lenet.types import Array
from keras_lenet.validation.images import check_images_and_labels

if TYPE_CHECKING:
    from keras_lenet.datasets import ImageData

# Rejected share and error of other networks in the 1998 paper
# (https://doi.org/10.1109/5.726791, figure 10).
_PAPER = {
    "LeNet-4 (1998)": (0.018, 0.005),
    "boosted LeNet-4 (1998)": (0.005, 0.005),
}


def add_parser(commands: Any) -> None:
    """Adds the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "evaluate",
        parents=[
            options.common(),
            options.data(),
            options.reject(),
            options.plot(
                "the confusion matrix, the errors and the risk-coverage curve"
            ),
        ],
        help="print a model's accuracy on test images",
        description="Print the accuracy of a model on a data set's test "
        "images.",
    )
    parser.add_argument("model", metavar="MODEL", help=options.MODEL)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy of a model on a data set's test images."""
    import keras

    from keras_lenet import saving

    model = saving.load(arguments.model)
    silence_tfds()
    data = load_data(arguments.dataset, arguments.data_dir)
    _, (x_test, y_test) = data
    check_images_and_labels(x_test, y_test, model.num_classes)
    _check_images(arguments, model, x_test)
    if arguments.plot:
        make_writable(Path(arguments.output))
    found = probabilities(model, x_test)
    right = found.argmax(axis=1) == y_test
    loss = keras.losses.SparseCategoricalCrossentropy()(y_test, found)
    print(
        f"accuracy on all {len(x_test):,} test images: {right.mean():.2%}, "
        f"loss: {float(loss):.4f}"
    )
    if arguments.reject is not None:
        kept = found.max(axis=1) >= arguments.reject
        others = f"{right[kept].mean():.2%}" if kept.any() else "none"
        print(
            f"rejected below {arguments.reject:g}: {1 - kept.mean():.2%}, "
            f"accuracy on the others: {others}"
        )
    if arguments.plot:
        _plot(arguments, data, found)


def _check_images(
    arguments: argparse.Namespace, model: Any, images: Array
) -> None:
    size, channels = images.shape[1:3], images.shape[3]
    expected = image_size(model)
    if (size != expected and model.include_preprocessing) or (
        channels != model.input_shape[-1]
    ):
        raise ValueError(
            f"`dataset` must have images like those {arguments.model} was "
            f"trained on: {shape_text((*expected, model.input_shape[-1]))}. "
            f"Received: {arguments.dataset}, with images of "
            f"{shape_text(images.shape[1:])}."
        )


def _plot(
    arguments: argparse.Namespace, data: "ImageData", found: Array
) -> None:
    from keras_lenet import calibration, plots

    _, (x_test, y_test) = data
    curve = calibration.risk_coverage_curve(found, y_test)
    reached = curve["error"] <= 0.001
    if reached.any():
        share = curve["rejected"][reached.argmax()]
        print(f"to reach an error of 0.1%, reject {share:.2%}")
    write_figures(
        Path(arguments.output),
        {
            "confusion_matrix": plots.plot_confusion_matrix(
                y_test, found, data.class_names
            ),
            "errors": plots.plot_errors(
                x_test, y_test, found, data.class_names
            ),
            "rejection": plots.plot_risk_coverage(
                curve["rejected"],
                curve["error"],
                references=_PAPER if arguments.dataset == "mnist" else None,
            ),
        },
    )
