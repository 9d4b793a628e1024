r"""Trains `OriginalLeNet5` as in the 1998 paper, and compares the results.

Trains 20 passes, one image per step in a constant order, with stochastic
diagonal Levenberg-Marquardt. The result is the error on the 10,000 test images
after the last pass. Values that the paper leaves open were chosen on 10,000
held-out training images (https://doi.org/10.1109/5.726791).

    KERAS_BACKEND=jax python benchmarks/paper.py --data DIR --seeds 1 2 3

`--images` trains on fewer images, as in figure 6. `--distorted` adds nine
moved, scaled, squeezed and sheared copies of each image. A pass keeps its
number of images, so 20 passes see each image or copy twice, as in the paper
(section III-C). Each finished run is a line of the log, `paper.jsonl` beside
this script, and is not repeated. Several processes with different seeds can
share a log. `--write` puts tables and figures of the whole log into `README.md`
here. `--preset DIR` writes the last trained model as a preset.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from options import add_data
from reports import replace_lines

HERE = Path(__file__).parent
FIGURES = HERE.parent / "docs/pages/images"
# Test errors in the paper: by pass (read off figure 5) and by the number of
# training images (figure 6).
FIGURE_5 = (2.65, 2.24, 1.48, 1.43, 1.43, 1.09, 1.04, 1.06, 0.99, 0.96, 0.96)
FIGURE_5 += (0.99,) + (0.96,) * 8
FIGURE_6 = {15_000: 1.68, 30_000: 1.14, 60_000: 0.95}
DISTORTED = 0.8
# The paper adds 540,000 distorted images to the 60,000.
COPIES = 10
# The indices of the test images in figure 8, found by their rasters.
FIGURE_8 = tuple(
    map(
        int,
        """
        247 449 582 659 674 829 926 938 1014 1039 1232 1319 1328 1393 1530 1621
        1681 1790 1878 1901 1955 2035 2043 2109 2118 2129 2130 2135 2293 2387
        2414 2462 2654 2921 2927 2939 3030 3422 3520 3762 3780 3808 3869 3941
        4176 4224 4265 4369 4405 4425 4497 4575 4601 4740 4956 5736 5749 5955
        5973 6091 6101 6173 6538 6557 6558 6571 6597 6783 7434 8059 8094 8408
        8527 9009 9015 9679 9692 9698 9729 9770 9792 9904
        """.split(),
    )
)


def main() -> None:
    arguments = parse_arguments()
    settings = {
        "images": arguments.images,
        "distorted": arguments.distorted,
        "passes": arguments.passes,
        "batch_size": arguments.batch_size,
    }
    records = read(arguments.log)
    for seed in arguments.seeds:
        wanted = settings | {"seed": seed}
        if any(wanted.items() <= record.items() for record in records):
            continue
        record, model = train(arguments, seed)
        record = wanted | record
        if arguments.preset and seed == arguments.seeds[-1]:
            save_preset(arguments, record, model)
        with arguments.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"seed {seed}: {record['test_error'][-1]:.2%}", flush=True)
    if arguments.write:
        write(arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train LeNet-5 as in the 1998 paper, and compare the "
        "test error with the paper's."
    )
    add_data(parser)
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="*",
        default=list(range(1, 6)),
        metavar="N",
        help="seeds to train unless the log has them (default: 1 to 5)",
    )
    numbers = (
        ("--images", 60_000, "number of training images"),
        ("--passes", 20, "number of passes through them"),
        ("--batch-size", 1, "number of images per step"),
    )
    for flag, default, text in numbers:
        parser.add_argument(
            flag,
            type=int,
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--distorted",
        action="store_true",
        help=f"add {COPIES - 1} distorted copies of each image; --passes must "
        f"be a multiple of {COPIES}",
    )
    parser.add_argument(
        "--log",
        type=Path,
        default=HERE / "paper.jsonl",
        metavar="FILE",
        help="file of the results (default: paper.jsonl, here)",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put tables and figures into README.md, here",
    )
    parser.add_argument(
        "--preset",
        type=Path,
        metavar="DIR",
        help="write the last trained model as a preset to this folder",
    )
    arguments = parser.parse_args()
    if arguments.distorted and arguments.passes % COPIES:
        parser.error(
            f"--passes must be a multiple of {COPIES} with --distorted, as an "
            f"epoch has {COPIES} passes. Received: {arguments.passes}"
        )
    return arguments


def read(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda record: record["seed"])


def train(
    arguments: argparse.Namespace, seed: int
) -> tuple[dict[str, Any], Any]:
    """Trains a seed, and returns its record for the log and the model."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import numpy as np

    from keras_lenet import (
        CurvatureEstimation,
        HeldOutEvaluation,
        OriginalLeNet5,
        datasets,
        recipes,
    )

    start = time.perf_counter()
    (x, y), test = datasets.load_data(arguments.data)
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(x))[: arguments.images]
    x, y = x[chosen], y[chosen]
    size = arguments.batch_size
    in_pass = len(x) // size
    seen = x[: in_pass * size], y[: in_pass * size]
    if arguments.distorted:
        seen = with_distorted(*seen, generator)
    keras.utils.set_random_seed(seed)
    model = OriginalLeNet5()
    model.compile(**recipes.paper(in_pass * arguments.passes, size))
    held_out = HeldOutEvaluation(test, freq=in_pass)
    model.fit(
        *seen,
        batch_size=size,
        epochs=arguments.passes // (COPIES if arguments.distorted else 1),
        shuffle=False,
        verbose=0,
        callbacks=[
            CurvatureEstimation(*seen, freq=in_pass, seed=seed),
            held_out,
        ],
    )

    def missed(images: Any, labels: Any) -> list[tuple[int, int]]:
        scores = model.predict(images, batch_size=500, verbose=0)
        taken_for = scores.argmax(axis=1)
        wrong = np.flatnonzero(taken_for != labels)
        return list(zip(wrong.tolist(), taken_for[wrong].tolist(), strict=True))

    history = held_out.history
    record = {
        "test_error": [1 - value for value in history["val_accuracy"]],
        "running_train_error": [1 - value for value in history["accuracy"]],
        "train_error": len(missed(x, y)) / len(x),
        "missed": missed(*test),
        "seconds": round(time.perf_counter() - start),
        "backend": keras.backend.backend(),
        "keras": keras.version(),
        "python": platform.python_version(),
    }
    return record, model


def with_distorted(images: Any, labels: Any, generator: Any) -> tuple[Any, Any]:
    """Returns images with distorted copies, and labels, in random order."""
    import numpy as np

    from keras_lenet import RandomDistortion

    # The paper has neither rotations nor elastic distortions.
    distort = RandomDistortion(rotation=0, elastic=0)
    copies = [distort(images, generator) for _ in range(COPIES - 1)]
    order = generator.permutation(COPIES * len(images))
    mixed = np.concatenate([images, *copies])[order]
    return mixed, np.tile(labels, COPIES)[order]


def save_preset(
    arguments: argparse.Namespace, record: dict[str, Any], model: Any
) -> None:
    error = record["test_error"][-1]
    card = {
        "dataset": "mnist",
        "training_images": arguments.images,
        "recipe": f"recipes.paper, {arguments.passes} passes of batches of "
        f"{arguments.batch_size}, "
        f"{'distorted' if arguments.distorted else 'as they are'}",
        "seed": record["seed"],
        "test_images": 10_000,
        "test_accuracy": round(1 - error, 5),
        "test_accuracy_standard_error": round(
            math.sqrt(error * (1 - error) / 10_000), 5
        ),
        "license": "Apache-2.0",
    }
    model.save_to_preset(arguments.preset, card)
    print(json.dumps(card, indent=2))


def row_of_means(label: str, records: list[dict[str, Any]], key: str) -> str:
    by_pass = zip(*(record[key] for record in records), strict=True)
    means = (f"{100 * statistics.mean(errors):.2f}" for errors in by_pass)
    return f"| {label} | {' | '.join(means)} |"


def write(arguments: argparse.Namespace) -> None:
    """Puts tables between the marks in README.md, and draws the figures."""
    from matplotlib.figure import Figure

    from keras_lenet import datasets, plots
    from keras_lenet.files.atomic import atomic_write
    from keras_lenet.original import codes

    records = read(arguments.log)
    groups: dict[tuple[bool, int, int, int], list[dict[str, Any]]] = {}
    for record in records:
        key = ("distorted", "images", "passes", "batch_size")
        groups.setdefault(tuple(record[name] for name in key), []).append(
            record
        )
    last = records[-1]
    table = [
        f"{last['backend']}, keras {last['keras']}. The log of seeds is "
        "`paper.jsonl`.",
        "",
        "| training images | passes | images a step | n | test error "
        "| standard deviation | worst | training error | test error, 1998 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (distorted, images, passes, size), group in sorted(groups.items()):
        errors = [record["test_error"][-1] for record in group]
        spread = statistics.stdev(errors) if len(errors) > 1 else math.nan
        train_error = statistics.mean(r["train_error"] for r in group)
        paper = DISTORTED if distorted else FIGURE_6.get(images, math.nan)
        table.append(
            f"| {images:,}{' distorted' if distorted else ''} | {passes} "
            f"| {size} | {len(group)} | {statistics.mean(errors):.3%} "
            f"| {100 * spread:.3f} | {max(errors):.2%} | {train_error:.2%} "
            f"| {paper}% |"
        )
    plain = groups[False, 60_000, 20, 1]
    table += [
        "",
        "| pass | " + " | ".join(str(n + 1) for n in range(20)) + " |",
        "| --- |" + " --- |" * 20,
        row_of_means("test error, mean, %", plain, "test_error"),
        "| test error, 1998, % | " + " | ".join(map(str, FIGURE_5)) + " |",
        row_of_means(
            "training error on the way, mean, %", plain, "running_train_error"
        ),
    ]
    common = [
        len({*FIGURE_8} & {index for index, _ in record["missed"]})
        for record in plain
    ]
    table += [
        "",
        f"Of the paper's 82 misclassified test images (figure 8), "
        f"{statistics.mean(common):.0f} are among ours, on average, of "
        f"{statistics.mean(len(r['missed']) for r in plain):.0f}.",
    ]
    replace_lines(HERE / "README.md", "paper.py", table)

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    passes = range(1, 21)
    for record in plain:
        first = record is plain[0]
        for name, label, color, style in (
            ("test_error", "test", "#D55E00", "-"),
            ("running_train_error", "training, on the way", "#0072B2", "--"),
        ):
            axes.plot(
                passes,
                [100 * error for error in record[name]],
                label=f"{label} ({len(plain)} seeds)" if first else None,
                color=color,
                linestyle=style,
                linewidth=0.9,
            )
    axes.plot(
        passes, FIGURE_5, "ko", markersize=4, label="test, figure 5 (1998)"
    )
    axes.set_ylim(0, 6)
    axes.set_xlim(0, 20.5)
    axes.set_xticks(range(0, 21, 2))
    axes.set_xlabel("Pass through the training images")
    axes.set_ylabel("Error / %")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(FIGURES / "paper_passes.png") as temporary:
        figure.savefig(temporary, dpi=150)

    # Draw the errors of the first seed, like figure 8.
    wrong, taken_for = map(list, zip(*plain[0]["missed"], strict=True))
    _, (images, labels) = datasets.load_data(arguments.data)
    figure = plots.plot_errors(images[wrong], labels[wrong], taken_for)
    with atomic_write(FIGURES / "paper_errors.png") as temporary:
        figure.savefig(temporary, dpi=150)

    figure = Figure(figsize=(7, 1.6), layout="constrained")
    for digit, code in enumerate(codes()):
        axes = figure.add_subplot(1, 10, digit + 1)
        axes.imshow(-code.reshape(12, 7), cmap="gray")
        axes.set_title(digit)
        axes.set_xticks([])
        axes.set_yticks([])
    with atomic_write(FIGURES / "codes.png") as temporary:
        figure.savefig(temporary, dpi=150)


if __name__ == "__main__":
    main()
