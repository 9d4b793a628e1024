"""Compares the speed of LeNet-5 in training, evaluation and prediction.

`LeNet5` with Keras' `fit` is compared with a plain Keras `Sequential`, with the
same compiled step without `fit` ("bare"), and with hand-written loops in
PyTorch, JAX and TensorFlow. The comparison is fair:

- All subjects have the same 61,706 float32 weights, the same initial values,
  the same real uint8 images and the same batch size. Each framework uses its
  default number of threads.
- Times include shuffling, gathering, padding, rescaling, Adam and waiting for
  the last result. In the hand-written loops' favour, Keras also computes the
  accuracy, and calls `fit` again for each epoch.
- `predict` and the latency of one image go from NumPy to NumPy.
- Each subject runs in its own process. Subjects take turns, A B A B, in blocks
  of at least 0.2 seconds. The first epoch, which compiles, is timed separately.
- After three epochs, the mean losses and the numbers of images must agree.
  Before training, the losses must agree closely.
- Ratios to the fastest PyTorch loop are computed in each round. The table has
  their median and quartiles.
- Memory is the growth of peak resident memory after the frameworks and the data
  are loaded. It includes compilation and earlier measurements.

    python benchmarks/throughput.py --output results.jsonl --plot results.png
"""

import argparse
import contextlib
import functools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from subjects import (
    MEASURES,
    SUBJECTS,
    Array,
    Record,
    initial_arrays,
    seconds,
)

SCRIPT = Path(__file__).with_name("subjects.py")
PARAMETERS = 61_706
# Forward multiply-adds: C1 117,600; C3 240,000; C5 48,000; F6 10,080; output
# 840. Training needs no gradient with respect to the images.
MEGAFLOPS = {"train": 2.26, "evaluate": 0.833, "predict": 0.833}
EVALUATION_BATCH_SIZE = 1000

FULL = {
    "batch_sizes": (32, 125, 250, 1000),
    "images": 20_000,
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
        description="Compare the speed of LeNet-5 in Keras with that of "
        "hand-written loops."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run in less than two minutes: few subjects, one batch size, "
        "5,000 images, 3 repetitions",
    )
    parser.add_argument(
        "--subjects",
        nargs="+",
        choices=SUBJECTS,
        metavar="NAME",
        help="subjects to compare (default: all): "
        + ", ".join(f"'{name}'" for name in SUBJECTS),
    )
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=MEASURES,
        metavar="NAME",
        help="measures (default: all): " + ", ".join(MEASURES),
    )
    parser.add_argument(
        "--batch-sizes",
        type=positive_integer,
        nargs="+",
        metavar="N",
        help="batch sizes for training (default: "
        + ", ".join(map(str, FULL["batch_sizes"]))
        + f"; also {GPU_BATCH_SIZE} on a GPU)",
    )
    parser.add_argument(
        "--images",
        type=positive_integer,
        metavar="N",
        help=f"number of images (default: {FULL['images']:,}); a last, "
        "smaller batch is left out",
    )
    parser.add_argument(
        "--repetitions",
        type=positive_integer,
        metavar="N",
        help=f"number of timed rounds (default: {FULL['repetitions']})",
    )
    parser.add_argument(
        "--data",
        default="digits",
        metavar="DIR",
        help="a folder with MNIST's four IDX files (default: the digits of "
        "scikit-learn, repeated)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write JSON lines to FILE"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the results to FILE"
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
    """Returns `count` real digits, repeated if there are too few."""
    from keras_lenet.datasets import load_data

    (images, labels), _ = load_data(data)
    if images.shape[1:] != (28, 28, 1):
        raise ValueError(
            f"{data}: expected images of shape (28, 28, 1). "
            f"Received: {images.shape[1:]}."
        )
    index = np.arange(count) % len(images)
    return {"images": images[index], "labels": labels[index]}


# The turns of the subjects.


class Worker:
    """The process of a subject, which answers each question with a line."""

    def __init__(self, name: str, arrays: Path) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, SCRIPT, name, str(arrays)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TF_CPP_MIN_LOG_LEVEL": "2",
                # The processes share a GPU.
                "TF_FORCE_GPU_ALLOW_GROWTH": "true",
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            },
        )

    @functools.cached_property
    def about(self) -> Any:
        """The facts that the process sends once it is ready."""
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
    """Starts all subjects, and reports those that cannot run."""
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
    """Measures all workers round by round, and returns their records."""
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
    """Raises a `ValueError` if the subjects did different work.

    Args:
        records: Sequence of records of one measure and batch size.
    """
    if not records:
        return
    # In training, the orders of the images differ; otherwise, only rounding.
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
                f"{records[0]['batch_size']}: expected {key} like the others', "
                f"{value}. Received: {', '.join(odd)}."
            )


def matrix_gflops(size: int = 2048) -> float:
    """Returns the GFLOP/s of the fastest available matrix product."""
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


# Tables and a plot.


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
        records: Sequence of records, as `take_turns` returns them.
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
    """Compares `fit` with the bare step."""
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


# The palette of Okabe and Ito (https://jfly.uni-koeln.de/color/). In greyscale,
# markers and dashes tell the subjects apart.
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
    """Draws training speed over batch size, and the other measures."""
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
        # Place the legend below the axes, where it covers no line.
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
    """Returns medians and their distances to the quartiles."""
    values = [quartiles(r["images_per_second"]) for r in records]
    errors = [(mid - low, high - mid) for low, mid, high in values]
    return [mid for _, mid, _ in values], np.reshape(errors, (-1, 2)).T


if __name__ == "__main__":
    main()
