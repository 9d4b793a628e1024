"""The layers of the 1998 paper."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor
from keras_lenet.validation.arguments import is_positive_integer


@keras.saving.register_keras_serializable(  # type: ignore[untyped-decorator]
    package="keras_lenet"
)
def scaled_tanh(x: Tensor) -> Tensor:
    """Squashes as the 1998 paper does: `1.7159 * tanh(2 / 3 * x)`.

    It takes 1 to about 1 and -1 to about -1, where its second derivative is
    largest (https://doi.org/10.1109/5.726791, appendix A).

    Args:
        x: Tensor of any shape.

    Returns:
        Tensor of the same shape, from -1.7159 to 1.7159.

    Example:

    >>> from keras_lenet.original import scaled_tanh
    >>> round(float(scaled_tanh(1.0)), 4)
    1.0
    """
    # TensorFlow does not multiply integers by floats itself.
    return 1.7159 * ops.tanh(ops.multiply(2 / 3, x))


class WeightedSum(keras.layers.Layer):
    """Base class of layers that weigh inputs, add a bias, and squash the sums.

    Subclasses implement `weigh`, which must be linear in the inputs and linear
    in the kernel. `diagonal_curvature` relies on this to propagate second
    derivatives.

    Args:
        activation: String or callable. The activation function. If `None`, no
            activation is applied.
        use_bias: Boolean. Whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of the kernel. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: Optional regularizer of the kernel.
        bias_regularizer: Optional regularizer of the bias.
        activity_regularizer: Optional regularizer of the outputs.
        kernel_constraint: Optional constraint on the kernel.
        bias_constraint: Optional constraint on the bias.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.
    """

    kernel: Any
    bias: Any

    def __init__(
        self,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def weigh(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Returns the sums before the bias is added."""
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        # Keras casts floats to the compute dtype, but not integers. Sums of
        # bytes would overflow.
        inputs = ops.cast(inputs, self.compute_dtype)
        outputs = self.weigh(inputs, self.kernel)
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def _add_weights(
        self, input_shape: tuple[int | None, ...], *shape: int
    ) -> None:
        self.input_spec = keras.layers.InputSpec(
            ndim=4, axes={-1: input_shape[-1]}
        )
        maps = self.compute_output_shape(input_shape)[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=shape,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(maps,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "bias_initializer": keras.initializers.serialize(
                self.bias_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "bias_regularizer": keras.regularizers.serialize(
                self.bias_regularizer
            ),
            "activity_regularizer": keras.regularizers.serialize(
                self.activity_regularizer
            ),
            "kernel_constraint": keras.constraints.serialize(
                self.kernel_constraint
            ),
            "bias_constraint": keras.constraints.serialize(
                self.bias_constraint
            ),
        }


@keras.saving.register_keras_serializable(package="keras_lenet")
class TrainableSubsampling2D(WeightedSum):
    """Halves maps: sums of 2x2 pixels times a coefficient, plus a bias.

    There is one coefficient and one bias for each map, both trainable
    (https://doi.org/10.1109/5.726791, section II-B).

    Args:
        activation: String or callable. The activation function. If `None`, no
            activation is applied.
        use_bias: Boolean. Whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of the coefficients. If `None`, they
            start at 0.25, with which the layer takes the mean.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: Optional regularizer of the coefficients.
        bias_regularizer: Optional regularizer of the bias.
        activity_regularizer: Optional regularizer of the outputs.
        kernel_constraint: Optional constraint on the coefficients.
        bias_constraint: Optional constraint on the bias.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Input shape:
        `(batch, height, width, maps)`, height and width at least 2. An odd
        last row or column is left out.

    Output shape:
        `(batch, height // 2, width // 2, maps)`.

    Raises:
        ValueError: When inputs are not of the form above.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_lenet.original import TrainableSubsampling2D
    >>> layer = TrainableSubsampling2D()
    >>> images = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> keras.ops.convert_to_numpy(layer(images)).item(), layer.count_params()
    (1.5, 2)
    """

    def __init__(
        self,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.Constant(0.25)
        super().__init__(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._add_weights(input_shape, _channels(self, input_shape))

    def weigh(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        self.compute_output_shape(tuple(inputs.shape))
        # TensorFlow may know sizes only when it runs.
        height, width = (size // 2 * 2 for size in ops.shape(inputs)[1:3])
        sums = sum(
            inputs[:, row:height:2, column:width:2]
            for row, column in np.ndindex(2, 2)
        )
        return sums * kernel

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        batch, height, width, maps = input_shape
        if 0 in (_half(height), _half(width)):
            raise ValueError(
                f"`{type(self).__name__}` expects images of at least 2x2 "
                f"pixels. Received: inputs of shape {tuple(input_shape)}"
            )
        return batch, _half(height), _half(width), maps


@keras.saving.register_keras_serializable(package="keras_lenet")
class TableConv2D(WeightedSum):
    """A convolution in which each map sees some of the maps before it.

    A table says which. What it does not connect has no weight, no gradient
    and no state of the optimizer, as C3 of the 1998 paper
    (https://doi.org/10.1109/5.726791, table I); its convolutions have no
    padding and a stride of 1. They are calculated as matrix products, which
    unlike `keras.layers.Conv2D` are fast in loops that XLA compiles for a CPU.

    Args:
        table: Integer, how many maps there are, each of which sees all; or
            for each map the numbers of those that it sees, as a sequence of
            sequences or a NumPy array of shape `(maps, seen)`.
        kernel_size: Integer or tuple of 2 integers. Height and width of the
            kernels. Defaults to `5`.
        activation: String or callable. The activation function. If `None`, no
            activation is applied.
        use_bias: Boolean. Whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of the kernels. Defaults to
            `"glorot_uniform"`.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: Optional regularizer of the kernels.
        bias_regularizer: Optional regularizer of the bias.
        activity_regularizer: Optional regularizer of the outputs.
        kernel_constraint: Optional constraint on the kernels.
        bias_constraint: Optional constraint on the bias.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Input shape:
        `(batch, height, width, channels)`, height and width at least those of
        the kernels and known.

    Output shape:
        `(batch, height - kernel_size[0] + 1, width - kernel_size[1] + 1,
        maps)`.

    Raises:
        ValueError: When `table` or `kernel_size` is not of the form above,
            the table names a map that is not there, or images are smaller
            than kernels.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.original import TableConv2D
    >>> layer = TableConv2D([[0], [0, 1]], kernel_size=3)
    >>> tuple(layer(np.ones((1, 5, 5, 2))).shape)
    (1, 3, 3, 2)
    >>> layer.count_params()  # 3 kernels of 3x3, 2 biases
    29
    """

    def __init__(
        self,
        table: int | Sequence[Sequence[int]] | np.ndarray[Any, Any],
        kernel_size: int | tuple[int, int] = 5,
        activation: str | Callable[[Tensor], Tensor] | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.table = _standardize_table(table)
        self.kernel_size = _standardize_kernel_size(kernel_size)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = _channels(self, input_shape)
        if isinstance(self.table, int):
            self._add_weights(
                input_shape, *self.kernel_size, channels, self.table
            )
            return
        if max(map(max, self.table)) >= channels:
            raise ValueError(
                f"`table` must name maps from 0 to {channels - 1}, as there "
                f"are {channels}. Received: table={self.table}"
            )
        pairs = [
            source * len(self.table) + number
            for number, sources in enumerate(self.table)
            for source in sources
        ]
        # Which kernel lies between which two maps.
        self._places = np.zeros(
            (len(pairs), channels * len(self.table)), "float32"
        )
        self._places[range(len(pairs)), pairs] = 1
        self._add_weights(input_shape, *self.kernel_size, len(pairs))

    def weigh(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        tall, wide = self.kernel_size
        rows, columns = self._output_size(tuple(inputs.shape))
        channels = inputs.shape[-1]
        # First along rows, then along columns: of 5 + 5 slices instead of
        # 5 * 5, a training step of `OriginalLeNet5` takes 0.7 of the time
        # (JAX, a CPU, one image).
        seen = ops.stack(
            [inputs[:, :, start : start + columns] for start in range(wide)],
            axis=3,
        )
        seen = ops.stack(
            [seen[:, start : start + rows] for start in range(tall)], axis=3
        )
        seen = ops.reshape(seen, (-1, rows, columns, tall * wide * channels))
        if not isinstance(self.table, int):
            kernel = ops.matmul(
                ops.reshape(kernel, (tall * wide, -1)),
                ops.cast(self._places, kernel.dtype),
            )
        return ops.matmul(
            seen, ops.reshape(kernel, (tall * wide * channels, -1))
        )

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        maps = self.table if isinstance(self.table, int) else len(self.table)
        return (input_shape[0], *self._output_size(input_shape), maps)

    def _output_size(self, input_shape: tuple[int | None, ...]) -> list[int]:
        sizes = [
            size - kernel + 1
            for size, kernel in zip(
                input_shape[1:3], self.kernel_size, strict=True
            )
            if size is not None
        ]
        if len(sizes) != 2 or min(sizes) < 1:
            raise ValueError(
                f"`{type(self).__name__}` expects images of a known size, at "
                f"least {self.kernel_size[0]}x{self.kernel_size[1]}. "
                f"Received: inputs of shape {tuple(input_shape)}"
            )
        return sizes

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "table": self.table,
            "kernel_size": self.kernel_size,
        }


@keras.saving.register_keras_serializable(package="keras_lenet")
class EuclideanRBF(keras.layers.Layer):
    """Squared distances to fixed codes, one for each class.

    Distance `i` is the sum over `j` of `(x[j] - codes[i][j]) ** 2`, small
    when the input is like the code (https://doi.org/10.1109/5.726791,
    equation 7). The codes do not learn: if they did, all distances could
    become small by inputs and codes all being equal.

    Args:
        codes: Array of shape `(num_classes, size)`.
        **kwargs: `name` and `dtype`, as for any Keras layer. Inputs and codes
            are cast to the compute dtype, which must be a float.

    Input shape:
        `(..., size)`.

    Output shape:
        `(..., num_classes)`.

    Raises:
        ValueError: When `codes` or `dtype` is not of the form above, or
            inputs have another size.

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
                "`codes` must be finite, of shape (num_classes, size). "
                f"Received: codes={codes!r}"
            )
        if not keras.backend.is_float_dtype(self.compute_dtype):
            raise ValueError(
                "`dtype` must compute in a float dtype, or codes would be "
                f"truncated. Received: dtype={self.compute_dtype!r}"
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if input_shape[-1] != self.codes.shape[1]:
            raise ValueError(
                f"`{type(self).__name__}` expects inputs of shape (..., "
                f"{self.codes.shape[1]}), as long as the codes. "
                f"Received: inputs of shape {tuple(input_shape)}"
            )
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})

    def call(self, inputs: Tensor) -> Tensor:
        # Keras casts floats to the compute dtype, but not integers.
        inputs = ops.cast(inputs, self.compute_dtype)
        codes = ops.cast(self.codes, self.compute_dtype)
        return ops.sum((ops.expand_dims(inputs, -2) - codes) ** 2, axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], len(self.codes))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "codes": self.codes.tolist()}


def _standardize_table(table: Any) -> int | list[list[int]]:
    """Returns a table of Python's own integers."""
    if is_positive_integer(table):
        return int(table)
    if not _is_sequence(table) or not all(map(_is_table_row, table)):
        raise ValueError(
            "`table` must be a positive integer, or for each map the "
            "numbers of those that it sees, each once. "
            f"Received: table={table!r}"
        )
    return [[int(source) for source in sources] for sources in table]


def _is_table_row(sources: Any) -> bool:
    return (
        _is_sequence(sources)
        and all(
            isinstance(source, (int, np.integer))
            and not isinstance(source, bool)
            and source >= 0
            for source in sources
        )
        and len(set(sources)) == len(sources)
    )


def _is_sequence(value: Any) -> bool:
    """Returns whether a value has elements, of which there are some."""
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    return (is_array or isinstance(value, Sequence)) and len(value) > 0


def _standardize_kernel_size(kernel_size: Any) -> tuple[int, int]:
    sizes = kernel_size if _is_sequence(kernel_size) else [kernel_size] * 2
    if len(sizes) != 2 or not all(map(is_positive_integer, sizes)):
        raise ValueError(
            "`kernel_size` must be a positive integer or a tuple of 2. "
            f"Received: kernel_size={kernel_size!r}"
        )
    return int(sizes[0]), int(sizes[1])


def _channels(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> int:
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            f"`{type(layer).__name__}` expects images of shape (batch, "
            "height, width, channels), the channels known. "
            f"Received: inputs of shape {tuple(shape)}"
        )
    return shape[-1]


def _half(size: int | None) -> int | None:
    return None if size is None else size // 2
