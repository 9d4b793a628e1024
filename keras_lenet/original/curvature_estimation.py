"""Estimates curvatures inside `fit`."""

from typing import Any

import numpy as np

from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.original.curvature import diagonal_curvature
from keras_lenet.original.optimizer import LevenbergMarquardt
from keras_lenet.types import Array
from keras_lenet.validation.arguments import is_positive_integer


class CurvatureEstimation(PeriodicCallback):
    """Estimates the curvatures that `LevenbergMarquardt` divides by.

    It draws a sample of the training data, when `fit` begins and then at each
    multiple of `freq` (https://doi.org/10.1109/5.726791, appendix C).

    Args:
        x: NumPy array of images, shape `(samples, height, width, channels)`.
        y: NumPy array of integer labels, shape `(samples,)`.
        freq: Integer, the number of training steps between estimates, or
            `"epoch"`. Defaults to `"epoch"`.
        sample_size: Integer. The number of images per estimate. Defaults to
            `500`.
        seed: Integer. Decides which images are drawn. Defaults to `0`.

    Raises:
        ValueError: If `x` and `y` have different lengths, `sample_size` is not
            from 1 to that length, or `freq` is invalid. From `fit`: if the
            optimizer is not `LevenbergMarquardt`, or `diagonal_curvature` does
            not support the model.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import CurvatureEstimation
    >>> x, y = np.zeros((9, 28, 28, 1), "uint8"), np.arange(9)
    >>> CurvatureEstimation(x, y, sample_size=5).sample_size
    5
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        freq: int | str = "epoch",
        sample_size: int = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(freq, strict=True)
        self.images: Array = np.asarray(x)
        self.labels: Array = np.asarray(y)
        if not is_positive_integer(sample_size) or not (
            sample_size <= len(self.images) == len(self.labels)
        ):
            raise ValueError(
                "`x` and `y` must have the same length, and `sample_size` must "
                f"be from 1 to that. Received: lengths {len(self.images)} and "
                f"{len(self.labels)}, sample_size={sample_size!r}"
            )
        self.sample_size: int = int(sample_size)
        self.seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if not isinstance(self.model.optimizer, LevenbergMarquardt):
            raise ValueError(
                f"`{type(self).__name__}` needs a model compiled with "
                "`LevenbergMarquardt`. Received: optimizer="
                f"{self.model.optimizer!r}"
            )
        self.on_interval(0, 0)

    def on_interval(self, step: int, epoch: int) -> None:
        """Assigns new estimates to the optimizer's curvatures."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        # Seed with the step, so that a resumed run draws the same samples.
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.choice(
            len(self.images), self.sample_size, replace=False
        )
        estimates = diagonal_curvature(
            self.model, self.images[chosen], self.labels[chosen]
        )
        for variable, estimate in zip(
            optimizer.curvatures, estimates, strict=True
        ):
            variable.assign(estimate)
