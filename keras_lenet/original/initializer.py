"""The initial weights of the 1998 paper."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor
from keras_lenet.validation.arguments import is_positive_integer


@keras.saving.register_keras_serializable(package="keras_lenet")
class UniformByFanIn(keras.initializers.Initializer):
    """Uniform numbers, within 1 by the square root of a unit's inputs.

    The 1998 paper says 2.4 by their number
    (https://doi.org/10.1109/5.726791, appendix A). With that the learning rates
    of its first pass are not those that it reports (appendix C: 7e-5 to 0.016)
    but up to 0.025; with this, which its authors' later code has, they are.

    Args:
        fan_in: Integer, or sequence of integers along the last axis.
        seed: Integer or `keras.random.SeedGenerator`. By default another one
            each time.

    Example:

    >>> import keras
    >>> from keras_lenet.original import UniformByFanIn
    >>> weights = UniformByFanIn(25)((5, 5, 6))
    >>> bool(keras.ops.max(keras.ops.abs(weights)) <= 0.2)
    True
    """

    def __init__(self, fan_in: int | Sequence[int], seed: Any = None) -> None:
        sizes = np.atleast_1d(np.asarray(fan_in, "object"))
        if sizes.ndim != 1 or not all(map(is_positive_integer, sizes)):
            raise ValueError(
                "`fan_in` must be a positive integer, or a sequence of them. "
                f"Received: fan_in={fan_in!r}"
            )
        self.fan_in = np.asarray(fan_in).tolist()
        self.seed = seed
        self._uniform = keras.initializers.RandomUniform(-1, 1, seed=seed)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        drawn = self._uniform(shape, dtype=dtype)
        scale = np.asarray(self.fan_in, "float32") ** -0.5
        return drawn * ops.cast(scale, drawn.dtype)

    def get_config(self) -> dict[str, Any]:
        seed = self._uniform.get_config()["seed"]
        return {"fan_in": self.fan_in, "seed": seed}
