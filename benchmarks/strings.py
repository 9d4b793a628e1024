"""Measures how often rows of MNIST's test digits are read right as a whole.

    python benchmarks/strings.py --data DIR --gaps 2 -2 --write

The gap is the number of pixels, of 28, between the ink of two neighbours. A
negative gap is an overlap. `--displacement` reads the rows in another way, with
`OriginalLeNet5` as a space displacement network. Each gap is a line of the log,
`strings.jsonl` beside this script. Of two lines for the same rows, the later
one counts.
"""

import argparse
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from reports import replace_lines

HERE = Path(__file__).parent
LOG = HERE / "strings.jsonl"
FIGURE = HERE.parent / "docs/pages/images/strings.png"


def place_digits(images: Any, gaps: Any, slant: float = 0.0) -> Any:
    """Places digits in a row.

    Args:
        images: uint8 array of shape `(n, 28, 28, 1)`, bright ink on 0.
        gaps: Integers. The number of columns between the ink of neighbours.
        slant: Float. The tangent of the angle by which the row leans.

    Returns:
        uint8 array of shape `(n, 44, width)`, the ink of each digit.
    """
    from PIL import Image

    inks = []
    for image in images:
        _, columns = np.nonzero(image[..., 0])
        inks.append(image[:, columns.min() : columns.max() + 1, 0])
    widths = np.array([ink.shape[1] for ink in inks])
    starts = 10 + np.cumsum([0, *(widths[:-1] + gaps)])
    starts = np.maximum.accumulate(starts)
    row = np.zeros((len(inks), 44, (starts + widths).max() + 10), "uint8")
    for layer, ink, start in zip(row, inks, starts, strict=True):
        layer[8:36, start : start + ink.shape[1]] = ink
    if slant:
        lean = (1, slant, -22 * slant, 0, 1, 0)
        leaning = [
            Image.fromarray(layer).transform(
                layer.shape[::-1],
                Image.Transform.AFFINE,
                lean,
                Image.Resampling.BILINEAR,
            )
            for layer in row
        ]
        row = np.stack([np.asarray(layer) for layer in leaning])
    return row


def as_picture(
    row: Any, noise: float, generator: Any, light: float = 1.0
) -> Any:
    """Returns a uint8 picture of a row, dark on white paper.

    The right half has a share of the light, `light`.
    """
    grey = 255.0 - row.max(axis=0)
    grey[:, grey.shape[1] // 2 :] *= light
    grey = grey + generator.normal(0, noise, grey.shape)
    return grey.clip(0, 255).astype("uint8")


# A position of the displacement network counts as a digit if the squared
# distance to a code is less than `_DISTANCE`, and if the last digit is at least
# `_STEPS` positions of 4 pixels away. Tuned on rows of training images.
_DISTANCE, _STEPS = 25.0, 4


def displacement_network(length: int) -> Any:
    """Returns `OriginalLeNet5` for images of a row of digits."""
    from keras_lenet import OriginalLeNet5

    return OriginalLeNet5.from_preset(
        "original", input_shape=(32, 32 * length, 1)
    )


def read_by_displacement(row: Any, network: Any) -> list[int]:
    """Reads a row with a network that is applied every 4 pixels.

    See https://doi.org/10.1109/5.726791, section VII. The paper trained its
    network on digits with neighbours; this one saw single digits only.

    Args:
        row: uint8 array of shape `(n, 44, width)`, the ink of each digit.
        network: An `OriginalLeNet5` for images of 32 rows.

    Returns:
        List of the classes with the smallest sum of distances (Viterbi).
    """
    _, distances = apply_displaced(row, network)
    return [int(distances[at].argmin()) for at in best_positions(distances)]


def apply_displaced(row: Any, network: Any) -> tuple[Any, Any]:
    """Returns the network's image of a row, and the distances to all codes.

    Returns:
        uint8 array of shape `(32, width)`, and array of shape
        `(positions, 10)`.
    """
    ink = row.max(axis=0)[6:38]
    width = network.input_shape[2]
    image = np.zeros((32, width), "uint8")
    image[:, : ink.shape[1]] = ink[:, :width]
    outputs = network.predict(image[np.newaxis, ..., np.newaxis], verbose=0)
    return image, -outputs[0, 0]


def best_positions(distances: Any) -> list[int]:
    """Returns the positions of the digits (Viterbi)."""
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for position, nearest in enumerate(distances.min(axis=1)):
        cost, positions = best[max(0, position + 1 - _STEPS)]
        digit = cost + nearest - _DISTANCE, [*positions, position]
        best.append(min(best[-1], digit, key=lambda path: path[0]))
    return best[-1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--model", default="handwritten")
    parser.add_argument("--gaps", type=int, nargs="*", default=range(-4, 5))
    parser.add_argument("--rows", type=int, default=300, help="per gap")
    parser.add_argument("--length", type=int, default=5, help="digits in a row")
    parser.add_argument("--slant", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0, help="grey levels")
    parser.add_argument(
        "--light",
        type=float,
        default=1.0,
        help="share of the light that the right half has",
    )
    parser.add_argument(
        "--displacement",
        action="store_true",
        help="with the preset original as a space displacement network",
    )
    parser.add_argument(
        "--log", type=Path, default=LOG, help="(default: strings.jsonl, here)"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put the log's table and curves into README.md, here, and draw "
        "the outputs of the displacement network",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet.datasets import load_data

    _, test = load_data(arguments.data)
    if arguments.gaps:
        method, read = make_reader(arguments)
    for gap in arguments.gaps:
        generator = np.random.default_rng([98, gap + 100])
        right = 0
        for _ in range(arguments.rows):
            row, labels = draw_row(
                test, arguments.length, gap, generator, arguments.slant
            )
            right += read(row, generator) == labels
        print(f"gap {gap:2}: {right / arguments.rows:.2%}", flush=True)
        record = {
            "method": method,
            "slant": arguments.slant,
            "noise": arguments.noise,
            "light": arguments.light,
            "gap": gap,
            "rows": arguments.rows,
            "right": right,
        }
        with arguments.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    if arguments.write:
        write(arguments.log)
        draw_displaced(test)


def draw_row(
    test: Any, length: int, gap: int, generator: Any, slant: float = 0.0
) -> tuple[Any, list[int]]:
    """Returns the ink of a random row of digits, and their classes."""
    images, labels = test
    chosen = generator.integers(0, len(images), length)
    return place_digits(images[chosen], gap, slant), labels[chosen].tolist()


def make_reader(
    arguments: argparse.Namespace,
) -> tuple[str, Callable[[Any, Any], list[int]]]:
    """Returns the name of a method, and a function of a row and generator."""
    from keras_lenet import pictures, saving

    if arguments.displacement:
        network = displacement_network(arguments.length)
        return (
            "space displacement network, original",
            lambda row, _: read_by_displacement(row, network),
        )
    model = saving.load(arguments.model)

    def read(row: Any, generator: Any) -> list[int]:
        picture = as_picture(row, arguments.noise, generator, arguments.light)
        found = pictures.read_digits(picture, model)
        return [digit.label for line in found for digit in line]

    return f"read_digits, {Path(arguments.model).name}", read


def write(log: Path) -> None:
    """Draws the curves and puts the table between the marks in README.md."""
    from matplotlib.figure import Figure

    from keras_lenet.files.atomic import atomic_write

    lines = log.read_text(encoding="utf-8").splitlines()
    curves: dict[str, dict[int, Any]] = {}
    for record in map(json.loads, lines):
        name = record["method"]
        if record["slant"]:
            angle = np.degrees(np.arctan(record["slant"]))
            name += f", slanted by {angle:.0f}°"
        if record["noise"]:
            name += f", noise of {record['noise']:.0f} grey levels"
        if record["light"] < 1:
            name += (
                f", half in a shadow with {record['light']:.0%} of the light"
            )
        curves.setdefault(name, {})[record["gap"]] = record
    gaps = sorted({gap for curve in curves.values() for gap in curve})
    table = [
        f"| gap | n | {' | '.join(map(str, gaps))} |",
        "| --- | --- |" + " --- |" * len(gaps),
    ]
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    markers = itertools.cycle("os^vDx")
    for name, curve in curves.items():
        shares = {
            gap: record["right"] / record["rows"]
            for gap, record in sorted(curve.items())
        }
        rows = next(iter(curve.values()))["rows"]
        table.append(
            f"| {name} | {rows} | "
            + " | ".join(
                f"{shares[gap]:.1%}" if gap in shares else "" for gap in gaps
            )
            + " |"
        )
        axes.errorbar(
            list(shares),
            [100 * share for share in shares.values()],
            [100 * (p * (1 - p) / rows) ** 0.5 for p in shares.values()],
            marker=next(markers),
            markersize=4,
            linewidth=1,
            capsize=2,
            label=name,
        )
    axes.set_xlabel("Gap between neighbours / pixels of 28")
    axes.set_ylabel("Rows of 5 read right / %")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_write(FIGURE) as temporary:
        figure.savefig(temporary, dpi=130)
    replace_lines(HERE / "README.md", "strings.py", table)


def draw_displaced(test: Any) -> None:
    """Draws the outputs for four rows, as figures 25 and 26 of the paper."""
    from matplotlib.figure import Figure

    from keras_lenet.files.atomic import atomic_write

    network = displacement_network(5)
    generator = np.random.default_rng(98)
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(4, 2)
    for number, gap in enumerate((8, 4, 2, -2)):
        down, right = divmod(number, 2)
        upper, lower = panels[2 * down : 2 * down + 2, right]
        ink, labels = draw_row(test, 5, gap, generator)
        row, distances = apply_displaced(ink, network)
        upper.imshow(row, cmap="gray_r")
        # The network sees 32 pixels from every fourth one.
        for position in best_positions(distances):
            digit = str(distances[position].argmin())
            upper.text(4 * position + 16, -3, digit, ha="center", color="C3")
            lower.axvline(4 * position + 16, color="C3", linewidth=0.8)
        actual = "".join(map(str, labels))
        upper.set_title(f"{actual}, gap {gap}", loc="left", fontsize=9, pad=14)
        upper.set_axis_off()
        shown = lower.imshow(
            distances.T,
            cmap="gray",
            vmax=60,
            aspect="auto",
            extent=(14, 14 + 4 * len(distances), 9.5, -0.5),
        )
        lower.set_xlim(0, row.shape[1])
        lower.set_yticks(range(0, 10, 3))
        lower.set_ylabel("Class")
        lower.set_xlabel("Middle of the 32 pixels that are seen")
    figure.colorbar(shown, ax=panels, label="Squared distance to the code")
    with atomic_write(FIGURE.with_name("displacement.png")) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    main()
