"""Trains the preset "handwritten", which reads digits that people write.

The network is an unchanged `LeNet5`. It learns from MNIST, from 1,934 digits of
other hands (optdigits), and from pictures made here: MNIST's digits in few
pixels, in other stroke widths and cut from rows, drawn and printed digits
(`drawings.py`), and pictures that are no digits, for which all classes are to
be equally probable (outlier exposure, https://arxiv.org/abs/1812.04606). It
also learns the probabilities of teachers, networks of the same kind. In the
last epochs, half of the pictures are on brighter ground, and a tenth have an
inverted rectangle. `--start PRESET` leaves out all other epochs.

    pip install Hershey-Fonts
    python benchmarks/handwritten.py --optdigits train.npz --preset handwritten

The last 5,000 training images of MNIST and the last 300 of optdigits are held
out, for the temperature and the threshold for "not a digit". The test set gives
the card's accuracy alone.
"""

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from backgrounds import RandomGround
from drawings import (
    NO_DIGIT,
    draw_examples,
    drawn_digit,
    no_digit,
    printed_digit,
)
from PIL import Image
from scipy import ndimage
from strings import as_picture, place_digits

from keras_lenet.pictures import prepare_character
from keras_lenet.pictures.fitting import fit_strokes
from keras_lenet.pictures.segments import Candidate, find_candidates

BATCH_SIZE = 250
# Held out for temperature and threshold.
HELD_OUT_MNIST, HELD_OUT_OPTDIGITS = 5_000, 300
# The share of digits that the threshold accepts.
ACCEPTED = 0.98

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def in_few_pixels(image: Any, generator: Any) -> Any:
    """Returns a digit as a picture of 8 to 20 pixels shows it.

    Returns `None` if too little is left of it.
    """
    height, width = (ink := _cropped(image)).shape
    factor = generator.uniform(8, 20) / max(height, width)
    size = max(2, round(width * factor)), max(2, round(height * factor))
    small = Image.fromarray(ink).resize(size, Image.Resampling.BOX)
    margin = int(generator.integers(0, 5))
    return prepare_character(
        np.pad(255 - np.asarray(small), margin, constant_values=255)
    )


def in_another_width(image: Any, generator: Any) -> Any:
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


def _cropped(image: Any) -> Any:
    ink = image[..., 0]
    rows, columns = np.nonzero(ink)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def cut_from_a_row(images: Any, labels: Any, seed: Any) -> list[Any]:
    """Returns what `read_digits` considers in a row of two to four digits.

    Returns:
        List of tuples `(image, label)`: candidates that are nearly one digit,
        and those that are less or more, with the label `NO_DIGIT`.
    """
    generator = np.random.default_rng(seed)
    count = int(generator.integers(2, 5))
    chosen = generator.integers(0, len(images), count)
    gaps = generator.integers(-5, 4, count - 1)
    slant = float(generator.choice([0, generator.uniform(-0.35, 0.35)]))
    row = place_digits(images[chosen], gaps, slant)
    small = Image.fromarray(as_picture(row, 0, generator))
    # `read_digits` enlarges small pictures in this way.
    size = 2 * small.width, 2 * small.height
    picture = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
    inks = (row.repeat(2, 1).repeat(2, 2) > 100).astype("float32")
    found = []
    pixels = picture[..., np.newaxis].astype("float32")
    for candidates in find_candidates(pixels):
        agreements, parts = (
            np.array(each)
            for each in zip(
                *(_compare(c, inks) for c in candidates), strict=True
            )
        )
        nearest, agreement = agreements.argmax(axis=1), agreements.max(axis=1)
        digits = np.minimum((parts > 0.55).sum(axis=1), 2)
        is_little = agreement < 0.6
        is_digit = (agreement >= 0.78) & (digits < 2)
        groups = [
            # Less than a digit, parts of two, two, and a digit with a thin one.
            (is_little & (digits == 0), 4),
            (is_little & (digits == 1), 3),
            (is_little & (digits == 2), 2),
            (~is_little & (digits == 2), 3),
            *((is_digit & (nearest == n), 2) for n in range(count)),
        ]
        for group, most in groups:
            for index in generator.permutation(np.flatnonzero(group))[:most]:
                label = NO_DIGIT
                if is_digit[index]:
                    label = labels[chosen[nearest[index]]]
                ink = candidates[index].ink
                found.append((fit_strokes(ink / ink.max(), (28, 28)), label))
    return found


def _compare(candidate: Candidate, inks: Any) -> tuple[Any, Any]:
    """Compares a candidate with each digit.

    Returns:
        The shared ink divided by all ink of both, and by that of the digit.
    """
    ink = candidate.ink > 0.5
    shared = (inks[(slice(None), *candidate.box)] * ink).sum(axis=(1, 2))
    all_ink = inks.sum(axis=(1, 2))
    return shared / (ink.sum() + all_ink - shared), shared / all_ink


def rows_of_digits(data: Arrays, rows: int, count: int) -> Arrays:
    """Returns `count` digits cut from rows, and as many that are none."""
    cut = functools.partial(cut_from_a_row, *data)
    with multiprocessing.get_context("spawn").Pool() as pool:
        found = pool.map(cut, range(rows), chunksize=500)
    images, labels = zip(*itertools.chain(*found), strict=True)
    is_none = np.array(labels) == NO_DIGIT
    generator = np.random.default_rng(rows)
    chosen = np.concatenate(
        [
            generator.permutation(np.flatnonzero(group))[:count]
            for group in (is_none, ~is_none)
        ]
    )
    return np.stack(images)[chosen], np.array(labels)[chosen]


def _change(task: Any) -> Any:
    function, image, seed = task
    return function(image, np.random.default_rng(seed))


def changed_examples(
    function: Callable[..., Any], data: Arrays, count: int
) -> Arrays:
    """Returns images that a function changes, and their labels."""
    images, labels = data
    generator = np.random.default_rng(len(function.__name__))
    chosen = generator.integers(0, len(images), count)
    tasks = [(function, images[i], number) for number, i in enumerate(chosen)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        changed = pool.map(_change, tasks, chunksize=100)
    kept = [n for n, image in enumerate(changed) if image is not None]
    return np.stack([changed[n] for n in kept]), labels[chosen[kept]]


def make_data(mnist: Arrays, optdigits: Arrays, seed: int) -> Arrays:
    """Returns all training images and labels."""
    parts = [mnist, *[optdigits] * 4]
    for function, count in (
        (in_few_pixels, 15_000),
        (in_another_width, 15_000),
    ):
        parts.append(changed_examples(function, mnist, count))
    parts.append(rows_of_digits(mnist, 12_000, 55_000))
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


def train(
    data: Arrays, epochs: int, seed: int, teachers: Any = (), start: Any = None
) -> Any:
    """Returns a trained model.

    With `teachers`, 0.7 of each target is the mean of their probabilities for
    the same distorted image (https://arxiv.org/abs/1503.02531). With `start`,
    a model, it begins with its weights, puts pictures on other ground, and is
    taught by the model, which sees them on black.
    """
    import keras
    from keras import ops

    from keras_lenet import LeNet5, RandomDistortion, recipes
    from keras_lenet.datasets import image_dataset_from_array

    if start is not None:
        teachers = [start]

    class Student(LeNet5):
        def call(
            self, inputs: Any, training: bool = False, mask: Any = None
        ) -> Any:
            if start is not None:
                inputs = ground(inputs, training=training)
            return super().call(inputs, training=training, mask=mask)

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            labels = ops.cast(ops.reshape(y, (-1,)), "int32")
            targets = 0.98 * ops.one_hot(labels, 10) + 0.002
            is_none = ops.expand_dims(labels, -1) == NO_DIGIT
            targets = ops.where(is_none, 0.1, targets)
            if teachers:
                taught = sum(each(x, training=False) for each in teachers)
                targets = 0.3 * targets + 0.7 / len(teachers) * taught
            loss = keras.losses.categorical_crossentropy(targets, y_pred)
            return ops.mean(loss)

    keras.utils.set_random_seed(seed)
    ground = RandomGround(inverted=0.1, seed=seed)
    student = Student()
    steps = epochs * (len(data[0]) // BATCH_SIZE)
    student.compile(recipes.accurate(steps)["optimizer"])
    if start is not None:
        student.set_weights(start.get_weights())
        rate = recipes.OneCycle(0.004, steps, warmup=0.05)
        student.optimizer.learning_rate = rate
    batches = image_dataset_from_array(
        *data,
        BATCH_SIZE,
        shuffle=True,
        seed=seed,
        drop_remainder=True,
        augment=RandomDistortion(),
    )
    student.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    model = LeNet5()
    model.set_weights(student.get_weights())
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
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--teachers", type=int, default=3)
    parser.add_argument(
        "--teacher-epochs", type=int, default=15, metavar="EPOCHS"
    )
    parser.add_argument(
        "--ground-epochs", type=int, default=8, metavar="EPOCHS"
    )
    parser.add_argument("--start", metavar="PRESET")
    parser.add_argument("--seed", type=int, default=98)
    parser.add_argument("--preset", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet import LeNet5
    from keras_lenet.calibration import (
        calibrate,
        expected_calibration_error,
    )
    from keras_lenet.datasets import load_data
    from keras_lenet.saving import read_preset

    start = time.perf_counter()
    (x, y), (x_test, y_test) = load_data(arguments.data)
    others = read_optdigits(arguments.optdigits)

    mnist, held_mnist = _divided((x, y), HELD_OUT_MNIST)
    optdigits, held_optdigits = _divided(others, HELD_OUT_OPTDIGITS)
    data = make_data(mnist, optdigits, arguments.seed)
    print(f"{len(data[0]):,} images, {time.perf_counter() - start:.0f} s")
    if arguments.start:
        model = LeNet5.from_preset(arguments.start)
    else:
        teachers = []
        for number in range(arguments.teachers):
            seed = arguments.seed + 1 + number
            teachers.append(train(data, arguments.teacher_epochs, seed))
            took = time.perf_counter() - start
            print(f"teacher {number + 1}, {took:.0f} s", flush=True)
        model = train(data, arguments.epochs, arguments.seed, teachers)
    model = train(data, arguments.ground_epochs, arguments.seed, start=model)

    held_out = {
        "MNIST": held_mnist,
        "optdigits": held_optdigits,
        "few pixels": changed_examples(in_few_pixels, held_mnist, 2_000),
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
    recipe = f"benchmarks/handwritten.py, {arguments.epochs} epochs, "
    recipe += (
        f"{arguments.teachers} teachers of {arguments.teacher_epochs} epochs"
    )
    if arguments.start:
        recipe = read_preset(arguments.start).card["recipe"]
    recipe += f"; {arguments.ground_epochs} epochs on other ground"
    card = {
        "dataset": "MNIST, optdigits (https://doi.org/10.24432/C50P49, CC BY "
        "4.0), and drawings of benchmarks/drawings.py",
        "training_images": len(mnist[0]) + len(optdigits[0]),
        "recipe": recipe,
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
