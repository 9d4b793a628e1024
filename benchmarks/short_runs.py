"""Times short runs, which consist mostly of compiling.

Each process trains three new models, one after the other, on the 1,437 training
digits of scikit-learn: 5 epochs, batches of 32, validation after each epoch.
The time includes making and compiling the model. `LeNet5` and plain Keras'
layers take turns.

    python benchmarks/short_runs.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from subjects import plain_layers

BACKENDS = ("tensorflow", "jax", "torch")
MODELS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--repetitions", type=int, default=5, metavar="N")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.worker)))
        return
    print(
        "| backend | model | LeNet5, s | plain Keras, s | ratio | quartiles "
        "| LeNet5 ÷ its first | n |\n| --- | --- | --- | --- | --- | --- | --- "
        "| --- |"
    )
    for backend in arguments.backends:
        rounds = [
            (run("ours", backend), run("plain", backend))
            for _ in range(arguments.repetitions)
        ]
        for index in range(MODELS):
            ours, plain, ratios, firsts = zip(
                *(
                    (a[index], b[index], a[index] / b[index], a[index] / a[0])
                    for a, b in rounds
                ),
                strict=True,
            )
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(
                f"| {backend} | {index + 1} | {statistics.median(ours):.2f} "
                f"| {statistics.median(plain):.2f} | {middle:.2f} "
                f"| {low:.2f} to {high:.2f} | {statistics.median(firsts):.2f} "
                f"| {len(rounds)} |",
                flush=True,
            )


def run(subject: str, backend: str) -> list[float]:
    """Returns the seconds for each model of a new process."""
    process = subprocess.run(
        [sys.executable, __file__, "--worker", subject],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return list(json.loads(process.stdout.splitlines()[-1]))


def work(subject: str) -> list[float]:
    import keras

    from keras_lenet import LeNet5
    from keras_lenet.datasets import load_data

    (x_train, y_train), validation = load_data("digits")
    seconds = []
    for seed in range(MODELS):
        start = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model: Any = LeNet5()
        if subject == "plain":
            layers = keras.layers
            model = keras.Sequential(
                [
                    keras.Input((28, 28, 1)),
                    layers.ZeroPadding2D(2),
                    layers.Rescaling(1 / 255),
                    *plain_layers(padding="valid"),
                ]
            )
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        model.fit(
            x_train,
            y_train,
            batch_size=32,
            epochs=5,
            validation_data=validation,
            verbose=0,
        )
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
