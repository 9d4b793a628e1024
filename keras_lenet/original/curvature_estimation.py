"""Estimation of curvatures inside `fit`."""

from typing import Any

import numpy as np

from keras_lenet.callbacks.periodic import PeriodicCallback
from keras_lenet.original.curvature import diagonal_curvature
from keras_lenet.original.optimizer import LevenbergMarquardt
from keras_lenet.validation.arguments import is_positive_integer


class CurvatureEstimation(PeriodicCallback):
    """Estimates the curvatures that `LevenbergMarquardt` divides by.

    It does so before the training and anew every so often, on a sample of the
    training data each time (https://doi.org/10.1109/5.726791, appendix C).

    Args:
        x: NumPy array of images, shape `(samples, height, width, channels)`.
        y: NumPy array of integer labels, shape `(samples,)`.
        freq: Integer number of training steps, or `"epoch"`: how often.
            Defaults to `"epoch"`.
        sample_size: Integer. How many images each estimate draws. Defaults to
            `500`.
        seed: Integer. Decides which. Defaults to `0`.

    Raises:
        ValueError: When an argument is not of the form above, or, as the
            training begins, the model is not one that `diagonal_curvature`
            takes or is not compiled with `LevenbergMarquardt`.

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
        self.images = np.asarray(x)
        self.labels = np.asarray(y)
        if not is_positive_integer(sample_size) or not (
            sample_size <= len(self.images) == len(self.labels)
        ):
            raise ValueError(
                "`x` and `y` must have as many samples, and `sample_size` be "
                f"from 1 to that. Received: {len(self.images)} and "
                f"{len(self.labels)}, sample_size={sample_size!r}"
            )
        self.sample_size = int(sample_size)
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
        """Estimates the curvatures anew."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        # A function of the step, so that a resumed training goes on with it.
        generator = np.random.default_rng([self.seed, step])
        chosen = generator.choice(
            len(self.images), self.sample_size, replace=False
        )
        found = diagonal_curvature(
            self.model, self.images[chosen], self.labels[chosen]
        )
        for variable, curvature in zip(
            optimizer.curvatures, found, strict=True
        ):
            variable.assign(curvature)
