"""Measures the time to reach 99 % accuracy on MNIST.

The plain recipe is what people write: Keras' `Sequential`, Adam with its
defaults, arrays in batches of 128. Ours is `LeNet5` with `recipes.fast`. Both
train on all 60,000 images for a fixed number of epochs. Evaluation on the test
images is not timed. Our settings and epochs were chosen on 5,000 held-out
training images.

Each subject runs in its own process, and they take turns seed by seed. *Cold*
is the time from the start of the process, including imports, loading the data
and compilation. *Hot* is the time of `fit` alone, once compiled. The time of a
subject ends with the first epoch whose mean accuracy over all seeds reaches the
threshold, or else with the last epoch.

    python benchmarks/time_to_accuracy.py --data mnist
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from options import add_data
from subjects import plain_layers

THRESHOLD = 0.99
# Name: backend, batch size, epochs.
SUBJECTS = {
    "plain, tensorflow": ("tensorflow", 128, 10),
    "ours, tensorflow": ("tensorflow", 125, 1),
    "ours, jax": ("jax", 125, 1),
}


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        work(arguments.worker, arguments.data)
        return
    workers = {
        name: Worker(name, arguments.data) for name in arguments.subjects
    }
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for seed in range(arguments.seeds):
        for name, worker in workers.items():
            records[name].append(worker.train(seed))
            last = records[name][-1]
            print(
                f"{name}, seed {seed}: {last['accuracies'][-1]:.2%} after "
                f"{sum(last['seconds']):.1f} s",
                file=sys.stderr,
            )
    for worker in workers.values():
        worker.close()
    print_table(records)
    if arguments.output:
        lines = [
            json.dumps({"subject": name, **record}) + "\n"
            for name, runs in records.items()
            for record in runs
        ]
        arguments.output.write_text("".join(lines), encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the seconds until LeNet-5 reaches 99 % on "
        "MNIST's test images, with a plain recipe and with ours."
    )
    add_data(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        default=10,
        metavar="N",
        help="number of seeds (default: %(default)s)",
    )
    parser.add_argument(
        "--subjects",
        nargs="+",
        choices=SUBJECTS,
        default=list(SUBJECTS),
        metavar="NAME",
        help="default: " + "; ".join(SUBJECTS),
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write JSON lines to FILE"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


class Worker:
    """A process that trains with each seed it gets."""

    def __init__(self, name: str, data: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--data", data],
            env={**os.environ, "KERAS_BACKEND": SUBJECTS[name][0]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # The process imports nothing until it gets a seed.
        self._started = False

    def train(self, seed: int) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        start = time.perf_counter()
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a subject has failed; run it with `--worker`")
        record: dict[str, Any] = json.loads(line)
        if not self._started:
            # Subtract the evaluations.
            took = time.perf_counter() - start
            record["cold_seconds"] = took - record["not_training"]
            self._started = True
        return record

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def work(name: str, data: str) -> None:
    """Trains with each seed on standard input, and prints lines of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    training: Any = None
    for line in sys.stdin:
        if training is None:
            training = Training(name, data)
        answers.write(json.dumps(training.run(int(line))) + "\n")
        answers.flush()


class Training:
    """Trains the same compiled model repeatedly, from new weights."""

    def __init__(self, name: str, data: str) -> None:
        import keras

        from keras_lenet.datasets import load_data

        _, self.batch_size, self.epochs = SUBJECTS[name]
        self.ours = name.startswith("ours")
        (self.x_train, self.y_train), (self.x_test, self.y_test) = load_data(
            data
        )
        self.model = self.make_model()
        optimizer = self.model.optimizer
        optimizer.build(self.model.trainable_variables)
        self.fresh_optimizer = [
            keras.ops.convert_to_numpy(v) for v in optimizer.variables
        ]

    def make_model(self) -> Any:
        import keras

        from keras_lenet import LeNet5, recipes

        if self.ours:
            model = LeNet5()
            steps = self.epochs * -(-len(self.x_train) // self.batch_size)
            model.compile(**recipes.fast(steps))
            return model
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Rescaling(1 / 255),
                *plain_layers(padding="same"),
            ]
        )
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    def run(self, seed: int) -> dict[str, Any]:
        import keras

        keras.utils.set_random_seed(seed)
        fresh = self.make_model()
        self.model.set_weights(fresh.get_weights())
        optimizer = self.model.optimizer
        for variable, value in zip(
            optimizer.variables, self.fresh_optimizer, strict=True
        ):
            variable.assign(value)
        seconds, accuracies, not_training = [], [], 0.0
        for _ in range(self.epochs):
            start = time.perf_counter()
            self.model.fit(
                self.x_train,
                self.y_train,
                batch_size=self.batch_size,
                verbose=0,
            )
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            outputs = self.model.predict(
                self.x_test, batch_size=1000, verbose=0
            )
            right = outputs.argmax(axis=1) == self.y_test
            accuracies.append(float(right.mean()))
            not_training += time.perf_counter() - start
        return {
            "seed": seed,
            "seconds": seconds,
            "accuracies": accuracies,
            "not_training": not_training,
        }


def print_table(records: dict[str, list[dict[str, Any]]]) -> None:
    print(
        "| subject | epochs | mean | standard deviation | worst | hot "
        "| cold | n |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, runs in records.items():
        epochs = epochs_needed(runs)
        reached = [run["accuracies"][epochs - 1] for run in runs]
        spread = statistics.stdev(reached) if len(reached) > 1 else 0.0
        # Leave out the first run, which compiles.
        hot = [sum(run["seconds"][:epochs]) for run in runs[1:] or runs]
        left_out = sum(runs[0]["seconds"][epochs:])
        print(
            f"| {name} | {epochs} | {statistics.mean(reached):.2%} "
            f"| {spread * 100:.2f} | {min(reached):.2%} "
            f"| {statistics.median(hot):.1f} s "
            f"| {runs[0]['cold_seconds'] - left_out:.1f} s | {len(runs)} |"
        )


def epochs_needed(runs: list[dict[str, Any]]) -> int:
    """Returns the epochs until the mean reaches the threshold, or all."""
    means = [
        statistics.mean(accuracies)
        for accuracies in zip(*(run["accuracies"] for run in runs), strict=True)
    ]
    for epoch, mean in enumerate(means, start=1):
        if mean >= THRESHOLD:
            return epoch
    return len(means)


if __name__ == "__main__":
    main()
