"""Times the cookbook's whole run, including compilation and evaluations.

The recipe "Implementing a simple CNN" (Machine Learning Using TensorFlow
Cookbook) makes 300 training steps of 100 random images of MNIST, and evaluates
on 500 random test images every 5 steps. Its loop calls `train_on_batch` and
`evaluate`. It is compared with `fit` of `LeNet5` with `HeldOutEvaluation`. Each
repetition runs in a new process, and the subjects take turns. One time starts
when Keras and the data are loaded, another when the process starts.

    python benchmarks/cookbook.py --data mnist
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from options import add_data
from subjects import plain_layers

STEPS, BATCH_SIZE, EVAL_EVERY, EVAL_SIZE = 300, 100, 5, 500
SUBJECTS = {
    "the recipe's loop, tensorflow": "tensorflow",
    "fit, tensorflow": "tensorflow",
    "fit, jax": "jax",
}


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        print(json.dumps(work(arguments.worker, arguments.data)))
        return
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in SUBJECTS}
    for _ in range(arguments.repetitions):
        for name, results in runs.items():
            results.append(run(name, arguments.data))
    loop = next(iter(runs.values()))
    print(
        "| subject | seconds | ratio | with the start of the process | ratio "
        "| n |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name, results in runs.items():
        cells = []
        for index in range(2):
            took = [result[index] for result in results]
            ratios = [
                ours[index] / theirs[index]
                for ours, theirs in zip(results, loop, strict=True)
            ]
            cells += [
                f"{statistics.median(took):.1f} "
                f"({min(took):.1f} to {max(took):.1f})",
                f"{statistics.median(ratios):.2f}",
            ]
        print(f"| {name} | {' | '.join(cells)} | {len(results)} |")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time the cookbook's 300 steps and 60 evaluations, as a "
        "loop and with `fit`."
    )
    add_data(parser)
    parser.add_argument(
        "--repetitions",
        type=int,
        default=5,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(name: str, data: str) -> tuple[float, float]:
    """Returns the seconds without and with the start of the process."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, __file__, "--worker", name, "--data", data],
        env={**os.environ, "KERAS_BACKEND": SUBJECTS[name]},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    took = time.perf_counter() - start
    return float(json.loads(process.stdout.splitlines()[-1])), took


def work(name: str, data: str) -> float:
    import keras
    import numpy as np

    from keras_lenet import HeldOutEvaluation, LeNet5
    from keras_lenet.datasets import load_data

    (x_train, y_train), (x_test, y_test) = load_data(data)
    start = time.perf_counter()
    keras.utils.set_random_seed(98)
    generator = np.random.default_rng(98)
    options: dict[str, Any] = {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }
    if name.startswith("fit"):
        count = STEPS * BATCH_SIZE
        chosen = generator.permutation(len(x_train))[:count]
        model = LeNet5()
        model.compile(**options)
        held_out = HeldOutEvaluation(
            (x_test, y_test), freq=EVAL_EVERY, sample_size=EVAL_SIZE, seed=98
        )
        model.fit(
            x_train[chosen],
            y_train[chosen],
            batch_size=BATCH_SIZE,
            callbacks=[held_out],
            verbose=0,
        )
        assert len(held_out.history["step"]) == STEPS // EVAL_EVERY
        return time.perf_counter() - start

    model = keras.Sequential(
        [keras.Input((32, 32, 1)), *plain_layers(padding="valid")]
    )
    model.compile(**options)
    border = ((0, 0), (2, 2), (2, 2), (0, 0))
    x_train = np.pad(x_train, border) / np.float32(255)
    x_test = np.pad(x_test, border) / np.float32(255)
    for step in range(1, STEPS + 1):
        chosen = generator.choice(len(x_train), BATCH_SIZE)
        model.train_on_batch(x_train[chosen], y_train[chosen])
        if step % EVAL_EVERY == 0:
            chosen = generator.choice(len(x_test), EVAL_SIZE)
            model.evaluate(x_test[chosen], y_test[chosen], verbose=0)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
