"""Measures how often rows of MNIST's test digits are read right as a whole.

    python benchmarks/strings.py --data DIR --gaps 2 -2

The gap is the number of pixels, of 28, between the ink of two neighbours. A
negative gap is an overlap.
"""

import argparse
import os
from typing import Any

import numpy as np


def make_row(images: Any, gap: int, slant: float, noise: float, generator: Any):
    """Returns a uint8 picture of digits in a row, dark on white paper."""
    from PIL import Image

    inks = []
    for image in images:
        _, columns = np.nonzero(image[..., 0])
        inks.append(image[:, columns.min() : columns.max() + 1, 0])
    width = sum(ink.shape[1] for ink in inks) + gap * (len(inks) - 1)
    row = np.zeros((44, width + 20), "uint8")
    column = 10
    for ink in inks:
        place = row[8:36, column : column + ink.shape[1]]
        np.maximum(place, ink, out=place)
        column += ink.shape[1] + gap
    picture = Image.fromarray(255 - row)
    if slant:
        picture = picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            (1, slant, -22 * slant, 0, 1, 0),
            Image.Resampling.BILINEAR,
            fillcolor=255,
        )
    pixels = np.asarray(picture) + generator.normal(0, noise, row.shape)
    return pixels.clip(0, 255).astype("uint8")


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
            row = make_row(
                images[chosen], gap, arguments.slant, arguments.noise, generator
            )
            found = pictures.read_digits(row, model)
            text = [digit.label for line in found for digit in line]
            right += text == labels[chosen].tolist()
        print(
            f"gap {gap:2}: {right / arguments.rows:.2%} of {arguments.rows}",
            flush=True,
        )


if __name__ == "__main__":
    main()
