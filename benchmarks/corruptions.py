"""The 15 corruptions of MNIST-C, made by the text of its paper.

The paper is https://arxiv.org/abs/1906.02337. Each function takes images of
shape `(n, 28, 28)` with values from 0 to 1 and a generator, and returns images
of the same shape. What its code leaves open, or takes from image libraries, is
chosen here: the images are not those of MNIST-C.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

Images = np.ndarray
Generator = np.random.Generator

_SAME = np.eye(2)


def corrupt(name: str, images: Images, seed: int = 98) -> Images:
    """Returns uint8 images that `CORRUPTIONS[name]` has corrupted.

    Args:
        name: String. The name of the corruption.
        images: uint8 array of shape `(n, 28, 28)`.
        seed: Integer. The same seed gives the same images.
    """
    generator = np.random.default_rng(seed)
    corrupted = CORRUPTIONS[name](images / 255.0, generator)
    return np.rint(np.clip(corrupted, 0, 1) * 255).astype("uint8")


def shot_noise(images: Images, generator: Generator) -> Images:
    """Counts of photons, 5 for white."""
    return generator.poisson(images * 5) / 5


def impulse_noise(images: Images, generator: Generator) -> Images:
    """A tenth of the pixels are black or white."""
    noise = generator.random(images.shape)
    return np.where(noise < 0.05, 0, np.where(noise > 0.95, 1, images))


def glass_blur(images: Images, generator: Generator) -> Images:
    """Pixels change places with neighbours, between two blurs of 0.7 pixels."""
    images = ndimage.gaussian_filter(images, (0, 0.7, 0.7))
    size = images.shape[1]
    rows, columns = np.mgrid[:size, :size]
    for _ in range(2):
        moved = generator.integers(-1, 2, (2, *images.shape))
        images = images[
            np.arange(len(images))[:, np.newaxis, np.newaxis],
            np.clip(rows + moved[0], 0, size - 1),
            np.clip(columns + moved[1], 0, size - 1),
        ]
    return np.asarray(ndimage.gaussian_filter(images, (0, 0.7, 0.7)))


def motion_blur(images: Images, generator: Generator) -> Images:
    """The mean along a line of 9 pixels, at up to 45 degrees."""
    angles = generator.uniform(-np.pi / 4, np.pi / 4, len(images))
    steps = np.arange(-4, 5)
    return np.mean(
        [
            warp(images, shift=(step * np.sin(angles), step * np.cos(angles)))
            for step in steps
        ],
        axis=0,
    )


def shear(images: Images, generator: Generator) -> Images:
    """Vertical strokes lean by 0.5 pixels per row, to either side."""
    signs = _signs(images, generator)
    matrix = np.zeros((len(images), 2, 2)) + np.eye(2)
    matrix[:, 1, 0] = 0.5 * signs
    return warp(images, matrix)


def scale(images: Images, generator: Generator) -> Images:
    """Half the size."""
    return warp(images, 2 * np.eye(2))


def rotate(images: Images, generator: Generator) -> Images:
    """By 30 degrees, to either side."""
    return warp(images, rotation(np.radians(30) * _signs(images, generator)))


def brightness(images: Images, generator: Generator) -> Images:
    """Black becomes grey, 0.5 brighter."""
    return images + 0.5


def translate(images: Images, generator: Generator) -> Images:
    """By up to 5 pixels along each axis."""
    return warp(images, shift=generator.uniform(-5, 5, (2, len(images))))


def stripe(images: Images, generator: Generator) -> Images:
    """The 7 columns at each side are inverted."""
    images = images.copy()
    for side in (slice(None, 7), slice(-7, None)):
        images[:, :, side] = 1 - images[:, :, side]
    return images


def fog(images: Images, generator: Generator) -> Images:
    """Clouds of all sizes, as bright as the digit."""
    clouds = np.zeros(images.shape)
    for points in (2, 4, 8, 16):
        noise = generator.random((len(images), points, points))
        zoom = (1, *(size / points for size in images.shape[1:]))
        clouds += ndimage.zoom(noise, zoom, order=1) / points**0.5
    clouds /= clouds.max(axis=(1, 2), keepdims=True)
    return (images + clouds) / (1 + clouds.max())


def spatter(images: Images, generator: Generator) -> Images:
    """Bright drops on a tenth of the image."""
    noise = generator.normal(size=images.shape)
    noise = ndimage.gaussian_filter(noise, (0, 1.2, 1.2))
    level = np.quantile(noise, 0.9, axis=(1, 2), keepdims=True)
    return np.maximum(images, np.where(noise > level, 0.8, 0))


def dotted_line(images: Images, generator: Generator) -> Images:
    """A dotted line across the image."""
    return _draw(images, generator, kinks=0, gap=4)


def zigzag(images: Images, generator: Generator) -> Images:
    """A line that goes up and down four times across the image."""
    return _draw(images, generator, kinks=4, gap=1)


def canny_edges(images: Images, generator: Generator) -> Images:
    """White outlines: the ink that touches the background."""
    ink = images > 0.5
    inside = ndimage.minimum_filter(ink, (1, 3, 3), mode="constant")
    return (ink & ~inside).astype(float)


CORRUPTIONS: dict[str, Callable[[Images, Generator], Images]] = {
    function.__name__: function
    for function in (
        shot_noise,
        impulse_noise,
        glass_blur,
        motion_blur,
        shear,
        scale,
        rotate,
        brightness,
        translate,
        stripe,
        fog,
        spatter,
        dotted_line,
        zigzag,
        canny_edges,
    )
}


def rotation(angles: Any) -> np.ndarray:
    """Returns matrices that rotate by angles in radians."""
    sin, cos = np.sin(angles), np.cos(angles)
    return np.moveaxis(np.array([[cos, sin], [-sin, cos]]), 2, 0)


def warp(images: Images, matrix: Any = _SAME, shift: Any = (0, 0)) -> Images:
    """Maps the output's pixels through a matrix about the middle, and shifts.

    Args:
        images: Array of shape `(n, height, width)`.
        matrix: Array of shape `(2, 2)`, or `(n, 2, 2)` for one per image.
        shift: Rows and columns to shift by: numbers, or arrays of shape `(n,)`.
    """
    count, height, width = images.shape
    matrix = np.broadcast_to(matrix, (count, 2, 2))
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.moveaxis(np.mgrid[:height, :width], 0, -1) - middle
    places = np.einsum("nij,hwj->inhw", matrix, grid)
    places += middle[:, np.newaxis, np.newaxis, np.newaxis]
    places -= np.asarray(shift).reshape(2, -1, 1, 1)
    which = np.broadcast_to(
        np.arange(count)[:, np.newaxis, np.newaxis], places[0].shape
    )
    warped = ndimage.map_coordinates(images, [which, *places], order=1)
    return np.asarray(warped)


def _signs(images: Images, generator: Generator) -> np.ndarray:
    return np.asarray(generator.choice([-1, 1], len(images)))


def _draw(images: Images, generator: Generator, kinks: int, gap: int) -> Images:
    """Draws a line from the left to the right, with kinks and gaps."""
    count, height, width = images.shape
    columns = np.arange(width)
    ends = generator.uniform(0.2, 0.8, (2, count, 1)) * (height - 1)
    rows = ends[0] + (ends[1] - ends[0]) * columns / (width - 1)
    if kinks:
        phase = columns * kinks / width
        rows = rows + 6 * np.abs(phase % 1 - 0.5) * 2 - 3
    distance = np.abs(np.arange(height)[:, np.newaxis] - rows[:, np.newaxis])
    line = np.clip(1.5 - distance, 0, 1) * (columns % gap < max(1, gap // 2))
    return np.maximum(images, line)
