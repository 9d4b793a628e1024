"""Measures how many images a second LeNet-5 trains on, evaluates, predicts.

Every figure is the median of several repetitions after one that is thrown
away, which compiles; how long that one took is reported apart. A repetition
goes through the images as often as it takes to last 0.2 seconds. Training
includes shuffling, gathering, padding, rescaling and the optimizer. A product
of matrices, timed before and after, shows whether the machine drifted.

    python benchmarks/throughput.py --backend jax --output results.jsonl
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH_SIZES = (32, 125, 250, 1000)
LEAST_SECONDS = 0.2


def main() -> None:
    arguments = parse_arguments()
    if arguments.backend:
        os.environ["KERAS_BACKEND"] = arguments.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    environment = describe_environment()
    images, labels = make_data(arguments.images)

    before = matrix_gflops()
    records = [
        {"batch_size": batch_size, **record}
        for batch_size in arguments.batch_sizes
        for record in measure(images, labels, batch_size, arguments.repetitions)
    ]
    environment["matrix_gflops"] = [before, matrix_gflops()]

    print_table(environment, records)
    if arguments.output:
        lines = [
            json.dumps({**environment, **record}) + "\n" for record in records
        ]
        arguments.output.write_text("".join(lines), encoding="utf-8")
        print(f"wrote {arguments.output}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the images a second of LeNet-5's `fit`, "
        "`evaluate` and `predict` on the device there is."
    )
    parser.add_argument(
        "--backend",
        choices=("tensorflow", "jax", "torch"),
        help="what Keras computes with (default: Keras' own choice)",
    )
    parser.add_argument(
        "--batch-sizes",
        type=positive_integer,
        nargs="+",
        default=BATCH_SIZES,
        metavar="N",
        help="default: " + " ".join(map(str, BATCH_SIZES)),
    )
    parser.add_argument(
        "--repetitions",
        type=positive_integer,
        default=5,
        metavar="N",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--images",
        type=positive_integer,
        default=10_000,
        metavar="N",
        help="how many images there are (default: %(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write JSON lines here"
    )
    arguments = parser.parse_args()
    if arguments.output and not arguments.output.parent.is_dir():
        parser.error(f"--output: there is no folder {arguments.output.parent}")
    return arguments


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, not {value}")
    return value


def make_data(count: int) -> Any:
    """Returns real digits, repeated; zeros would take another time."""
    import numpy as np

    from keras_lenet.datasets import load_data

    (images, labels), _ = load_data("digits")
    index = np.arange(count) % len(images)
    return images[index], labels[index]


def measure(
    images: Any, labels: Any, batch_size: int, repetitions: int
) -> list[dict[str, Any]]:
    """Returns a record each for fit, evaluate and predict."""
    import keras

    from keras_lenet import LeNet5
    from keras_lenet.datasets import image_dataset_from_array

    keras.utils.set_random_seed(98)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    if keras.backend.backend() == "tensorflow":
        pipeline = "tf.data"
        train: dict[str, Any] = {
            "x": image_dataset_from_array(
                images, labels, batch_size, shuffle=True, seed=98
            ),
            "shuffle": False,
        }
    else:
        pipeline = "arrays"
        train = {"x": images, "y": labels, "batch_size": batch_size}
    quiet: dict[str, Any] = {"batch_size": batch_size, "verbose": 0}
    subjects: dict[str, Callable[[], Any]] = {
        "fit": lambda: model.fit(**train, verbose=0),
        "evaluate": lambda: model.evaluate(images, labels, **quiet),
        "predict": lambda: model.predict(images, **quiet),
    }
    records = []
    for what, subject in subjects.items():
        first = seconds(subject)
        passes = 1
        while (took := seconds(subject, passes)) < LEAST_SECONDS:
            passes = max(passes + 1, round(passes * LEAST_SECONDS / took))
        speeds = [
            passes * len(images) / seconds(subject, passes)
            for _ in range(repetitions)
        ]
        records.append(
            {
                "what": what,
                "pipeline": pipeline if what == "fit" else "arrays",
                "images_per_second": statistics.median(speeds),
                "repetitions": speeds,
                "first_pass_seconds": first,
            }
        )
    return records


def seconds(subject: Callable[[], Any], passes: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        subject()
    return time.perf_counter() - start


def matrix_gflops(size: int = 2048) -> float:
    import numpy as np

    matrix = np.random.default_rng(0).random((size, size), "float32")
    took = statistics.median(seconds(lambda: matrix @ matrix) for _ in range(5))
    return 2 * size**3 / took / 1e9


def describe_environment() -> dict[str, Any]:
    import keras

    backend = keras.backend.backend()
    return {
        "backend": backend,
        "device": describe_device(backend),
        "processor": processor_name(),
        "processors": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            name: importlib.import_module(name).__version__
            for name in ("keras", "numpy", backend)
        },
        "flags": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("TF_", "XLA_", "OMP_", "JAX_"))
        },
    }


def describe_device(backend: str) -> str:
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(g) for g in gpus]
        names = [d.get("device_name", "GPU") for d in details]
    elif backend == "jax":
        import jax

        names = [d.device_kind for d in jax.devices() if d.platform != "cpu"]
    else:
        import torch

        count = torch.cuda.device_count()
        names = [torch.cuda.get_device_name(i) for i in range(count)]
    return ", ".join(names) or "CPU"


def processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_table(
    environment: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items())
    before, after = environment["matrix_gflops"]
    print(
        f"device: {environment['device']} "
        f"({environment['processors']} x {environment['processor']})\n"
        f"Python {environment['python']}, {versions}, "
        f"backend {environment['backend']}\n"
        f"NumPy's product of matrices: {before:.0f} GFLOP/s before, "
        f"{after:.0f} after\n\n"
        "| what | batch | images a second, median | least to most | n "
        "| first pass |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for record in records:
        speeds = record["repetitions"]
        print(
            f"| {record['what']} ({record['pipeline']}) "
            f"| {record['batch_size']} "
            f"| {record['images_per_second']:,.0f} "
            f"| {min(speeds):,.0f} to {max(speeds):,.0f} "
            f"| {len(speeds)} "
            f"| {record['first_pass_seconds']:.1f} s |"
        )


if __name__ == "__main__":
    main()
