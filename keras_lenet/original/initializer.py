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
    """Draws uniformly from `[-1 / sqrt(fan_in), 1 / sqrt(fan_in)]`.

    The 1998 paper draws from `[-2.4 / fan_in, 2.4 / fan_in]`
    (https://doi.org/10.1109/5.726791, appendix A). With that range, the
    learning rates of the first epoch reach 0.025, but the paper reports 7e-5 to
    0.016 (appendix C). With the range of this class, which the authors' later
    code has, they agree.

    Args:
        fan_in: Integer, the number of a unit's inputs, or a sequence of
            integers along the last axis.
        seed: Integer or `keras.random.SeedGenerator`. Defaults to a random
            seed.

    Raises:
        ValueError: If `fan_in` is not positive integers.

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
                "`fan_in` must be a positive integer or a sequence of them. "
                f"Received: fan_in={fan_in!r}"
            )
        self.fan_in = np.asarray(fan_in).tolist()
        self.seed = seed
        self._uniform = keras.initializers.RandomUniform(-1, 1, seed=seed)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        values = self._uniform(shape, dtype=dtype)
        scale = np.asarray(self.fan_in, "float32") ** -0.5
        return values * ops.cast(scale, values.dtype)

    def get_config(self) -> dict[str, Any]:
        seed = self._uniform.get_config()["seed"]
        return {"fan_in": self.fan_in, "seed": seed}
