r"""Measures how presets read digits that differ from MNIST's.

The same models on MNIST's test images: as they are, with corrected labels,
corrupted in 15 ways (`corruptions.py`), rotated, scaled and shifted; and on the
digits of optdigits' other writers.

    python benchmarks/robustness.py --data DIR --optdigits FILE --write
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from corruptions import CORRUPTIONS, corrupt, rotation, warp
from handwritten import read_optdigits
from options import add_data
from reports import replace_lines

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs/pages/images"
MODELS = ("mnist", "handwritten", "original")

# Labels of MNIST's test images on which most people agree against the given
# ones (https://labelerrors.com), and images that are no digit or undecided.
CORRECTED = {
    947: 9,
    1621: 6,
    1901: 4,
    2462: 0,
    2597: 3,
    3558: 0,
    5937: 3,
    6651: 6,
    6783: 6,
    9729: 6,
}
UNDECIDED = (2654, 3520, 9679, 2130, 8527)

SWEEPS = {
    "rotation, degrees": (-45, -30, -20, -10, 0, 10, 20, 30, 45),
    "scale": (0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4),
    "shift to the right, pixels": (-8, -6, -4, -2, 0, 2, 4, 6, 8),
}


def main() -> None:
    arguments = parse_arguments()
    from keras_lenet import datasets
    from keras_lenet.saving import load_preset

    _, (x, y) = datasets.load_data(arguments.data)
    x, y = x[: arguments.images, ..., 0], y[: arguments.images]
    models = {name: load_preset(name) for name in MODELS}

    def accuracies(images: np.ndarray, labels: np.ndarray) -> list[float]:
        return [accuracy(models[name], images, labels) for name in MODELS]

    rows = {"test images": accuracies(x, y)}
    corrected, known = correct(y)
    rows["labels corrected"] = accuracies(x[known], corrected[known])
    if arguments.optdigits:
        digits, labels = read_optdigits(arguments.optdigits)
        rows["optdigits, other writers"] = accuracies(
            digits.reshape(-1, 28, 28), labels
        )
    corrupted = {name: accuracies(corrupt(name, x), y) for name in CORRUPTIONS}
    rows["mean of the corruptions"] = list(
        np.mean(list(corrupted.values()), axis=0)
    )
    rows |= {name.replace("_", " "): row for name, row in corrupted.items()}
    sweeps = {
        kind: [accuracies(transform(kind, value, x), y) for value in values]
        for kind, values in SWEEPS.items()
    }
    table = [
        f"| images | {' | '.join(f'`{name}`' for name in MODELS)} |",
        f"| {'--- | ' * len(MODELS)}--- |",
        *(
            f"| {name} | {' | '.join(f'{value:.2%}' for value in row)} |"
            for name, row in rows.items()
        ),
    ]
    print("\n".join(table))
    if arguments.write:
        replace_lines(HERE / "README.md", "robustness.py", table)
        draw(sweeps)
        draw_labels(x, y, models["mnist"])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure how presets read digits that differ from MNIST's."
    )
    add_data(parser)
    parser.add_argument(
        "--optdigits",
        type=Path,
        metavar="FILE",
        help="test.npz of optdigits, with x of shape (n, 32, 32) and y",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=10_000,
        metavar="N",
        help="number of test images (default: %(default)s)",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put table and curves into README.md, here",
    )
    return parser.parse_args()


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    images = images[..., np.newaxis]
    scores = model.predict(images, batch_size=500, verbose=0)
    return float((scores.argmax(axis=1) == labels).mean())


def correct(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns corrected labels, and which of them are known."""
    labels, known = labels.copy(), np.ones(len(labels), bool)
    for index, label in CORRECTED.items():
        if index < len(labels):
            labels[index] = label
    known[[index for index in UNDECIDED if index < len(labels)]] = False
    return labels, known


def transform(kind: str, value: float, images: np.ndarray) -> np.ndarray:
    """Rotates, scales about the middle, or shifts all images alike."""
    if kind.startswith("shift"):
        return warp(images, shift=(0, value))
    if kind.startswith("rotation"):
        return warp(images, rotation(np.radians([value])))
    return warp(images, np.eye(2) / value)


def draw(sweeps: dict[str, list[list[float]]]) -> None:
    from matplotlib.figure import Figure

    from keras_lenet.files.atomic import atomic_write

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    styles = (("#D55E00", "-", "o"), ("#0072B2", "--", "s"), ("k", ":", "^"))
    for axes, (kind, rows) in zip(
        figure.subplots(1, len(sweeps), sharey=True),
        sweeps.items(),
        strict=True,
    ):
        for name, values, (color, line, marker) in zip(
            MODELS, np.transpose(rows), styles, strict=True
        ):
            axes.plot(
                SWEEPS[kind],
                100 * values,
                label=name,
                color=color,
                linestyle=line,
                marker=marker,
                markersize=3,
            )
        axes.set_xlabel(kind.capitalize())
        axes.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("Accuracy, %")
    first.legend()
    figure.suptitle("MNIST's test images, moved")
    with atomic_write(IMAGES / "robustness.png") as temporary:
        figure.savefig(temporary, dpi=120)


def draw_labels(images: np.ndarray, labels: np.ndarray, model: Any) -> None:
    """Draws the corrected and undecided images with a model's answers."""
    from matplotlib.figure import Figure

    from keras_lenet.files.atomic import atomic_write

    indices = [*CORRECTED, *UNDECIDED]
    answers = model.predict(images[indices][..., np.newaxis], verbose=0)
    figure = Figure(figsize=(9, 6), layout="constrained")
    for axes, index, answer in zip(
        figure.subplots(3, 5).flat, indices, answers, strict=True
    ):
        axes.imshow(images[index], cmap="gray_r")
        axes.set_title(
            f"{index}: label {labels[index]}, people "
            f"{CORRECTED.get(index, '?')}\n"
            f"mnist {answer.argmax()} ({answer.max():.0%})",
            fontsize=8,
        )
        axes.set_axis_off()
    with atomic_write(IMAGES / "labels.png") as temporary:
        figure.savefig(temporary, dpi=100)


if __name__ == "__main__":
    main()
