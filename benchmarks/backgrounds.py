"""Distorted digits on brighter ground, for the presets' training."""

from typing import Any

import numpy as np

from keras_lenet import RandomDistortion


class DistortionAndGround:
    """Distorts images, and puts half of them on brighter ground.

    Without it, a network that is accurate on MNIST's black ground misreads most
    digits on grey.

    Args:
        inverted: Number from 0 to 1. The share of images of which a rectangle
            is inverted, as if paper and ink changed places.
    """

    def __init__(self, inverted: float = 0.0) -> None:
        self.distort = RandomDistortion()
        self.inverted = inverted

    def __call__(self, images: Any, generator: Any) -> Any:
        images = self.distort(images, generator)
        count, height, width, _ = images.shape
        amounts = generator.uniform(0, 0.7, (count, 1, 1, 1))
        amounts *= generator.random(amounts.shape) < 0.5
        bright = np.rint(images + amounts * (255.0 - images)).astype("uint8")
        for index in np.flatnonzero(generator.random(count) < self.inverted):
            top, bottom = np.sort(generator.integers(0, height + 1, 2))
            left, right = np.sort(generator.integers(0, width + 1, 2))
            bright[index, top:bottom, left:right] ^= 255
        return bright
