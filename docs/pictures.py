"""Draws the pictures of photographs, forms and rows on the pages.

    PYTHONPATH=.:benchmarks python docs/pictures.py --data DIR

The pictures are made from MNIST's test digits in DIR, and read by the command
line.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from strings import as_picture, place_digits

from keras_lenet import cli, datasets
from keras_lenet.files.atomic import atomic_write
from tests.helpers import photograph

IMAGES = Path(__file__).parent / "pages/images"


def make_form(digits: Any) -> Any:
    """Returns a row of printed boxes with a digit in each."""
    form = np.full((84, 72 * len(digits) + 24), 244, "uint8")
    for column, digit in enumerate(digits):
        left = 12 + 72 * column
        form[12:72, left : left + 72] = 70
        form[15:69, left + 3 : left + 69] = 248
        ink = np.asarray(Image.fromarray(digit[..., 0]).resize((44, 44)))
        cell = form[20:64, left + 14 : left + 58]
        cell[:] = np.minimum(cell, 255 - ink)
    return form


def make_page(digits: Any, generator: Any) -> Any:
    """Returns three rows of digits on paper in uneven light."""
    rows = [
        place_digits(digits[7 * line : 7 * line + 7], [9] * 6).max(axis=0)
        for line in range(3)
    ]
    page = np.zeros((220, 420))
    for line, row in enumerate(rows):
        top, left = 20 + 64 * line, 20 + 12 * line
        page[top : top + 44, left : left + row.shape[1]] = row
    light = np.linspace(1.0, 0.6, 420) * np.linspace(1.0, 0.8, 220)[:, None]
    grey = (225 - 0.75 * page) * light + generator.normal(0, 3, page.shape)
    return grey.clip(0, 255).astype("uint8")


def make_letter(letter: str) -> Any:
    """Returns a letter drawn on grey paper."""
    page = Image.new("L", (160, 160), 200)
    font = ImageFont.load_default(110)
    ImageDraw.Draw(page).text((80, 80), letter, 40, font, anchor="mm")
    return np.asarray(page)


def cases(images: Any) -> Iterator[tuple[str, Any]]:
    """Yields pictures to read, and their names."""
    generator = np.random.default_rng(20)
    chosen = iter(generator.permutation(len(images)))

    def take(count: int) -> Any:
        return images[[next(chosen) for _ in range(count)]]

    yield "photograph", photograph(take(1)[0, ..., 0], generator)
    yield "letter", make_letter("F")
    yield "form", make_form(take(6))
    touching = place_digits(take(6), [-2, 1, -1, 0, -2])
    yield "touching", as_picture(touching, 6.0, generator)
    yield (
        "leaning",
        as_picture(place_digits(take(6), [2] * 5, 0.35), 6, generator),
    )
    yield "page", make_page(take(21), generator)


def draw(
    command: str, pictures: dict[str, Any], figure: str, name: str
) -> None:
    """Writes the figure that a command draws with `--plot`."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for stem, picture in pictures.items():
            paths.append(str(Path(folder) / f"{stem}.png"))
            Image.fromarray(picture).save(paths[-1])
        cli.main([command, *paths, "--plot", "--output", folder])
        with Image.open(Path(folder) / f"{figure}.png") as drawn:
            small = drawn.convert("RGB").quantize(64)
        with atomic_write(IMAGES / f"{name}.png") as temporary:
            small.save(temporary, "PNG", optimize=True)


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _, (images, _) = datasets.load_data(parser.parse_args().data)
    draw("read", dict(cases(images)), "digits", "reading")
    generator = np.random.default_rng(7)
    photographs = {
        str(number): photograph(images[number, ..., 0], generator)
        for number in range(6)
    }
    draw("predict", photographs, "pictures", "pictures")


if __name__ == "__main__":
    main()
