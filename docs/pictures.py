"""Draws the pictures on the pages that no benchmark draws.

    PYTHONPATH=.:benchmarks python docs/pictures.py --data DIR

They show presets, with MNIST's test digits in DIR, photographs that are made
from these digits and read by the command line, and a short run.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from strings import as_picture, place_digits

from keras_lenet import (
    HeldOutEvaluation,
    LeNet5,
    OriginalLeNet5,
    cli,
    datasets,
    plots,
)
from keras_lenet.callbacks import KernelHistory
from keras_lenet.files.atomic import atomic_write
from keras_lenet.plots.figure import to_pixels
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


def show_network(images: Any, labels: Any) -> None:
    """Draws the network and what it computes."""
    model = LeNet5.from_preset("mnist")
    plots.plot_architecture(model).savefig(IMAGES / "architecture.svg")
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in range(5)]
    several = images[first], labels[first]
    original = OriginalLeNet5.from_preset("original")
    for name, figure in {
        "kernels": plots.plot_kernels(model),
        "feature_maps": plots.plot_feature_maps(model, images[4]),
        "feature_maps_original": plots.plot_feature_maps(original, images[4]),
        "embedding": plots.plot_embedding(model, images[:1000], labels[:1000]),
        "saliency": plots.plot_saliency(model, *several),
        "occlusion": plots.plot_occlusion(model, *several),
    }.items():
        save(figure, name)


def show_run() -> None:
    """Draws how a network learns scikit-learn's digits."""
    (x, y), test = datasets.load_data("digits")
    keras.utils.set_random_seed(98)
    model = LeNet5()
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    kernels = KernelHistory("c1", freq=20, filepath=IMAGES / "kernels.gif")
    held_out = HeldOutEvaluation(test, freq=5)
    model.fit(
        x,
        y,
        batch_size=100,
        epochs=20,
        verbose=0,
        callbacks=[kernels, held_out],
    )
    save(plots.plot_kernel_history(kernels.history), "kernel_history")
    save(plots.plot_history(held_out.history), "learning_curves")
    scores = model.predict(test[0][:6], verbose=0)
    save(
        plots.plot_predictions(test[0][:6], test[1][:6], scores), "predictions"
    )


def show_errors(data: str) -> None:
    """Draws what `keras-lenet evaluate --plot` draws."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--dataset", data, "--plot", "--reject", "0.9"]
        cli.main(["evaluate", "mnist", *arguments, "--output", folder])
        for path in Path(folder).glob("*.png"):
            with Image.open(path) as drawn:
                write(drawn, path.stem)


def save(figure: Any, name: str) -> None:
    """Writes a figure that looks the same on every page."""
    write(Image.fromarray(to_pixels(figure)), name)


def write(picture: Any, name: str) -> None:
    """Writes a picture in 56 colours."""
    small = picture.convert("RGB").quantize(56)
    with atomic_write(IMAGES / f"{name}.png") as temporary:
        small.save(temporary, "PNG", optimize=True)


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
            write(drawn, name)


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    data = parser.parse_args().data
    _, (images, labels) = datasets.load_data(data)
    show_network(images, labels)
    show_run()
    show_errors(data)
    draw("read", dict(cases(images)), "digits", "reading")
    generator = np.random.default_rng(7)
    photographs = {
        str(number): photograph(images[number, ..., 0], generator)
        for number in range(6)
    }
    draw("predict", photographs, "pictures", "pictures")


if __name__ == "__main__":
    main()
