"""Brighter ground below digits, for the presets' training."""

from typing import Any

import keras
from keras import ops


class RandomGround(keras.layers.Layer):
    """Puts half of the images on brighter ground, in training.

    Without it, a network that is accurate on MNIST's black ground misreads most
    digits on grey.

    Args:
        inverted: Number from 0 to 1. The share of images of which a rectangle
            is inverted, as if paper and ink changed places.
        seed: Integer.
    """

    def __init__(self, inverted: float = 0.0, seed: int | None = None) -> None:
        super().__init__(dtype="float32")
        self.inverted = inverted
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        if not training:
            return images
        count, height, width, _ = ops.shape(images)

        def draw(maximum: float, *shape: int) -> Any:
            return keras.random.uniform(shape, 0, maximum, seed=self.generator)

        images = ops.cast(images, "float32")
        is_bright = ops.cast(draw(1.0, count, 1, 1, 1) < 0.5, "float32")
        amount = draw(0.7, count, 1, 1, 1) * is_bright
        images = ops.round(images + amount * (255.0 - images))
        chosen = draw(1.0, count, 1, 1, 1) < self.inverted
        for axis, size in ((1, height), (2, width)):
            ends = draw(float(size), count, 2)
            shape = [count, 1, 1, 1]
            first, last = (
                ops.reshape(end(ends, axis=1), shape)
                for end in (ops.min, ops.max)
            )
            shape = [1, 1, 1, 1]
            shape[axis] = size
            places = ops.reshape(ops.arange(size, dtype="float32"), shape)
            inside = (places >= first) & (places < last)
            # Not in place, which PyTorch does not broadcast.
            chosen = chosen & inside
        return ops.where(chosen, 255.0 - images, images)
