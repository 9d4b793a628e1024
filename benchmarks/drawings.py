"""Draws digits of hands that MNIST lacks, and characters that are no digits.

MNIST's writers were American. Elsewhere people write a 1 with an upstroke as
long as half the stem or longer, cross the 7, curl the 9 and leave the 4 open.
The shapes here vary in length, angle and width far more than one person's do.
"""

import functools
import multiprocessing
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_lenet.pictures import prepare_character

# Pixels of a drawing, and of its largest character.
_FIELD, _TALLEST = 96, 64

# The label of pictures that are not digits.
NO_DIGIT = 10

# Letters that people write like a digit.
_LIKE_DIGITS = set("OoQIilSsZzBbgqGDa")

Strokes = list[np.ndarray[Any, Any]]


def draw_examples(
    kind: Callable[[np.random.Generator], Any], count: int, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Returns pictures of `kind`, prepared for the network, and labels."""
    draw = functools.partial(_draw_example, kind, seed)
    with multiprocessing.get_context("spawn").Pool() as pool:
        drawn = pool.map(draw, range(count), chunksize=100)
    images, labels = zip(*(pair for pair in drawn if pair), strict=True)
    return np.stack(images), np.array(labels)


def _draw_example(
    kind: Callable[[np.random.Generator], Any], seed: int, number: int
) -> Any:
    generator = np.random.default_rng([seed, number])
    picture, label = kind(generator)
    image = prepare_character(picture)
    return None if image is None else (image, label)


def drawn_digit(generator: np.random.Generator) -> tuple[Any, int]:
    """Returns a picture of a digit drawn with a pen, and the digit."""
    # Most of what MNIST lacks are other ways to write 1, 7, 9 and 4.
    shares = [0.06, 0.26, 0.06, 0.05, 0.12, 0.05, 0.05, 0.2, 0.05, 0.1]
    digit = int(generator.choice(10, p=shares))
    return render(DIGITS[digit](generator), generator), digit


def printed_digit(generator: np.random.Generator) -> tuple[Any, int]:
    """Returns a picture of a digit in a typeface, and the digit."""
    digit = int(generator.integers(10))
    return printed(str(digit), generator), digit


def no_digit(generator: np.random.Generator) -> tuple[Any, int]:
    """Returns a picture of a letter, a symbol or texture, and `NO_DIGIT`."""
    kind = generator.choice(4, p=[0.45, 0.2, 0.15, 0.2])
    letters = sorted(set(string.ascii_letters) - _LIKE_DIGITS)
    if kind == 0:
        font = generator.choice(["futural", "scripts", "cursive", "japanese"])
        strokes = hershey(font, generator.choice(letters))
        return render(strokes, generator), NO_DIGIT
    if kind == 1:
        symbols = "!?#%&*+=@$€£ßÄÖÜäöüñç<>{}[]~^"
        text = generator.choice([*letters, *letters, *symbols])
        return printed(text, generator), NO_DIGIT
    if kind == 2:
        return render(_scribble(generator), generator), NO_DIGIT
    return texture(generator), NO_DIGIT


# Pictures


def render(
    strokes: Strokes, generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Returns a uint8 picture of strokes on white paper."""
    uniform = generator.uniform
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    aspect = uniform(0.75, 1.25)
    angle, slant = np.radians(uniform(-8, 8)), uniform(-0.35, 0.45)
    turn = np.array(
        [
            [np.cos(angle), -np.sin(angle)],
            [np.sin(angle), np.cos(angle)],
        ]
    )
    shear = np.array([[aspect, -slant], [0, 1]])
    middle, size = (low + high) / 2, max(high - low)
    # A slow wave, so that no line is straight.
    wave = uniform(-0.03, 0.03, (2, 2))
    scale = uniform(0.35, 1) * _TALLEST
    width = max(1.2, scale * np.exp(uniform(np.log(0.025), np.log(0.16))))
    over = 3
    image = Image.new("L", (_FIELD * over, _FIELD * over), 255)
    pen = ImageDraw.Draw(image)
    ink = int(uniform(0, 110))
    for stroke in strokes:
        path = (stroke - middle) / size
        path = path + wave[0] * np.sin(5 * path[:, ::-1] + 9 * wave[1])
        path = path @ (turn @ shear).T
        path = (path * scale + _FIELD / 2) * over
        radius = width * over / 2
        pen.line([tuple(p) for p in path], ink, round(width * over), "curve")
        for x, y in (path[0], path[-1]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), ink)
    small = image.resize((_FIELD, _FIELD), Image.Resampling.BOX)
    return np.asarray(small)


def printed(text: str, generator: np.random.Generator) -> Any:
    """Returns a uint8 picture of a character in a typeface."""
    path = generator.choice(_typefaces())
    font = ImageFont.truetype(path, int(generator.integers(28, 60)))
    image = Image.new("L", (_FIELD, _FIELD), 255)
    pen = ImageDraw.Draw(image)
    pen.text((_FIELD / 2, _FIELD / 2), text, 0, font, anchor="mm")
    return np.asarray(image)


@functools.cache
def _typefaces() -> list[str]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # These come with Matplotlib, under free licences.
    names = ("DejaVu", "STIXGeneral", "cmr10", "cmss10", "cmb10")
    paths = sorted(folder.glob("*.ttf"))
    return [str(path) for path in paths if path.name.startswith(names)]


@functools.cache
def hershey(name: str, letter: str) -> Strokes:
    """Returns the strokes of a letter in one of Hershey's alphabets."""
    from HersheyFonts import HersheyFonts

    font = HersheyFonts()
    font.load_default_font(name)
    font.normalize_rendering(1)
    strokes = font.strokes_for_text(str(letter))
    points = [np.array(list(stroke)) for stroke in strokes]
    return [p * [1, -1] for p in points if len(p) > 1]


def _scribble(generator: np.random.Generator) -> Strokes:
    count = generator.integers(1, 4)
    return [
        _curve(generator.uniform(0, 1, (generator.integers(5, 9), 2)))
        for _ in range(count)
    ]


def texture(generator: np.random.Generator) -> Any:
    """Returns noise, blobs or a patch of waves."""
    size = int(generator.choice([4, 6, 8, 12, 24, 48]))
    coarse = generator.integers(0, 256, (size, size)).astype("uint8")
    image = Image.fromarray(coarse).resize(
        (_FIELD, _FIELD), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(image)
    if generator.random() < 0.5:
        pixels = np.where(pixels > generator.integers(80, 180), 255, 0)
    return pixels.astype("uint8")


# Digits, in coordinates from 0 to 1, x to the right and y down


def _curve(points: Any, steps: int = 12) -> np.ndarray[Any, Any]:
    """Returns a smooth curve through points (Catmull and Rom, 1974)."""
    points = np.asarray(points, "float64")
    padded = np.concatenate(
        [2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]]
    )
    t = np.linspace(0, 1, steps, endpoint=False)[:, np.newaxis]
    pieces = []
    for a, b, c, d in zip(
        padded, padded[1:], padded[2:], padded[3:], strict=False
    ):
        pieces.append(
            0.5
            * (
                2 * b
                + (c - a) * t
                + (2 * a - 5 * b + 4 * c - d) * t**2
                + (3 * b - a - 3 * c + d) * t**3
            )
        )
    return np.concatenate([*pieces, points[-1:]])


def _near(generator: np.random.Generator, points: Any, by: float) -> Any:
    points = np.asarray(points, "float64")
    return points + generator.uniform(-by, by, points.shape)


def _line(*points: Sequence[float]) -> np.ndarray[Any, Any]:
    return np.array(points, "float64")


def _arc(
    middle: Sequence[float],
    radii: Sequence[float],
    start: float,
    stop: float,
) -> np.ndarray[Any, Any]:
    """Returns an elliptic arc. Degrees grow clockwise, from the right."""
    angles = np.radians(np.linspace(start, stop, 40))
    return np.stack(
        [
            middle[0] + radii[0] * np.cos(angles),
            middle[1] + radii[1] * np.sin(angles),
        ],
        axis=1,
    )


def _zero(generator: np.random.Generator) -> Strokes:
    start = generator.uniform(-160, -20)
    turn = generator.choice([-1, 1]) * generator.uniform(335, 420)
    radii = generator.uniform(0.22, 0.42), 0.5
    strokes = [_arc((0.5, 0.5), radii, start, start + turn)]
    if generator.random() < 0.25:
        # The pen runs into the loop.
        end = strokes[0][-1]
        inside = _near(generator, [(0.45, 0.3), (0.55, 0.4)], 0.12)
        strokes = [np.concatenate([strokes[0], _curve([end, *inside])])]
    if generator.random() < 0.1:
        strokes.append(_line((0.8, 0.1), (0.2, 0.9)))
    return strokes


def _one(generator: np.random.Generator) -> Strokes:
    uniform = generator.uniform
    top = np.array([0.5, 0.0])
    bottom = np.array([0.5 + uniform(-0.12, 0.12), 1.0])
    stem = _curve([top, (top + bottom) / 2 + uniform(-0.03, 0.03, 2), bottom])
    if generator.random() < 0.1:
        return [stem]
    angle, length = np.radians(uniform(15, 65)), uniform(0.15, 0.95)
    tip = top + length * np.array([-np.sin(angle), np.cos(angle)])
    bend = (top + tip) / 2 + uniform(-0.1, 0.1, 2) * length
    strokes = [np.concatenate([_curve([tip, bend, top]), stem])]
    if generator.random() < 0.2:
        left, right = uniform(0.05, 0.35, 2)
        strokes.append(
            _line(bottom - np.array([left, 0]), bottom + np.array([right, 0]))
        )
    return strokes


def _two(generator: np.random.Generator) -> Strokes:
    uniform = generator.uniform
    top = [(0.08, 0.28), (0.25, 0.05), (0.6, 0.0), (0.85, 0.2), (0.7, 0.5)]
    corner = np.array([uniform(0.0, 0.15), uniform(0.88, 1.0)])
    path = [*_near(generator, top, 0.06), (0.4, 0.75), corner]
    end = (uniform(0.75, 1.1), uniform(0.85, 1.05))
    if generator.random() < 0.5:
        # A loop at the lower left.
        loop = [(0.02, 0.82), (0.2, 0.78), (0.45, 0.93)]
        path += [*_near(generator, loop, 0.05), end]
        return [_curve(path)]
    base = [corner, (0.5, uniform(0.88, 1.02)), end]
    return [np.concatenate([_curve(path), _curve(base)])]


def _three(generator: np.random.Generator) -> Strokes:
    waist = (generator.uniform(0.3, 0.55), generator.uniform(0.4, 0.5))
    lower = [(0.85, 0.65), (0.75, 0.92), (0.4, 1.0), (0.05, 0.85)]
    lower = list(_near(generator, lower, 0.06))
    if generator.random() < 0.3:
        # A flat top, as in a 7.
        flat = _near(generator, [(0.1, 0.02), (0.8, 0.0)], 0.05)
        first = np.concatenate([_line(*flat), _line(flat[-1], waist)])
        return [np.concatenate([first, _curve([waist, *lower])])]
    upper = [(0.1, 0.15), (0.4, 0.0), (0.75, 0.1), (0.7, 0.32)]
    upper = list(_near(generator, upper, 0.06))
    if generator.random() < 0.4:
        return [
            np.concatenate([_curve([*upper, waist]), _curve([waist, *lower])])
        ]
    return [_curve([*upper, waist, *lower])]


def _four(generator: np.random.Generator) -> Strokes:
    uniform = generator.uniform
    height = uniform(0.5, 0.75)
    left = (uniform(0.0, 0.15), height + uniform(-0.05, 0.05))
    right = (uniform(0.85, 1.15), height + uniform(-0.08, 0.08))
    if generator.random() < 0.6:
        # Open: an L and a stem that crosses it.
        top = (uniform(0.15, 0.5), 0.0)
        stem = _line(
            (uniform(0.55, 0.85), uniform(0.0, 0.45)), (uniform(0.45, 0.75), 1)
        )
        bend = ((top[0] + left[0]) / 2 + uniform(-0.08, 0.05), height / 2)
        down = _curve([top, bend, left])
        return [np.concatenate([down, _line(left, right)]), stem]
    top = (uniform(0.55, 0.75), 0.0)
    bottom = (top[0] + uniform(-0.12, 0.05), 1.0)
    return [_line(top, left, right), _line(top, bottom)]


def _five(generator: np.random.Generator) -> Strokes:
    uniform = generator.uniform
    top, waist = (uniform(0.15, 0.35), 0.0), (uniform(0.05, 0.25), 0.42)
    bowl = [(0.5, 0.35), (0.85, 0.6), (0.7, 0.92), (0.35, 1.0), (0.0, 0.88)]
    body = np.concatenate(
        [
            _line(top, waist),
            _curve([waist, *_near(generator, bowl, 0.06)]),
        ]
    )
    shift = generator.uniform(-0.06, 0.06, 2)
    bar = _line(np.add(top, shift), (uniform(0.7, 1.1), uniform(-0.1, 0.08)))
    return [body, bar]


def _six(generator: np.random.Generator) -> Strokes:
    points = [
        (generator.uniform(0.45, 0.85), 0.0),
        (0.25, 0.3),
        (0.1, 0.65),
        (0.3, 0.98),
        (0.7, 0.95),
        (0.8, 0.68),
        (0.5, 0.52),
        (0.18, 0.72),
    ]
    return [_curve(_near(generator, points, 0.06))]


def _seven(generator: np.random.Generator) -> Strokes:
    uniform = generator.uniform
    corner = np.array([uniform(0.75, 1.0), uniform(-0.05, 0.08)])
    left = np.array([uniform(0.0, 0.2), uniform(0.0, 0.12)])
    bottom = np.array([uniform(0.2, 0.6), 1.0])
    bend = (corner + bottom) / 2 + uniform(-0.12, 0.06, 2)
    stem = _curve([corner, bend, bottom])
    bar = _curve([left, (left + corner) / 2 + uniform(-0.06, 0.06, 2), corner])
    path = np.concatenate([bar, stem])
    if generator.random() < 0.4:
        hook = left + np.array([uniform(-0.08, 0.05), uniform(0.06, 0.22)])
        path = np.concatenate([_line(hook), path])
    strokes = [path]
    if generator.random() < 0.75:
        cross = stem[int(uniform(0.35, 0.65) * len(stem))]
        slope = uniform(-0.3, 0.15)
        a, b = uniform(0.12, 0.42, 2)
        along = np.array([1, slope])
        strokes.append(_line(cross - a * along, cross + b * along))
    return strokes


def _eight(generator: np.random.Generator) -> Strokes:
    phase = generator.uniform(0, 2 * np.pi)
    angle = phase + np.linspace(0, generator.uniform(6.0, 6.9), 60)
    upper = generator.uniform(0.2, 0.34)
    lower = generator.uniform(0.25, 0.4)
    y = 0.5 - 0.5 * np.cos(angle)
    width = np.where(y < 0.5, upper, lower)
    x = 0.5 + width * np.sin(2 * angle) * generator.choice([-1, 1])
    return [np.stack([x, y], axis=1)]


def _nine(generator: np.random.Generator) -> Strokes:
    uniform = generator.uniform
    radii = uniform(0.2, 0.36), uniform(0.18, 0.28)
    start = uniform(-60, 0)
    loop = _arc((0.5, radii[1]), radii, start, start - uniform(330, 380))
    side = np.array([0.5 + radii[0], radii[1] * 0.8])
    if generator.random() < 0.5:
        curl = [(0.0, 0.3), (-0.05, 0.6), (-0.35, 0.78), (-0.65, 0.68)]
        points = side + _near(generator, curl, 0.06) * [1, uniform(0.85, 1.1)]
        return [loop, _curve([side, *points])]
    bottom = (side[0] + uniform(-0.3, 0.05), 1.0)
    return [loop, _curve([side, (side + bottom) / 2, bottom])]


DIGITS = (
    _zero,
    _one,
    _two,
    _three,
    _four,
    _five,
    _six,
    _seven,
    _eight,
    _nine,
)
