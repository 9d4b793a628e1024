"""Measures what trackers add to an epoch of `fit`.

Every run trains one epoch of the digits of scikit-learn in batches of 10,
repeated to 6,000 images: 600 steps. The subjects take turns in one process,
after a run each that compiles. *Evaluations* are 60 evaluations of 100 images
by `HeldOutEvaluation`, *pictures* 6 pictures by `SamplePredictions`.

    KERAS_BACKEND=jax python benchmarks/trackers.py
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet import (
    HeldOutEvaluation,
    LeNet5,
    SamplePredictions,
    datasets,
)
from keras_lenet.trackers import CSVTracker, TensorBoardTracker

STEPS = 600
BATCH_SIZE = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure what trackers add to an epoch of `fit`."
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=5,
        metavar="N",
        help="number of timed rounds (default: %(default)s)",
    )
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as folder:
        measure(make_subjects(Path(folder)), repetitions)


def make_subjects(folder: Path) -> dict[str, Callable[[], list[Any]]]:
    _, (x_test, y_test) = datasets.load_data("digits")

    def evaluations() -> list[Any]:
        return [HeldOutEvaluation((x_test, y_test), 10, sample_size=100)]

    def pictures() -> list[Any]:
        path = str(folder / "{step}.png")
        return [SamplePredictions(x_test[:6], y_test[:6], 100, path)]

    def trackers() -> list[Any]:
        return [TensorBoardTracker(folder / "ours"), CSVTracker(folder / "csv")]

    subjects = {
        "no callbacks": list,
        "evaluations": evaluations,
        "evaluations, trackers": lambda: [*evaluations(), *trackers()],
        "evaluations, pictures": lambda: [*evaluations(), *pictures()],
        "evaluations, pictures, trackers": lambda: [
            *evaluations(),
            *pictures(),
            *trackers(),
        ],
    }
    if keras.backend.backend() == "tensorflow":
        subjects["keras.callbacks.TensorBoard"] = lambda: [
            keras.callbacks.TensorBoard(folder / "keras")
        ]
    return subjects


def measure(
    subjects: dict[str, Callable[[], list[Any]]], repetitions: int
) -> None:
    (x_train, y_train), _ = datasets.load_data("digits")
    chosen = np.arange(STEPS * BATCH_SIZE) % len(x_train)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for repetition in range(repetitions + 1):
        for name, make_callbacks in subjects.items():
            callbacks = make_callbacks()
            start = time.perf_counter()
            model.fit(
                x_train[chosen],
                y_train[chosen],
                batch_size=BATCH_SIZE,
                verbose=0,
                callbacks=callbacks,
            )
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    print(
        f"{keras.backend.backend()}, n = {repetitions}\n\n"
        "| callbacks | seconds | ratio | to |\n| --- | --- | --- | --- |"
    )
    for name, values in seconds.items():
        to = name.removesuffix(", trackers") if "," in name else "no callbacks"
        if name == "evaluations, pictures":
            to = "evaluations"
        ratios = [a / b for a, b in zip(values, seconds[to], strict=True)]
        print(
            f"| {name} | {statistics.median(values):.2f} "
            f"| {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {to} |"
        )


if __name__ == "__main__":
    main()
