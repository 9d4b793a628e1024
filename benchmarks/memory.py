"""Measures the memory that an epoch of `fit` on MNIST adds.

Each repetition runs in a new process, which first loads the data and compiles
the model. *First step* is the growth of peak resident memory while `fit` trains
on one batch, including compilation. *Epoch* is the peak above the resident
memory after it, while `fit` trains on all images. Needs Linux.

    python benchmarks/memory.py --data mnist
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from options import add_data
from subjects import plain_layers

BACKENDS = ("tensorflow", "jax", "torch")
NETWORKS = ("LeNet5", "Sequential")


def main() -> None:
    arguments = parse_arguments()
    if arguments.worker:
        print(json.dumps(work(arguments)))
        return
    print(
        f"Batches of {arguments.batch_size}, MiB, n = {arguments.repetitions}"
        "\n\n| subject | first step | epoch | both |\n| --- | --- | --- | --- |"
    )
    for backend in BACKENDS:
        for network in NETWORKS:
            runs = [
                run(backend, network, arguments)
                for _ in range(arguments.repetitions)
            ]
            cells = [
                f"{statistics.median(values):.0f} "
                f"({min(values):.0f} to {max(values):.0f})"
                for values in zip(*runs, strict=True)
            ]
            print(f"| {network}, {backend} | {' | '.join(cells)} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the memory that an epoch of `fit` on MNIST adds."
    )
    add_data(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=125,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=5,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(
    backend: str, network: str, arguments: argparse.Namespace
) -> tuple[float, float, float]:
    process = subprocess.run(
        [
            *(sys.executable, __file__, "--worker", network),
            *("--data", arguments.data),
            *("--batch-size", str(arguments.batch_size)),
        ],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    step, epoch, both = json.loads(process.stdout.splitlines()[-1])
    return step, epoch, both


def work(arguments: argparse.Namespace) -> tuple[float, float, float]:
    import keras

    from keras_lenet import LeNet5
    from keras_lenet.datasets import load_data

    (images, labels), _ = load_data(arguments.data)
    if arguments.worker == "LeNet5":
        model = LeNet5()
    else:
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
    size = arguments.batch_size
    before, _ = memory()
    model.fit(images[:size], labels[:size], batch_size=size, verbose=0)
    resident, peak = memory()
    # Reset the peak.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    model.fit(images, labels, batch_size=size, verbose=0)
    _, later_peak = memory()
    return peak - before, later_peak - resident, max(peak, later_peak) - before


def memory() -> tuple[float, float]:
    """Returns the current and the peak resident memory in MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    values = dict(line.split(":", 1) for line in text.splitlines())
    resident, peak = (
        int(values[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM")
    )
    return resident, peak


if __name__ == "__main__":
    main()
