"""Measures how many letters and patterns a preset takes for digits.

    pip install Hershey-Fonts
    python benchmarks/letters.py --data DIR

The threshold is the one that accepts 98 % of MNIST's test digits. The alphabets
are drawn as the training pictures were (`drawings.py`), but in other typefaces,
and with the letters that look like digits, such as O, I, S and Z.
"""

import argparse
import os
import string
from typing import Any

import numpy as np
from drawings import hershey, printed, render, texture

from keras_lenet.pictures import prepare_character

# Latin alphabets that the preset was not trained on.
ALPHABETS = ("rowmans", "timesi", "scriptc")


def pictures(kind: str, count: int) -> Any:
    """Yields pictures, and the letter of each."""
    for number in range(count):
        generator = np.random.default_rng([len(kind), number])
        letter = str(generator.choice(list(string.ascii_uppercase)))
        if kind == "A to Z, printed":
            yield printed(letter, generator), letter
        elif kind == "A to Z, drawn":
            alphabet = str(generator.choice(ALPHABETS))
            yield render(hershey(alphabet, letter), generator), letter
        elif kind == "Greek":
            letter = str(generator.choice(list(string.ascii_uppercase[:24])))
            yield render(hershey("greeks", letter), generator), letter
        else:
            yield texture(generator), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--model", default="handwritten")
    parser.add_argument("--count", type=int, default=2000, help="per kind")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet import datasets, saving

    _, (digits, _) = datasets.load_data(arguments.data)
    model = saving.load(arguments.model)

    def certainty(images: Any) -> Any:
        return model.predict(images, batch_size=500, verbose=0).max(axis=1)

    threshold = np.quantile(certainty(digits), 0.02)
    print(f"98 % of the digits reach {threshold:.3f}")
    accepted: dict[str, list[bool]] = {}
    for kind in ("A to Z, drawn", "A to Z, printed", "Greek", "patterns"):
        prepared = [
            (prepare_character(picture), letter)
            for picture, letter in pictures(kind, arguments.count)
        ]
        # Without ink there is no digit.
        found = [
            (image, letter) for image, letter in prepared if image is not None
        ]
        taken = certainty(np.stack([image for image, _ in found])) >= threshold
        print(f"{kind}: {taken.sum() / arguments.count:.1%} accepted")
        if kind.startswith("A"):
            for (_, letter), is_taken in zip(found, taken, strict=True):
                accepted.setdefault(letter, []).append(is_taken)
    shares = sorted(
        ((np.mean(taken), letter) for letter, taken in accepted.items()),
        reverse=True,
    )
    print(", ".join(f"{letter} {share:.0%}" for share, letter in shares[:8]))


if __name__ == "__main__":
    main()
