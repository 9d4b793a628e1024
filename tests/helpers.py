"""What several tests use: backends, processes and photographs of digits."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy import ndimage

try:
    import tensorflow  # noqa: F401

    HAS_TENSORFLOW = True
except ImportError:
    HAS_TENSORFLOW = False

BACKEND = keras.backend.backend()
KERAS_VERSION = tuple(map(int, keras.version().split(".")[:2]))

needs_tensorflow = pytest.mark.needs_tensorflow

# What reads and writes files does not ask Keras what it computes with.
once = pytest.mark.skipif(
    HAS_TENSORFLOW and BACKEND != "tensorflow",
    reason="the same on every backend, runs on TensorFlow",
)

# What every backend would calculate alike.
on_default_backend = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="runs with the default backend"
)


on_torch = pytest.mark.skipif(
    BACKEND != "torch",
    reason="the same on every backend, runs on PyTorch, which starts fastest",
)


def since_keras(version, reason):
    """Marks a test of what earlier versions of Keras do not have."""
    return pytest.mark.skipif(KERAS_VERSION < version, reason=reason)


def in_order_of_keras(names):
    """Returns names of metrics in the order in which Keras logs them."""
    return names if KERAS_VERSION >= (3, 15) else sorted(names)


def run_python(code, *arguments, cwd=None):
    """Runs code in a process of its own and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def photograph(digit, generator):
    """Draws a digit on paper of some colour, in some light, size and place.

    Takes `(28, 28)` uint8; returns `(height, width, 3)` uint8.
    """
    height, width = generator.integers(60, 500, 2)
    smaller = min(height, width)
    field = generator.uniform(max(16, 0.12 * smaller), 0.95 * smaller)
    ink = _drawn(digit, (height, width), field / 28, generator)
    if generator.random() < 0.6:
        paper = _colour(generator, 150, 245)
        pen = generator.uniform(0, 80, 3)
    else:
        paper = _colour(generator, 10, 90)
        pen = generator.uniform(170, 255, 3)
    picture = paper + ink[..., np.newaxis] * (pen - paper)

    # Light that falls from one side and into the middle.
    y, x = np.mgrid[:height, :width]
    y, x = y / height - 0.5, x / width - 0.5
    angle = generator.uniform(0, 2 * np.pi)
    slope = generator.uniform(0, 0.5) * (np.sin(angle) * y + np.cos(angle) * x)
    light = 1 + slope + generator.uniform(-0.3, 0.3) * (y**2 + x**2)
    picture *= light[..., np.newaxis]
    # Grain of the sensor and of the paper.
    picture += generator.normal(0, generator.uniform(1, 12), picture.shape)
    grain = ndimage.gaussian_filter(generator.normal(0, 1, (height, width)), 2)
    picture += generator.uniform(0, 30) * grain[..., np.newaxis]
    return np.clip(np.rint(picture), 0, 255).astype("uint8")


def _colour(generator, low, high):
    """Draws a colour that is not far from grey."""
    colour = generator.uniform(low, high, 3)
    return 0.7 * colour.mean() + 0.3 * colour


def _drawn(digit, size, scale, generator):
    """Returns a digit rotated by up to 10 degrees, all of it in the picture."""
    angle = np.radians(generator.uniform(-10, 10))
    turn = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    pixels = np.argwhere(digit > 0)
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) / 2
    reach = (pixels - middle) * scale @ turn.T
    first, last = 2 + scale - reach.min(axis=0), reach.max(axis=0) + 2 + scale
    place = generator.uniform(first, np.maximum(first, size - last))
    # Where in the digit each pixel of the picture lies.
    grid = np.indices(size).reshape(2, -1).T
    sources = (grid - place) / scale @ turn + middle
    drawn = ndimage.map_coordinates(digit / 255, sources.T, order=1)
    drawn = drawn.reshape(size)
    if scale > 2:
        # Pens have sharp edges.
        blurred = ndimage.gaussian_filter(drawn, scale / 3)
        drawn = np.clip(2 * (blurred - 0.25), 0, 1)
    return drawn
