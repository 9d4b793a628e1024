"""Trains the preset "handwritten", which reads digits that people write.

The network is an unchanged `LeNet5`. It learns from MNIST, from 1,934 digits of
other hands (optdigits), and from pictures made here: MNIST's digits in few
pixels and in other stroke widths, drawn and printed digits (`drawings.py`), and
pictures that are no digits, for which all classes are to be equally probable
(outlier exposure, https://arxiv.org/abs/1812.04606).

    pip install Hershey-Fonts
    python benchmarks/handwritten.py --optdigits train.npz --preset handwritten

The last 5,000 training images of MNIST and the last 300 of optdigits are held
out, for the temperature and the threshold for "not a digit". The test set gives
the card's accuracy alone.
"""

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from drawings import (
    NO_DIGIT,
    draw_examples,
    drawn_digit,
    no_digit,
    printed_digit,
)
from PIL import Image
from scipy import ndimage

from keras_lenet.pictures import prepare_character
from keras_lenet.pictures.fitting import fit_strokes

BATCH_SIZE = 250
# Held out for temperature and threshold.
HELD_OUT_MNIST, HELD_OUT_OPTDIGITS = 5_000, 300
# The share of digits that the threshold accepts.
ACCEPTED = 0.98

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def in_few_pixels(image: Any, other: Any, generator: Any) -> Any:
    """Returns a digit as a picture of 8 to 20 pixels shows it."""
    height, width = (ink := _cropped(image)).shape
    factor = generator.uniform(8, 20) / max(height, width)
    size = max(2, round(width * factor)), max(2, round(height * factor))
    small = Image.fromarray(ink).resize(size, Image.Resampling.BOX)
    margin = int(generator.integers(0, 5))
    return prepare_character(
        np.pad(255 - np.asarray(small), margin, constant_values=255)
    )


def in_another_width(image: Any, other: Any, generator: Any) -> Any:
    """Returns a digit with thinner or thicker strokes."""
    large = ndimage.zoom(image[..., 0].astype("float32"), 3, order=1)
    change = generator.choice([-2, -1, 1, 2, 3])
    reach = abs(change)
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    filter_ = ndimage.grey_dilation if change > 0 else ndimage.grey_erosion
    changed = filter_(large, footprint=distance <= reach + 0.3)
    small = Image.fromarray(changed).resize((28, 28), Image.Resampling.BOX)
    pixels = np.asarray(small).clip(0, 255)
    if pixels.max() < 120:
        return image
    return np.rint(pixels * (255 / pixels.max())).astype("uint8")[..., None]


def from_a_row(image: Any, other: Any, generator: Any) -> Any:
    """Returns a digit that was cut out between two neighbours."""
    gaps = generator.integers(-5, 5, 2)
    row, starts = _row((other, image, other[::-1, ::-1]), gaps)
    start = max(0, starts[1] + generator.integers(-2, 3))
    stop = starts[1] + _cropped(image).shape[1] + generator.integers(-2, 3)
    return _fitted(row[:, start : max(stop, start + 2)])


def beside_another(image: Any, other: Any, generator: Any) -> Any:
    """Returns two digits as one character."""
    row, _ = _row((image, other), generator.integers(-6, 5, 1))
    return _fitted(row)


def cut_off(image: Any, other: Any, generator: Any) -> Any:
    """Returns a part of a digit, alone or with a part of the next one."""
    row, (_, second) = _row((image, other), generator.integers(-4, 4, 1))
    widths = _cropped(image).shape[1], row.shape[1] - second
    cut = round(widths[0] * generator.uniform(0.35, 0.65))
    if generator.random() < 0.3:
        return _fitted(row[:, :cut])
    stop = second + round(widths[1] * generator.uniform(0, 0.6))
    return _fitted(row[:, cut : max(stop, cut + 3)])


def _fitted(ink: Any) -> Any:
    return fit_strokes(ink, (28, 28)) if (ink > 0.5).any() else None


def _cropped(image: Any) -> Any:
    ink = image[..., 0]
    rows, columns = np.nonzero(ink)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _row(images: Any, gaps: Any) -> tuple[Any, list[int]]:
    """Returns the ink of digits in a row, and their first columns."""
    inks = [_cropped(image) / 255 for image in images]
    starts = [0]
    for ink, gap in zip(inks, gaps, strict=False):
        starts.append(max(starts[-1] + 1, starts[-1] + ink.shape[1] + int(gap)))
    width = max(
        start + ink.shape[1] for start, ink in zip(starts, inks, strict=True)
    )
    row = np.zeros((28, width))
    for ink, column in zip(inks, starts, strict=True):
        top = (28 - ink.shape[0]) // 2
        place = row[top : top + ink.shape[0], column : column + ink.shape[1]]
        np.maximum(place, ink, out=place)
    return row, starts


def _change(task: Any) -> Any:
    function, image, other, seed = task
    return function(image, other, np.random.default_rng(seed))


def changed_examples(
    function: Callable[..., Any], data: Arrays, count: int, label: int | None
) -> Arrays:
    """Returns images that a function changes, with a label or their own."""
    images, labels = data
    generator = np.random.default_rng(len(function.__name__))
    chosen, others = generator.integers(0, len(images), (2, count))
    tasks = [
        (function, images[i], images[j], number)
        for number, (i, j) in enumerate(zip(chosen, others, strict=True))
    ]
    with multiprocessing.get_context("spawn").Pool() as pool:
        changed = pool.map(_change, tasks, chunksize=100)
    kept = [n for n, image in enumerate(changed) if image is not None]
    own = labels[chosen[kept]]
    return (
        np.stack([changed[n] for n in kept]),
        own if label is None else np.full_like(own, label),
    )


def make_data(mnist: Arrays, optdigits: Arrays, seed: int) -> Arrays:
    """Returns all training images and labels."""
    parts = [mnist, *[optdigits] * 4]
    for function, count, label in (
        (in_few_pixels, 15_000, None),
        (in_another_width, 15_000, None),
        (from_a_row, 20_000, None),
        (beside_another, 7_000, NO_DIGIT),
        (cut_off, 5_000, NO_DIGIT),
    ):
        parts.append(changed_examples(function, mnist, count, label))
    for kind, count in (
        (drawn_digit, 26_000),
        (printed_digit, 3_000),
        (no_digit, 16_000),
    ):
        parts.append(draw_examples(kind, count, seed))
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels).astype("int64")


def read_optdigits(path: Path) -> Arrays:
    """Reads `x`, bright ink of shape `(n, 32, 32)`, and `y`."""
    with np.load(path) as file:
        digits, labels = file["x"], file["y"]
    prepared = [
        prepare_character(np.pad(255 - digit, 4, constant_values=255))
        for digit in digits
    ]
    return np.stack(prepared), labels


def train(data: Arrays, epochs: int, seed: int) -> Any:
    """Returns a trained model."""
    import keras
    from keras import ops

    from keras_lenet import LeNet5, RandomDistortion, recipes
    from keras_lenet.datasets import image_dataset_from_array

    def loss(labels: Any, probabilities: Any) -> Any:
        labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
        targets = 0.98 * ops.one_hot(labels, 10) + 0.002
        is_none = ops.expand_dims(labels, -1) == NO_DIGIT
        targets = ops.where(is_none, 0.1, targets)
        return keras.losses.categorical_crossentropy(targets, probabilities)

    keras.utils.set_random_seed(seed)
    model = LeNet5()
    steps = epochs * (len(data[0]) // BATCH_SIZE)
    optimizer = recipes.accurate(steps)["optimizer"]
    model.compile(optimizer, loss)
    batches = image_dataset_from_array(
        *data,
        BATCH_SIZE,
        shuffle=True,
        seed=seed,
        drop_remainder=True,
        augment=RandomDistortion(),
    )
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return model


def _divided(data: Arrays, held_out: int) -> tuple[Arrays, Arrays]:
    images, labels = data
    return (
        (images[:-held_out], labels[:-held_out]),
        (images[-held_out:], labels[-held_out:]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", default="mnist", help="MNIST (default: mnist)"
    )
    parser.add_argument("--optdigits", type=Path, required=True, metavar="NPZ")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=98)
    parser.add_argument("--preset", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet.calibration import (
        calibrate,
        expected_calibration_error,
    )
    from keras_lenet.datasets import load_data

    start = time.perf_counter()
    (x, y), (x_test, y_test) = load_data(arguments.data)
    others = read_optdigits(arguments.optdigits)

    mnist, held_mnist = _divided((x, y), HELD_OUT_MNIST)
    optdigits, held_optdigits = _divided(others, HELD_OUT_OPTDIGITS)
    data = make_data(mnist, optdigits, arguments.seed)
    print(f"{len(data[0]):,} images, {time.perf_counter() - start:.0f} s")
    model = train(data, arguments.epochs, arguments.seed)

    held_out = {
        "MNIST": held_mnist,
        "optdigits": held_optdigits,
        "few pixels": changed_examples(in_few_pixels, held_mnist, 2_000, None),
    }
    for name, (images, labels) in held_out.items():
        found = model.predict(images, verbose=0).argmax(axis=1)
        print(f"held out, {name}: {np.mean(found == labels):.2%}")
    images, labels = map(np.concatenate, zip(*held_out.values(), strict=True))
    temperature = calibrate(model, images, labels)
    probabilities = model.predict(images, verbose=0)
    threshold = float(np.quantile(probabilities.max(axis=1), 1 - ACCEPTED))
    error = expected_calibration_error(probabilities, labels)
    test = model.predict(x_test, batch_size=500, verbose=0)
    accuracy = float(np.mean(test.argmax(axis=1) == y_test))
    card = {
        "dataset": "MNIST, optdigits (https://doi.org/10.24432/C50P49, CC BY "
        "4.0), and drawings of benchmarks/drawings.py",
        "training_images": len(mnist[0]) + len(optdigits[0]),
        "recipe": f"benchmarks/handwritten.py, {arguments.epochs} epochs",
        "seed": arguments.seed,
        "test_images": len(x_test),
        "test_accuracy": round(accuracy, 5),
        "test_accuracy_standard_error": round(
            math.sqrt(accuracy * (1 - accuracy) / len(x_test)), 5
        ),
        "temperature": round(temperature, 4),
        "held_out_calibration_error": round(error, 4),
        "threshold": round(threshold, 3),
        "license": "Apache-2.0",
    }
    model.save_to_preset(arguments.preset, card)
    print(json.dumps(card, indent=2), f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
