"""The optimizer of the 1998 paper."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor


@keras.saving.register_keras_serializable(package="keras_lenet")
class LevenbergMarquardt(keras.optimizers.Optimizer):
    """Gradient descent with a rate of its own for each parameter.

    Each parameter moves by its gradient times
    `learning_rate / (mu + curvature)`, where the curvature is an estimate of
    the second derivative of the loss (https://doi.org/10.1109/5.726791,
    appendix C). `keras_lenet.CurvatureEstimation` is the callback that
    estimates it; before it has, curvatures are 1.

    Args:
        learning_rate: Number or schedule, the paper's global rate. Defaults
            to `0.0005`, the paper's for the first two passes.
        mu: Number above 0. It keeps rates from becoming too large where the
            curvature is small. Defaults to `0.02`.
        name: String. The name of the optimizer.
        **kwargs: As for any Keras optimizer.

    Raises:
        ValueError: When `mu` is not above 0.

    Example:

    >>> from keras_lenet.original import LevenbergMarquardt
    >>> LevenbergMarquardt(mu=0.1).mu
    0.1
    """

    def __init__(
        self,
        learning_rate: Any = 0.0005,
        mu: float = 0.02,
        name: str = "levenberg_marquardt",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        if not (isinstance(mu, (int, float, np.number)) and 0 < mu < np.inf):
            raise ValueError(
                f"`mu` must be a number above 0. Received: mu={mu!r}"
            )
        self.mu = float(mu)

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.curvatures = self.add_optimizer_variables(
            variables, "curvature", initializer="ones"
        )

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        curvature = self.curvatures[self._get_variable_index(variable)]
        rate = ops.cast(learning_rate, variable.dtype) / (curvature + self.mu)
        self.assign_sub(variable, rate * ops.cast(gradient, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mu": self.mu}
