"""The optimizer of the 1998 paper."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor


@keras.saving.register_keras_serializable(package="keras_lenet")
class LevenbergMarquardt(keras.optimizers.Optimizer):
    """Gradient descent with a separate learning rate for each parameter.

    The learning rate of a parameter is `learning_rate / (mu + curvature)`. Its
    curvature is an estimate of the loss's second derivative
    (https://doi.org/10.1109/5.726791, appendix C). Curvatures are 1 until the
    callback `keras_lenet.CurvatureEstimation` estimates them.

    Args:
        learning_rate: Number or schedule, the paper's global rate. Defaults
            to `0.0005`, the paper's rate in the first two epochs.
        mu: Number above 0. It limits the learning rates of parameters with a
            small curvature. Defaults to `0.02`.
        name: String. The name of the optimizer.
        **kwargs: As for any Keras optimizer.

    Raises:
        ValueError: If `mu` is not above 0.

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
