"""Measures how often rows of MNIST's test digits are read right as a whole.

    python benchmarks/strings.py --data DIR --gaps 2 -2

The gap is the number of pixels, of 28, between the ink of two neighbours. A
negative gap is an overlap.
"""

import argparse
import os
from typing import Any

import numpy as np


def place_digits(images: Any, gaps: Any, slant: float = 0.0) -> Any:
    """Places digits in a row.

    Args:
        images: uint8 array of shape `(n, 28, 28, 1)`, bright ink on 0.
        gaps: Integers. The number of columns between the ink of neighbours.
        slant: Float. The tangent of the angle by which the row leans.

    Returns:
        uint8 array of shape `(n, 44, width)`, the ink of each digit.
    """
    from PIL import Image

    inks = []
    for image in images:
        _, columns = np.nonzero(image[..., 0])
        inks.append(image[:, columns.min() : columns.max() + 1, 0])
    widths = np.array([ink.shape[1] for ink in inks])
    starts = 10 + np.cumsum([0, *(widths[:-1] + gaps)])
    starts = np.maximum.accumulate(starts)
    row = np.zeros((len(inks), 44, (starts + widths).max() + 10), "uint8")
    for layer, ink, start in zip(row, inks, starts, strict=True):
        layer[8:36, start : start + ink.shape[1]] = ink
    if slant:
        lean = (1, slant, -22 * slant, 0, 1, 0)
        leaning = [
            Image.fromarray(layer).transform(
                layer.shape[::-1],
                Image.Transform.AFFINE,
                lean,
                Image.Resampling.BILINEAR,
            )
            for layer in row
        ]
        row = np.stack([np.asarray(layer) for layer in leaning])
    return row


def as_picture(row: Any, noise: float, generator: Any) -> Any:
    """Returns a uint8 picture of a row, dark on white paper."""
    grey = 255 - row.max(axis=0)
    grey = grey + generator.normal(0, noise, grey.shape)
    return grey.clip(0, 255).astype("uint8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--model", default="handwritten")
    parser.add_argument("--gaps", type=int, nargs="+", default=range(-4, 5))
    parser.add_argument("--rows", type=int, default=1000, help="per gap")
    parser.add_argument("--length", type=int, default=5, help="digits in a row")
    parser.add_argument("--slant", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0, help="grey levels")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet import datasets, pictures, saving

    _, (images, labels) = datasets.load_data(arguments.data)
    model = saving.load(arguments.model)
    for gap in arguments.gaps:
        generator = np.random.default_rng([98, gap + 100])
        right = 0
        for _ in range(arguments.rows):
            chosen = generator.integers(0, len(images), arguments.length)
            row = place_digits(images[chosen], gap, arguments.slant)
            picture = as_picture(row, arguments.noise, generator)
            found = pictures.read_digits(picture, model)
            text = [digit.label for line in found for digit in line]
            right += text == labels[chosen].tolist()
        print(
            f"gap {gap:2}: {right / arguments.rows:.2%} of {arguments.rows}",
            flush=True,
        )


if __name__ == "__main__":
    main()
