"""The output layer of the 1998 paper."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor


@keras.saving.register_keras_serializable(package="keras_lenet")
class EuclideanRBF(keras.layers.Layer):
    """Computes squared distances to fixed codes, one for each class.

    Distance `i` is the sum over `j` of `(x[j] - codes[i][j]) ** 2`. It is small
    if the input is like the code (https://doi.org/10.1109/5.726791,
    equation 7). The codes are not trainable: otherwise all distances could
    vanish because inputs and codes become equal.

    Args:
        codes: Array of shape `(num_classes, size)`.
        **kwargs: `name` and `dtype`, as for any Keras layer. Inputs and codes
            are cast to the compute dtype, which must be a float dtype.

    Input shape:
        `(..., size)`.

    Output shape:
        `(..., num_classes)`.

    Raises:
        ValueError: If `codes` are not finite or have another rank, `dtype` is
            not a float dtype, or the inputs have another size than the codes.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.original import EuclideanRBF
    >>> layer = EuclideanRBF([[1, -1], [1, 1]])
    >>> [float(d) for d in layer(np.array([[1.0, -1.0]]))[0]]
    [0.0, 4.0]
    """

    def __init__(self, codes: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.codes = np.asarray(codes, "float64")
        if (
            self.codes.ndim != 2
            or 0 in self.codes.shape
            or not np.isfinite(self.codes).all()
        ):
            raise ValueError(
                "`codes` must be finite and of shape (num_classes, size). "
                f"Received: codes={codes!r}"
            )
        if not keras.backend.is_float_dtype(self.compute_dtype):
            raise ValueError(
                "`dtype` must be a float dtype, as others truncate codes. "
                f"Received: dtype={self.compute_dtype!r}"
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if input_shape[-1] != self.codes.shape[1]:
            raise ValueError(
                f"`{type(self).__name__}` expects inputs of shape (..., "
                f"{self.codes.shape[1]}), the size of the codes. "
                f"Received: inputs of shape {tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})

    def call(self, inputs: Tensor) -> Tensor:
        # Keras does not cast integers.
        inputs = ops.cast(inputs, self.compute_dtype)
        codes = ops.cast(self.codes, self.compute_dtype)
        return ops.sum((ops.expand_dims(inputs, -2) - codes) ** 2, axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], len(self.codes))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "codes": self.codes.tolist()}
