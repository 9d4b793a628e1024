"""The layers of the 1998 paper."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_lenet.types import Tensor
from keras_lenet.validation.arguments import is_positive_integer

_SERIALIZED = (
    "kernel_initializer",
    "bias_initializer",
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


@keras.saving.register_keras_serializable(  # type: ignore[untyped-decorator]
    package="keras_lenet"
)
def scaled_tanh(x: Tensor) -> Tensor:
    """Squashing function of the 1998 paper: `1.7159 * tanh(2 / 3 * x)`.

    It maps 1 to about 1 and -1 to about -1, where its second derivative is
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
    # `ops.multiply` promotes integers. TensorFlow's `*` raises an error.
    return 1.7159 * ops.tanh(ops.multiply(2 / 3, x))


class WeightedSum(keras.layers.Layer):
    """Base class of layers that compute `activation(weigh(inputs) + bias)`.

    Subclasses implement `weigh`, which must be linear in the inputs and linear
    in the kernel. `diagonal_curvature` relies on this to propagate second
    derivatives.
    """

    # Replaces `kernel_initializer=None`.
    _default_kernel_initializer: ClassVar[Any] = None
    kernel: Any
    bias: Any

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
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if kernel_initializer is None:
            kernel_initializer = self._default_kernel_initializer
        self.activation: Any = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer: Any = keras.initializers.get(
            kernel_initializer
        )
        self.bias_initializer: Any = keras.initializers.get(bias_initializer)
        self.kernel_regularizer: Any = keras.regularizers.get(
            kernel_regularizer
        )
        self.bias_regularizer: Any = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint: Any = keras.constraints.get(kernel_constraint)
        self.bias_constraint: Any = keras.constraints.get(bias_constraint)

    def weigh(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Returns the sums before the bias is added."""
        raise NotImplementedError

    def call(self, inputs: Tensor) -> Tensor:
        # Keras does not cast integers. Sums of bytes would overflow.
        inputs = ops.cast(inputs, self.compute_dtype)
        outputs = self.weigh(inputs, self.kernel)
        if self.use_bias:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def _add_weights(
        self, input_shape: tuple[int | None, ...], *shape: int
    ) -> None:
        self.input_spec: Any = keras.layers.InputSpec(
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
            **{
                name: keras.saving.serialize_keras_object(getattr(self, name))
                for name in _SERIALIZED
            },
        }


@keras.saving.register_keras_serializable(package="keras_lenet")
class TrainableSubsampling2D(WeightedSum):
    """Halves maps: sums 2x2 pixels, times a coefficient, plus a bias.

    Each map has one trainable coefficient and one trainable bias
    (https://doi.org/10.1109/5.726791, section II-B).

    Args:
        activation: String or callable. The activation function. If `None`, no
            activation is applied.
        use_bias: Boolean. Whether to add a bias. Defaults to `True`.
        kernel_initializer: Initializer of the coefficients. Defaults to
            0.25, which makes the layer average the four pixels.
        bias_initializer: Initializer of the bias. Defaults to `"zeros"`.
        kernel_regularizer: Optional regularizer of the coefficients.
        bias_regularizer: Optional regularizer of the bias.
        activity_regularizer: Optional regularizer of the outputs.
        kernel_constraint: Optional constraint on the coefficients.
        bias_constraint: Optional constraint on the bias.
        **kwargs: `name`, `dtype` and `trainable`, as for any Keras layer.

    Input shape:
        `(batch, height, width, maps)`, height and width at least 2. If one is
        odd, the last row or column is ignored.

    Output shape:
        `(batch, height // 2, width // 2, maps)`.

    Raises:
        ValueError: If the inputs have another rank, an unknown number of maps,
            or a height or width below 2.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_lenet.original import TrainableSubsampling2D
    >>> layer = TrainableSubsampling2D()
    >>> images = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> keras.ops.convert_to_numpy(layer(images)).item(), layer.count_params()
    (1.5, 2)
    """

    # A config, so that each layer makes its own initializer.
    _default_kernel_initializer: ClassVar[Any] = {
        "class_name": "Constant",
        "config": {"value": 0.25},
    }

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._add_weights(input_shape, _channels(self, input_shape))

    def weigh(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        self.compute_output_shape(tuple(inputs.shape))
        # In a TensorFlow graph, sizes may be known only at run time.
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
    """2D convolution in which each output map sees some of the input maps.

    Maps that `table` does not connect have no weight, no gradient and no
    optimizer state, as in layer C3 of the 1998 paper
    (https://doi.org/10.1109/5.726791, table I). There is no padding, and the
    stride is 1. The layer computes matrix products, which unlike
    `keras.layers.Conv2D` are fast in loops that XLA compiles for a CPU.

    Args:
        table: For each output map, the indices of the input maps that it sees:
            a sequence of sequences of integers, or an array of shape
            `(maps, seen)`. If an integer, the number of output maps, each of
            which sees all input maps.
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
        `(batch, height, width, channels)`. Height and width are known, and at
        least those of the kernels.

    Output shape:
        `(batch, height - kernel_size[0] + 1, width - kernel_size[1] + 1,
        maps)`.

    Raises:
        ValueError: If `table` or `kernel_size` is invalid, `table` has an
            index without an input map, or the inputs are smaller than the
            kernels.

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
                f"`table` must have indices from 0 to {channels - 1}, as the "
                f"inputs have {channels} maps. Received: table={self.table}"
            )
        pairs = [
            source * len(self.table) + target
            for target, sources in enumerate(self.table)
            for source in sources
        ]
        # One-hot rows place each kernel in the kernel of a full convolution.
        size = channels * len(self.table)
        self._places = np.eye(size, dtype="float32")[pairs]
        self._add_weights(input_shape, *self.kernel_size, len(pairs))

    def weigh(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        height, width = self.kernel_size
        rows, columns = self._output_size(tuple(inputs.shape))
        size = height * width * inputs.shape[-1]
        # Slice columns, then rows: with 5 + 5 slices instead of 5 * 5, a
        # training step of `OriginalLeNet5` takes 0.7 of the time (JAX, a CPU,
        # one image).
        patches = ops.stack(
            [inputs[:, :, start : start + columns] for start in range(width)],
            axis=3,
        )
        patches = ops.stack(
            [patches[:, start : start + rows] for start in range(height)],
            axis=3,
        )
        patches = ops.reshape(patches, (-1, rows, columns, size))
        if not isinstance(self.table, int):
            kernel = ops.matmul(
                ops.reshape(kernel, (height * width, -1)),
                ops.cast(self._places, kernel.dtype),
            )
        return ops.matmul(patches, ops.reshape(kernel, (size, -1)))

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


def _standardize_table(table: Any) -> int | list[list[int]]:
    """Returns a table of Python integers."""
    if is_positive_integer(table):
        return int(table)
    if not _is_sequence(table) or not all(map(_is_table_row, table)):
        raise ValueError(
            "`table` must be a positive integer, or have the indices of input "
            f"maps for each output map, each once. Received: table={table!r}"
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
    """Returns whether a value is a non-empty sequence or array."""
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    return (is_array or isinstance(value, Sequence)) and len(value) > 0


def _standardize_kernel_size(kernel_size: Any) -> tuple[int, int]:
    sizes = kernel_size if _is_sequence(kernel_size) else [kernel_size] * 2
    if len(sizes) != 2 or not all(map(is_positive_integer, sizes)):
        raise ValueError(
            "`kernel_size` must be a positive integer or a tuple of two. "
            f"Received: kernel_size={kernel_size!r}"
        )
    return int(sizes[0]), int(sizes[1])


def _channels(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> int:
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            f"`{type(layer).__name__}` expects images of shape (batch, "
            "height, width, channels) with a known number of channels. "
            f"Received: inputs of shape {tuple(shape)}"
        )
    return shape[-1]


def _half(size: int | None) -> int | None:
    return None if size is None else size // 2
