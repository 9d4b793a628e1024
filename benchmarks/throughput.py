"""Compares how fast LeNet-5 trains, evaluates, predicts and answers.

`LeNet5` with Keras' `fit` runs against a plain Keras `Sequential`, against
the same compiled step without `fit` around it ("bare"), and against loops
written by hand in PyTorch, JAX and TensorFlow. What makes it fair:

- All have the same 61,706 weights, start from the same arrays, and see the
  same real images as bytes, in float32, with the same batch size. Threads are
  what a framework takes by default.
- What is timed includes shuffling, gathering, padding, rescaling, Adam and
  waiting for the last result. Keras also calculates the accuracy, and starts
  `fit` anew for every pass over the images; the loops written by hand do not,
  which is in their favour.
- `predict` goes from NumPy to NumPy, and so does the latency of one image.
- Every subject has a process of its own. They take turns, A B A B, in blocks
  of at least 0.2 seconds. First passes, which compile, are timed apart.
- After three passes the mean losses must agree, as must the numbers of
  images. Before training, the losses must agree closely.
- Ratios are taken round by round, to the fastest loop in PyTorch, and the
  median and quartiles are those of the ratios.
- Memory is how much the peak of the resident memory grew after the frameworks
  and the data were there: what compiling took, and what ran before, included.

    python benchmarks/throughput.py --output results.jsonl --plot results.png
"""

import argparse
import contextlib
import functools
import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PARAMETERS = 61_706
# Multiply-adds forward: C1 117,600; C3 240,000; C5 48,000; F6 10,080; output
# 840. Training needs no gradient for the images.
MEGAFLOPS = {"train": 2.26, "evaluate": 0.833, "predict": 0.833}
MEASURES = (*MEGAFLOPS, "latency")
EVALUATION_BATCH_SIZE = 1000
LEAST_SECONDS = 0.2
CHECKED_PASSES = 3
CHECKED_ANSWERS = 100

FULL = {
    "batch_sizes": (32, 125, 250, 1000),
    "images": 10_000,
    "repetitions": 5,
}
QUICK = {
    "subjects": (
        "fit tensorflow",
        "fit jax",
        "fit torch",
        "pytorch eager",
        "pytorch channels-last",
    ),
    "batch_sizes": (125,),
    "images": 5_000,
    "repetitions": 3,
}
GPU_BATCH_SIZE = 4000

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
OnePass = Callable[[], tuple[float, int]]


class LeftOutError(Exception):
    """Says why a subject cannot take part on this machine."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        arrays = Path(folder) / "arrays.npz"
        np.savez(arrays, *initial_arrays(), **options.arrays)
        workers = start_workers(options.subjects, arrays, stack)
        environment = describe_environment(workers)
        if environment["device"] != "CPU" and options.add_gpu_batch_size:
            options.batch_sizes = (*options.batch_sizes, GPU_BATCH_SIZE)
        before = matrix_gflops()
        records = list(compare(workers, options))
        environment["matrix_gflops"] = [before, matrix_gflops()]

    print(describe(environment))
    print(make_tables(records, max(environment["matrix_gflops"])))
    if options.output:
        lines = [json.dumps({**environment, **r}) + "\n" for r in records]
        options.output.write_text("".join(lines), encoding="utf-8")
        report(f"wrote {options.output}")
    if options.plot:
        draw(environment, records).savefig(options.plot, dpi=150)
        report(f"wrote {options.plot}")


# The command line.


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare how fast LeNet-5 trains, evaluates, predicts and "
        "answers: in Keras with `fit`, and in loops written by hand."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="take less than two minutes: few subjects, one batch size, "
        "5,000 images, 3 repetitions",
    )
    parser.add_argument(
        "--subjects",
        nargs="+",
        choices=SUBJECTS,
        metavar="NAME",
        help="what to compare, by default everything: "
        + ", ".join(f"'{name}'" for name in SUBJECTS),
    )
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=MEASURES,
        metavar="NAME",
        help="by default all: " + ", ".join(MEASURES),
    )
    parser.add_argument(
        "--batch-sizes",
        type=positive_integer,
        nargs="+",
        metavar="N",
        help="for training (default: "
        + ", ".join(map(str, FULL["batch_sizes"]))
        + f"; {GPU_BATCH_SIZE} too on a GPU)",
    )
    parser.add_argument(
        "--images",
        type=positive_integer,
        metavar="N",
        help=f"how many there are (default: {FULL['images']:,}); what does "
        "not fill a batch is left out",
    )
    parser.add_argument(
        "--repetitions",
        type=positive_integer,
        metavar="N",
        help=f"how many rounds to time (default: {FULL['repetitions']})",
    )
    parser.add_argument(
        "--data",
        default="digits",
        metavar="DIR",
        help="a folder with MNIST's four IDX files (default: the digits of "
        "scikit-learn, repeated)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write JSON lines here"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw a picture here"
    )
    options = parser.parse_args(arguments)
    options.add_gpu_batch_size = not (options.quick or options.batch_sizes)
    defaults = {"subjects": tuple(SUBJECTS), **FULL}
    for name, value in {**defaults, **(QUICK if options.quick else {})}.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for flag in ("output", "plot"):
        path = getattr(options, flag)
        if path and not path.parent.is_dir():
            parser.error(f"--{flag}: there is no folder {path.parent}")
    if "train" in options.measures and options.images < max(
        options.batch_sizes
    ):
        parser.error(
            f"--images: expected at least one batch of "
            f"{max(options.batch_sizes)}, not {options.images}"
        )
    try:
        options.arrays = load_images(options.data, options.images)
    except ValueError as error:
        parser.error(f"--data: {error}")
    return options


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, not {value}")
    return value


def load_images(data: str, count: int) -> dict[str, Array]:
    """Returns real digits, repeated where there are too few."""
    from keras_lenet.datasets import load_data

    (images, labels), _ = load_data(data)
    if images.shape[1:] != (28, 28, 1):
        raise ValueError(
            f"{data}: expected images of shape (28, 28, 1). "
            f"Received: {images.shape[1:]}."
        )
    index = np.arange(count) % len(images)
    return {"images": images[index], "labels": labels[index]}


def initial_arrays() -> list[Array]:
    """Returns weights in Keras' order and layout, Glorot's and zeros."""
    generator = np.random.default_rng(98)
    arrays = []
    for *window, inputs, outputs in (
        (5, 5, 1, 6),
        (5, 5, 6, 16),
        (400, 120),
        (120, 84),
        (84, 10),
    ):
        limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
        shape = (*window, inputs, outputs)
        kernel = generator.uniform(-limit, limit, shape)
        arrays += [kernel.astype("float32"), np.zeros(outputs, "float32")]
    return arrays


# Where the subjects are told to take turns.


class Worker:
    """The process of a subject: asked a line, it answers a line."""

    def __init__(self, name: str, arrays: Path) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, str(arrays)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TF_CPP_MIN_LOG_LEVEL": "2",
                # Processes share a GPU.
                "TF_FORCE_GPU_ALLOW_GROWTH": "true",
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            },
        )

    @functools.cached_property
    def about(self) -> Any:
        """What the process says, unasked, once it is ready."""
        return self._answer()

    def ask(self, *question: str | int) -> Any:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            tail = "".join(self._errors.readlines()[-20:])
            raise RuntimeError(f"{self.name} failed:\n{tail}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()


def start_workers(
    names: Sequence[str], arrays: Path, stack: contextlib.ExitStack
) -> list[Worker]:
    """Starts all at once, and names those that cannot take part."""
    workers = [Worker(name, arrays) for name in names]
    for worker in workers:
        stack.callback(worker.close)
    for worker in workers:
        if "left_out" in worker.about:
            report(f"left out: {worker.name} ({worker.about['left_out']})")
    return [worker for worker in workers if "left_out" not in worker.about]


def compare(
    workers: Sequence[Worker], options: argparse.Namespace
) -> Iterator[Record]:
    evaluation = (min(EVALUATION_BATCH_SIZE, options.images),)
    batch_sizes = {
        "train": sorted(options.batch_sizes),
        "evaluate": evaluation,
        "predict": evaluation,
        "latency": (1,),
    }
    for measure in options.measures:
        able = [w for w in workers if measure in w.about["measures"]]
        for batch_size in batch_sizes[measure]:
            report(f"{measure}, batches of {batch_size}")
            yield from take_turns(
                able, measure, batch_size, options.repetitions
            )


def take_turns(
    workers: Sequence[Worker], measure: str, batch_size: int, repetitions: int
) -> list[Record]:
    """Returns a record for each worker, one round after the other."""
    records = [
        {
            "subject": worker.name,
            "measure": measure,
            "batch_size": batch_size,
            "parameters": worker.about["parameters"],
            **worker.ask("prepare", measure, batch_size),
        }
        for worker in workers
    ]
    check(records)
    rounds = [
        [worker.ask("run") for worker in workers] for _ in range(repetitions)
    ]
    for record, blocks in zip(records, zip(*rounds, strict=True), strict=True):
        for key in blocks[0]:
            record[key] = [block[key] for block in blocks]
    return records


def check(records: Sequence[Record]) -> None:
    """Raises a `ValueError` when records are not of the same work.

    Args:
        records: Sequence of records of one measure and batch size.
    """
    if not records:
        return
    # Orders differ in training; before it, only the order of summation.
    training = records[0]["measure"] == "train"
    relative, absolute = (0.25, 0.05) if training else (0, 0.005)
    expected = {
        "parameters": PARAMETERS,
        "images": statistics.mode(r["images"] for r in records),
        "loss": float(np.nanmedian([r["loss"] for r in records])),
    }
    for key, value in expected.items():
        odd = [
            f"{record['subject']} {record[key]}"
            for record in records
            if not (
                math.isclose(
                    record[key], value, rel_tol=relative, abs_tol=absolute
                )
                if key == "loss"
                else record[key] == value
            )
        ]
        if odd:
            raise ValueError(
                f"{records[0]['measure']}, batches of "
                f"{records[0]['batch_size']}: expected {key} as the others' "
                f"{value}. Received: {', '.join(odd)}."
            )


def matrix_gflops(size: int = 2048) -> float:
    """Returns what the fastest product of matrices that is at hand reaches."""
    matrix = np.random.default_rng(0).random((size, size), "float32")
    products: list[Callable[[], Any]] = [lambda: matrix @ matrix]
    with contextlib.suppress(ImportError):
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        tensor = torch.from_numpy(matrix).to(device)

        def multiply() -> None:
            tensor @ tensor
            if device == "cuda":
                torch.cuda.synchronize()

        products.append(multiply)
    took = min(
        statistics.median(seconds(product) for _ in range(5))
        for product in products
    )
    return 2 * size**3 / took / 1e9


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def describe_environment(workers: Sequence[Worker]) -> Record:
    devices = {w.about["device"] for w in workers} - {"CPU"}
    versions = {"numpy": np.__version__}
    for worker in workers:
        versions |= worker.about["versions"]
    return {
        "device": ", ".join(sorted(devices)) or "CPU",
        "processor": processor_name(),
        "processors": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "flags": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("TF_", "XLA_", "OMP_", "JAX_"))
        },
    }


def processor_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# Tables and a picture.


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def describe(environment: Record) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in environment["versions"].items())
    before, after = environment["matrix_gflops"]
    return (
        f"{environment['device']}, {environment['processors']} cores "
        f"({environment['processor']}), Python {environment['python']}, "
        f"{versions}. A float32 product of matrices ran at {before:.0f} "
        f"GFLOP/s before and {after:.0f} after."
    )


def make_tables(records: Sequence[Record], gflops: float) -> str:
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        key = record["measure"], record["batch_size"]
        groups.setdefault(key, []).append(record)
    return "\n".join(make_table(group, gflops) for group in groups.values())


def make_table(records: Sequence[Record], gflops: float) -> str:
    """Makes a Markdown table of one measure and batch size.

    Args:
        records: Sequence of records, as of `take_turns`.
        gflops: Number. The roofline in GFLOP/s.
    """
    measure, batch_size = records[0]["measure"], records[0]["batch_size"]
    peers = [r for r in records if r["subject"].startswith("pytorch")]
    peer = max(peers, key=median_speed, default=None)
    count = len(records[0]["images_per_second"])
    if measure == "latency":
        title = f"latency of one image, microseconds, n = {count}"
        columns = ("p50", "p90", "p99")
    else:
        title = (
            f"{measure}, batches of {batch_size}, images a second, n = {count}"
        )
        columns = ("median", "quartiles", "of the roofline")
    rows = [
        (
            "subject",
            *columns,
            f"÷ {peer['subject']}" if peer else "ratio",
            "first pass",
            "memory",
        )
    ]
    rows.append(("---",) * len(rows[0]))
    for record in records:
        if measure == "latency":
            microseconds = np.median(record["microseconds"], axis=0)
            cells = tuple(f"{value:,.0f}" for value in microseconds)
        else:
            low, median, high = quartiles(record["images_per_second"])
            fraction = roofline_fraction(measure, median, gflops)
            cells = f"{median:,.0f}", f"{low:,.0f} to {high:,.0f}"
            cells += (f"{fraction:.1%}",)
        growth = record["memory_growth_mib"]
        rows.append(
            (
                record["subject"],
                *cells,
                describe_ratio(record, peer) if peer else "",
                f"{record['first_seconds']:.1f} s",
                "" if growth is None else f"+{growth:,.0f} MiB",
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(["", f"**{title}**", "", *lines, *fit_overhead(records)])


def fit_overhead(records: Sequence[Record]) -> list[str]:
    """Says how near `fit` comes to a bare loop of the same step."""
    by_name = {record["subject"]: record for record in records}
    lines = [
        f"{fit} ÷ {bare}: {describe_ratio(by_name[fit], by_name[bare])}"
        for fit, bare in (
            (name.replace("bare", "fit"), name)
            for name in by_name
            if name.startswith("bare")
        )
        if fit in by_name
    ]
    return ["", *lines] if lines else []


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = np.percentile(values, (25, 50, 75))
    return float(low), float(median), float(high)


def median_speed(record: Record) -> float:
    return statistics.median(record["images_per_second"])


def describe_ratio(record: Record, peer: Record) -> str:
    speeds = zip(
        record["images_per_second"], peer["images_per_second"], strict=True
    )
    low, median, high = quartiles([ours / theirs for ours, theirs in speeds])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def roofline_fraction(measure: str, speed: float, gflops: float) -> float:
    return speed * MEGAFLOPS[measure] * 1e6 / (gflops * 1e9)


# Of the palette by Okabe and Ito (https://jfly.uni-koeln.de/color/). In grey
# the subjects differ by their markers and dashes.
COLORS = {"tensorflow": "#E69F00", "jax": "#0072B2", "torch": "#D55E00"}
MARKERS = {
    "fit": "o-",
    "sequential": "s--",
    "bare": "D:",
    "loop": "^-.",
    "eager": "v-.",
    "channels-last": "<-.",
    "compile": ">-.",
    "graphs": "P-.",
}


def draw(environment: Record, records: Sequence[Record]) -> Any:
    """Draws the speed in training over the batch size, and the others."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    lines, bars = figure.subplots(1, 2)
    training = by_subject(records, "train")
    for name, own in training.items():
        lines.errorbar(
            [record["batch_size"] for record in own],
            *spread(own),
            label=name,
            fmt=next(MARKERS[key] for key in MARKERS if key in name),
            color=next(COLORS[key] for key in COLORS if key in name),
            capsize=3,
        )
    sizes = sorted({r["batch_size"] for own in training.values() for r in own})
    lines.set_xscale("log")
    lines.set_xticks(sizes, map(str, sizes))
    lines.set_xticks([], minor=True)
    lines.set_ylim(bottom=0)
    lines.set(
        title="Training",
        xlabel="Images in a batch",
        ylabel="Images a second",
    )
    if training:
        # Below, where it covers no line.
        lines.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.12),
            ncols=3,
            fontsize="small",
        )

    names: list[str] = []
    for row, (measure, color, hatch) in enumerate(
        (("predict", COLORS["jax"], ""), ("evaluate", COLORS["torch"], "//"))
    ):
        measured = by_subject(records, measure)
        names += [name for name in measured if name not in names]
        middle, errors = spread([own for (own,) in measured.values()])
        bars.barh(
            [names.index(name) + 0.4 * (row - 0.5) for name in measured],
            middle,
            0.4,
            xerr=errors,
            label=measure,
            color=color,
            hatch=hatch,
            edgecolor="black",
        )
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    bars.set(title="Prediction and evaluation", xlabel="Images a second")
    bars.legend()
    figure.suptitle(
        f"LeNet-5 on {environment['device']}, {environment['processors']} "
        f"cores of {environment['processor']}: medians and quartiles",
        fontsize="medium",
    )
    return figure


def by_subject(
    records: Sequence[Record], measure: str
) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record["measure"] == measure:
            groups.setdefault(record["subject"], []).append(record)
    return groups


def spread(records: Sequence[Record]) -> tuple[list[float], Array]:
    """Returns medians and how far the quartiles are from them."""
    values = [quartiles(r["images_per_second"]) for r in records]
    errors = [(mid - low, high - mid) for low, mid, high in values]
    return [mid for _, mid, _ in values], np.reshape(errors, (-1, 2)).T


# Inside the process of a subject.


def work(name: str, path: str) -> None:
    """Answers questions on standard input with lines of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # Libraries may print; that must not get between the answers.
    os.dup2(2, 1)

    def answer(content: Record) -> None:
        answers.write(json.dumps(content) + "\n")

    with np.load(path) as file:
        images, labels = file["images"], file["labels"]
        weights = [file[f"arr_{i}"] for i in range(len(file.files) - 2)]
    try:
        subject = SUBJECTS[name](images, labels, weights)
    except (ImportError, LeftOutError) as error:
        answer({"left_out": str(error)})
        return
    versions = {
        framework: importlib.import_module(framework).__version__
        for framework in subject.frameworks
    }
    answer(
        {
            "device": subject.device(),
            "measures": subject.measures,
            "parameters": subject.count_parameters(),
            "versions": versions,
        }
    )
    memory = peak_memory()
    block: Any = None
    for line in sys.stdin:
        action, *details = json.loads(line)
        if action == "prepare":
            prepared, block = prepare(subject, *details)
            growth = memory and peak_memory() - memory
            answer({**prepared, "memory_growth_mib": growth})
        else:
            answer(block())


def prepare(
    subject: "Subject", measure: str, batch_size: int
) -> tuple[Record, Callable[[], Record]]:
    """Compiles, and returns what to check and what to time."""
    count = whole_batches(subject.images, batch_size)
    start = time.perf_counter()
    function = getattr(subject, measure)(batch_size)
    result = (
        function(subject.images[:1]) if measure == "latency" else function()
    )
    record = {
        "first_seconds": time.perf_counter() - start,
        "images": count,
    }
    if measure == "train":
        for _ in range(CHECKED_PASSES - 1):
            result = function()
        record["loss"], steps = result
        record["images"] = steps * batch_size
    elif measure == "evaluate":
        record["loss"] = result
    else:
        if measure == "latency":
            images = subject.images[:CHECKED_ANSWERS]
            result = np.concatenate([function(i[np.newaxis]) for i in images])
        record["images"] = len(result)
        record["loss"] = cross_entropy(result, subject.labels[: len(result)])
    if measure == "latency":
        return record, lambda: time_answers(function, subject.images)
    return record, lambda: time_passes(function, count)


def cross_entropy(probabilities: Array, labels: Array) -> float:
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(chosen).mean())


def time_passes(function: Callable[[], Any], count: int) -> Record:
    start, passes, took = time.perf_counter(), 0, 0.0
    while took < LEAST_SECONDS:
        function()
        passes += 1
        took = time.perf_counter() - start
    return {"images_per_second": passes * count / took}


def time_answers(function: Callable[[Array], Any], images: Array) -> Record:
    took: list[float] = []
    while sum(took) < LEAST_SECONDS or len(took) < 100:
        image = images[len(took) % len(images)][np.newaxis]
        took.append(seconds(lambda image=image: function(image)))
    percentiles = np.percentile(took, (50, 90, 99)) * 1e6
    return {
        "images_per_second": float(1e6 / percentiles[0]),
        "microseconds": percentiles.tolist(),
    }


def peak_memory() -> Any:
    """Returns how many MiB have been resident at most, `None` if unknown."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def whole_batches(images: Array, batch_size: int) -> int:
    return len(images) // batch_size * batch_size


DEVICES: dict[str, Callable[[Any], list[str]]] = {
    "tensorflow": lambda tf: [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ],
    "jax": lambda jax: [
        device.device_kind
        for device in jax.devices()
        if device.platform != "cpu"
    ],
    "torch": lambda torch: [
        torch.cuda.get_device_name(index)
        for index in range(torch.cuda.device_count())
    ],
}


class Subject:
    """What is compared: the same network and data, another way to run them.

    Subclasses have `train`, which takes a batch size and returns a function
    that goes through the data once and returns the mean loss and the number
    of steps since the start; and most have `answer`, which returns a function
    of bytes that returns probabilities, both as NumPy arrays.
    """

    frameworks: tuple[str, ...]
    measures: tuple[str, ...] = MEASURES

    def __init__(
        self, images: Array, labels: Array, weights: list[Array]
    ) -> None:
        self.images, self.labels, self.weights = images, labels, weights
        self.generator = np.random.default_rng(98)

    def device(self) -> str:
        framework = self.frameworks[-1]
        names = DEVICES[framework](importlib.import_module(framework))
        return ", ".join(names) or "CPU"

    def count_parameters(self) -> int:
        return sum(array.size for array in self.weights)

    def batches(self, batch_size: int) -> Array:
        """Returns the indices of one pass's batches in a new order."""
        count = whole_batches(self.images, batch_size)
        order = self.generator.permutation(count).astype("int32")
        return order.reshape(-1, batch_size)

    def data(self, batch_size: int) -> tuple[Array, Array]:
        count = whole_batches(self.images, batch_size)
        return self.images[:count], self.labels[:count]

    def answer(self) -> Callable[[Array], Array]:
        raise NotImplementedError

    def predict(self, batch_size: int) -> Callable[[], Array]:
        answer = self.answer()
        images, _ = self.data(batch_size)
        batches = images.reshape(-1, batch_size, *images.shape[1:])
        return lambda: np.concatenate([answer(batch) for batch in batches])

    def evaluate(self, batch_size: int) -> Callable[[], float]:
        predict = self.predict(batch_size)
        _, labels = self.data(batch_size)
        return lambda: cross_entropy(predict(), labels)

    def latency(self, _: int) -> Callable[[Array], Array]:
        return self.answer()


class Keras(Subject):
    """Keras' `fit`, `evaluate` and `predict`."""

    def __init__(self, backend: str, network: str, *data: Any) -> None:
        super().__init__(*data)
        os.environ["KERAS_BACKEND"] = backend
        importlib.import_module(backend)
        self.backend = backend
        self.network = network
        self.frameworks = ("keras", backend)
        self.model = self.build()

    def build(self) -> Any:
        import keras
        from keras import layers

        from keras_lenet import LeNet5

        if self.network == "LeNet5":
            model = LeNet5()
        else:
            model = keras.Sequential(
                [
                    keras.Input((28, 28, 1)),
                    layers.Rescaling(1 / 255),
                    layers.ZeroPadding2D(2),
                    layers.Conv2D(6, 5, activation="relu"),
                    layers.MaxPooling2D(),
                    layers.Conv2D(16, 5, activation="relu"),
                    layers.MaxPooling2D(),
                    layers.Flatten(),
                    layers.Dense(120, activation="relu"),
                    layers.Dense(84, activation="relu"),
                    layers.Dense(10, activation="softmax"),
                ]
            )
        model.set_weights(self.weights)
        model.compile(
            "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    def count_parameters(self) -> int:
        return int(self.model.count_params())

    def train(self, batch_size: int) -> OnePass:
        model = self.build()
        images, labels = self.data(batch_size)
        given: dict[str, Any]
        if self.backend == "tensorflow":
            from keras_lenet.datasets import image_dataset_from_array

            dataset = image_dataset_from_array(
                images, labels, batch_size, shuffle=True, seed=98
            )
            given = {"x": dataset, "shuffle": False}
        else:
            given = {"x": images, "y": labels, "batch_size": batch_size}

        def one_pass() -> tuple[float, int]:
            history = model.fit(**given, verbose=0).history
            return history["loss"][-1], int(model.optimizer.iterations)

        return one_pass

    def evaluate(self, batch_size: int) -> Callable[[], float]:
        model = self.build()
        images, labels = self.data(batch_size)
        return lambda: model.evaluate(
            images, labels, batch_size=batch_size, verbose=0
        )[0]

    def predict(self, batch_size: int) -> Callable[[], Array]:
        model = self.build()
        images, _ = self.data(batch_size)
        return lambda: model.predict(images, batch_size=batch_size, verbose=0)

    def answer(self) -> Callable[[Array], Array]:
        model = self.build()
        if self.backend == "tensorflow":
            import tensorflow as tf

            function = tf.function(lambda image: model(image, training=False))
            return lambda image: function(tf.constant(image)).numpy()
        if self.backend == "jax":
            import jax

            function = jax.jit(lambda image: model(image, training=False))
            return lambda image: np.asarray(function(image))
        import torch

        @torch.inference_mode()
        def respond(image: Array) -> Array:
            return model(image, training=False).cpu().numpy()

        return respond


class Bare(Keras):
    """The step that `LeNet5.fit` compiles, without `fit` around it."""

    measures = ("train",)

    def __init__(self, backend: str, *data: Any) -> None:
        super().__init__(backend, "LeNet5", *data)
        if backend == "tensorflow" and self.device() != "CPU":
            raise LeftOutError("on a GPU Keras' own step reads from tf.data")

    def build(self) -> Any:
        model = super().build()
        # Makes the variables of the metrics.
        model.evaluate(self.images[:1], self.labels[:1], verbose=0)
        model.optimizer.build(model.trainable_variables)
        return model

    def train(self, batch_size: int) -> OnePass:
        self.model = self.build()
        self.model.reset_metrics()
        if self.backend == "tensorflow":
            return self.train_in_tensorflow(batch_size)
        return self.train_in_jax(batch_size)

    def train_in_tensorflow(self, batch_size: int) -> OnePass:
        import tensorflow as tf

        model = self.model
        model.steps_per_execution = len(self.images) // batch_size
        function = model.make_train_function()
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def one_pass() -> tuple[float, int]:
            model.reset_metrics()
            logs = function(
                (tf.gather(images, index), tf.gather(labels, index))
                for index in tf.constant(self.batches(batch_size))
            )
            return float(logs["loss"]), int(model.optimizer.iterations)

        return one_pass

    def train_in_jax(self, batch_size: int) -> OnePass:
        import jax

        model = self.model
        images, labels = jax.device_put((self.images, self.labels))

        def values(variables: Any) -> Any:
            return [jax.numpy.array(variable.value) for variable in variables]

        state = (
            values(model.trainable_variables),
            values(model.non_trainable_variables),
            values(model.optimizer.variables),
        )
        zeros = [np.asarray(v.value) for v in model.metrics_variables]

        @functools.partial(jax.jit, donate_argnums=0)
        def loop(state: Any, metrics: Any, order: Any) -> Any:
            def step(state: Any, index: Any) -> Any:
                logs, state = model.train_step(
                    state, (images[index], labels[index])
                )
                return state, logs["loss"]

            (*state, _), losses = jax.lax.scan(step, (*state, metrics), order)
            return tuple(state), losses[-1]

        def one_pass() -> tuple[float, int]:
            nonlocal state
            state, loss = loop(state, zeros, self.batches(batch_size))
            return float(loss), int(state[2][0])

        return one_pass


class PyTorch(Subject):
    """The usual network and loop, written by hand."""

    frameworks = ("torch",)

    def __init__(self, variant: str, *data: Any) -> None:
        super().__init__(*data)
        import torch

        self.variant = variant
        self.on = "cuda" if torch.cuda.is_available() else "cpu"
        if variant == "cuda graphs" and self.on == "cpu":
            raise LeftOutError("no GPU that PyTorch can use")
        self.all_images = torch.from_numpy(self.images).to(self.on)
        self.all_images = self.all_images.permute(0, 3, 1, 2).contiguous()
        self.all_labels = torch.from_numpy(self.labels).to(self.on)
        self.model = self.build()
        if variant in ("compile", "cuda graphs"):
            try:
                self.compile(lambda x: x + 1)(torch.ones(2, device=self.on))
            except Exception as error:
                raise LeftOutError(f"torch.compile: {error}") from error

    def build(self) -> Any:
        import torch
        from torch import nn

        model = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
            nn.Linear(84, 10),
        )
        for parameter, array in zip(
            model.parameters(), self.weights, strict=True
        ):
            if array.shape == (400, 120):
                # Maps come first here.
                array = array.reshape(25, 16, 120).swapaxes(0, 1)
                array = array.reshape(400, 120)
            axes = (3, 2, 0, 1) if array.ndim == 4 else None
            with torch.no_grad():
                parameter.copy_(torch.tensor(array.transpose(axes)))
        if self.variant == "channels-last":
            model.to(memory_format=torch.channels_last)
        self.model = model.to(self.on)
        return self.model

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        import torch

        torch.compiler.reset()
        if self.variant == "compile":
            return torch.compile(function, dynamic=False)
        if self.variant == "cuda graphs":
            return torch.compile(function, mode="reduce-overhead")
        return function

    def logits(self, images: Any) -> Any:
        return self.model(images.float().div_(255))

    def count_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def train(self, batch_size: int) -> OnePass:
        import torch
        from torch.nn.functional import cross_entropy

        first, *_ = parameters = list(self.build().parameters())
        optimizer = torch.optim.Adam(
            parameters,
            eps=1e-7,
            foreach=self.on == "cpu",
            fused=self.on == "cuda",
        )
        loss_of = self.compile(
            lambda images, labels: cross_entropy(self.logits(images), labels)
        )
        count = whole_batches(self.images, batch_size)

        def one_pass() -> tuple[float, int]:
            total = torch.zeros((), device=self.on)
            order = torch.randperm(count, device=self.on)
            for index in order.split(batch_size):
                torch.compiler.cudagraph_mark_step_begin()
                optimizer.zero_grad()
                loss = loss_of(self.all_images[index], self.all_labels[index])
                loss.backward()
                optimizer.step()
                total += loss.detach()
            steps = int(optimizer.state[first]["step"])
            return float(total) * batch_size / count, steps

        return one_pass

    def answer(self) -> Callable[[Array], Array]:
        import torch

        self.build()
        probabilities = self.compile(lambda x: self.logits(x).softmax(1))

        @torch.inference_mode()
        def respond(images: Array) -> Array:
            x = torch.from_numpy(images).to(self.on).permute(0, 3, 1, 2)
            return probabilities(x).cpu().numpy()

        return respond


class Jax(Subject):
    """A compiled step of ordinary convolutions, its state donated."""

    frameworks = ("jax",)

    @staticmethod
    def logits(weights: Any, images: Any) -> Any:
        import jax
        from jax import lax

        x = images.astype("float32") / 255
        for layer, padding in ((0, 2), (2, 0)):
            x = lax.conv_general_dilated(
                x,
                weights[layer],
                (1, 1),
                2 * [(padding, padding)],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x + weights[layer + 1])
            window = (1, 2, 2, 1)
            x = lax.reduce_window(x, -np.inf, lax.max, window, window, "VALID")
        x = x.reshape(len(x), -1)
        for layer in (4, 6, 8):
            x = x @ weights[layer] + weights[layer + 1]
            x = jax.nn.relu(x) if layer < 8 else x
        return x

    @classmethod
    def loss(cls, weights: Any, images: Any, labels: Any) -> Any:
        import jax

        logs = jax.nn.log_softmax(cls.logits(weights, images))
        return -jax.numpy.take_along_axis(logs, labels[:, None], 1).mean()

    def train(self, batch_size: int) -> OnePass:
        import jax
        from jax import numpy as jnp

        images, labels = jax.device_put((self.images, self.labels))

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: Any, images: Any, labels: Any, index: Any) -> Any:
            weights, first, second, count, total = state
            loss, gradients = jax.value_and_grad(self.loss)(
                weights, images[index], labels[index]
            )
            count += 1
            rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            new = []
            for w, m, v, g in zip(
                weights, first, second, gradients, strict=True
            ):
                m, v = m + 0.1 * (g - m), v + 0.001 * (g * g - v)
                new.append((w - rate * m / (jnp.sqrt(v) + 1e-7), m, v))
            return (*map(list, zip(*new, strict=True)), count, total + loss)

        zeros = list(map(np.zeros_like, self.weights))
        weights, first, second = map(
            lambda arrays: [jnp.array(array) for array in arrays],
            (self.weights, zeros, zeros),
        )
        state = (weights, first, second, jnp.array(0), jnp.array(0.0))

        def one_pass() -> tuple[float, int]:
            nonlocal state
            state = (*state[:-1], jnp.array(0.0))
            batches = self.batches(batch_size)
            for index in batches:
                state = step(state, images, labels, index)
            return float(state[-1]) / len(batches), int(state[3])

        return one_pass

    def answer(self) -> Callable[[Array], Array]:
        import jax

        weights = jax.device_put(self.weights)
        respond = jax.jit(lambda x: jax.nn.softmax(self.logits(weights, x)))
        return lambda images: np.asarray(respond(images))


class TensorFlow(Subject):
    """A `tf.function` that goes through all batches of a pass."""

    frameworks = ("tensorflow",)
    measures = ("train",)

    def __init__(self, *data: Any) -> None:
        super().__init__(*data)
        importlib.import_module("tensorflow")

    @staticmethod
    def loss(weights: Any, images: Any, labels: Any) -> Any:
        import tensorflow as tf

        x = tf.cast(images, "float32") / 255
        for layer, padding in ((0, "SAME"), (2, "VALID")):
            x = tf.nn.conv2d(x, weights[layer], 1, padding)
            x = tf.nn.relu(tf.nn.bias_add(x, weights[layer + 1]))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.reshape(x, (-1, 400))
        for layer in (4, 6, 8):
            x = tf.nn.bias_add(x @ weights[layer], weights[layer + 1])
            x = tf.nn.relu(x) if layer < 8 else x
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x)
        )

    def train(self, batch_size: int) -> OnePass:
        import tensorflow as tf

        weights = list(map(tf.Variable, self.weights))
        first = [tf.Variable(tf.zeros_like(weight)) for weight in weights]
        second = [tf.Variable(tf.zeros_like(weight)) for weight in weights]
        steps = tf.Variable(0.0)
        images, labels = tf.constant(self.images), tf.constant(self.labels)

        def step(index: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = self.loss(
                    weights, tf.gather(images, index), tf.gather(labels, index)
                )
            gradients = tape.gradient(loss, weights)
            count = steps.assign_add(1)
            for w, m, v, g in zip(
                weights, first, second, gradients, strict=True
            ):
                tf.raw_ops.ResourceApplyAdam(
                    var=w.handle,
                    m=m.handle,
                    v=v.handle,
                    beta1_power=0.9**count,
                    beta2_power=0.999**count,
                    lr=1e-3,
                    beta1=0.9,
                    beta2=0.999,
                    epsilon=1e-7,
                    grad=g,
                )
            return loss

        @tf.function
        def loop(batches: Any) -> Any:
            def body(i: Any, total: Any) -> Any:
                return i + 1, total + step(batches[i])

            _, total = tf.while_loop(
                lambda i, _: i < len(batches), body, (0, tf.constant(0.0))
            )
            return total / len(batches)

        def one_pass() -> tuple[float, int]:
            return float(loop(self.batches(batch_size))), int(steps)

        return one_pass


SUBJECTS: dict[str, Callable[..., Any]] = {
    **{f"fit {b}": functools.partial(Keras, b, "LeNet5") for b in DEVICES},
    **{
        f"sequential {b}": functools.partial(Keras, b, "Sequential")
        for b in DEVICES
    },
    "bare tensorflow": functools.partial(Bare, "tensorflow"),
    "bare jax": functools.partial(Bare, "jax"),
    **{
        f"pytorch {variant}": functools.partial(PyTorch, variant)
        for variant in ("eager", "channels-last", "compile", "cuda graphs")
    },
    "jax loop": Jax,
    "tensorflow loop": TensorFlow,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
