"""Second derivatives of a loss, as the 1998 paper estimates them."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.layers import PadTo32
from keras_lenet.original.layers import EuclideanRBF, WeightedSum
from keras_lenet.types import Tensor

_NOT_ELEMENTWISE = (
    keras.activations.glu,
    keras.activations.log_softmax,
    keras.activations.softmax,
    keras.activations.sparsemax,
)


# Second derivatives of these are constant.
_PENALTIES = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)


def diagonal_curvature(
    model: keras.Model, images: Any, labels: Any
) -> list[Tensor]:
    """Estimates the second derivative of the loss by each parameter.

    As https://doi.org/10.1109/5.726791, appendix C: of the matrix of second
    derivatives only the diagonal, in each layer (equations 23 to 27), and
    without what second derivatives of the squashing functions add
    (Gauss-Newton), so none is negative. That of the loss by what the last
    layer, `EuclideanRBF`, takes is exact. L2 penalties on weights count.

    Args:
        model: A compiled model that is a chain of layers: those of
            `keras_lenet.original`, `Dense` and such without weights, up to an
            `EuclideanRBF` whose distances the model returns with a negative
            sign. Activations are elementwise, and regularizers L1 or L2
            penalties on weights. Its loss is a `DistanceLoss` that takes the
            mean.
        images: Array of shape `(samples, height, width, channels)`.
        labels: Integer array of shape `(samples,)`.

    Returns:
        List of tensors of the shapes of `model.trainable_variables`: means
        over the samples.

    Raises:
        ValueError: When the model is not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.original import diagonal_curvature
    >>> from keras_lenet.original import DistanceLoss, OriginalLeNet5
    >>> model = OriginalLeNet5()
    >>> model.compile("sgd", DistanceLoss())
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1))
    >>> found = diagonal_curvature(model, images, np.arange(5))
    >>> len(found) == len(model.trainable_variables)
    True
    """
    _check_chain(model)
    x = ops.convert_to_tensor(images)
    passed: list[tuple[Any, Tensor, Tensor]] = []
    for layer in model.layers:
        if isinstance(layer, EuclideanRBF):
            break
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if layer.weights:
            # The first layer may take integers, whose squares overflow.
            x = ops.cast(x, layer.variable_dtype)
            sums = _weigh(layer)(x, layer.kernel)
            if layer.use_bias:
                sums = sums + layer.bias
            passed.append((layer, x, sums))
            x = layer.activation(sums)
        else:
            x = layer(x)
    _check_outputs(model, model(images), -layer(x))
    second = model.loss.second_derivatives(labels, x, layer.codes)
    found: dict[str, Tensor] = {}
    for layer, taken, sums in reversed(passed):
        second = ops.reshape(second, sums.shape)
        (slope,) = _pull_back(layer.activation, [sums], ops.ones_like(sums))
        second = second * slope**2
        if layer.use_bias:
            found[layer.bias.path] = ops.sum(
                second, axis=tuple(range(len(second.shape) - 1))
            )
        # With squares of inputs and weights, gradients of the sums are what
        # equations 24 and 25 say.
        second, found[layer.kernel.path] = _pull_back(
            _weigh(layer), [taken**2, layer.kernel**2], second
        )
    count = math.prod(x.shape[:-1])
    return [
        found[v.path] / count + 2 * getattr(v.regularizer, "l2", 0.0)
        for v in model.trainable_variables
    ]


def _weigh(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return layer.weigh if isinstance(layer, WeightedSum) else ops.matmul


def _check_chain(model: keras.Model) -> None:
    # What comes before the first weights is not differentiated.
    allowed: tuple[type, ...] = (
        keras.layers.InputLayer,
        keras.layers.Rescaling,
        PadTo32,
    )
    found = False
    for layer in model.layers:
        found = isinstance(layer, EuclideanRBF)
        if isinstance(layer, (WeightedSum, keras.layers.Dense)):
            allowed = (keras.layers.Flatten, WeightedSum, keras.layers.Dense)
            _check_layer(layer)
        if found or not isinstance(layer, allowed):
            break
    if not found:
        raise ValueError(
            "`model` must be a chain of layers that weigh, as `Dense`, with an "
            "`EuclideanRBF` at their end, as `OriginalLeNet5`. Received: "
            f"model={model.name!r} with the layer {layer.name!r}"
        )
    loss = model.loss
    if not hasattr(loss, "second_derivatives") or loss.reduction in (
        None,
        "none",
        "sum",
    ):
        raise ValueError(
            "`model` must be compiled with a `DistanceLoss` that takes the "
            f"mean. Received: loss={loss!r} with "
            f"reduction={getattr(loss, 'reduction', None)!r}"
        )


def _check_layer(layer: Any) -> None:
    if len(layer.weights) != 1 + layer.use_bias:
        raise ValueError(
            "`model` must have layers with a kernel and a bias alone, neither "
            "quantized nor with LoRA. "
            f"Received: the layer {layer.name!r} with {layer.weights}"
        )
    if layer.activation in _NOT_ELEMENTWISE:
        raise ValueError(
            "`model` must have elementwise activations. Received: the layer "
            f"{layer.name!r} with activation={layer.activation.__name__!r}"
        )
    penalties = [variable.regularizer for variable in layer.trainable_weights]
    if layer.activity_regularizer is not None or not all(
        penalty is None or isinstance(penalty, _PENALTIES)
        for penalty in penalties
    ):
        raise ValueError(
            "`model` must have L1 or L2 regularizers of weights alone. "
            f"Received: the layer {layer.name!r} with {penalties} and "
            f"activity_regularizer={layer.activity_regularizer}"
        )


def _check_outputs(model: keras.Model, outputs: Any, expected: Tensor) -> None:
    """Checks that the layers one after the other give what the model does."""
    outputs, expected = map(ops.convert_to_numpy, (outputs, expected))
    # Under 16-bit policies, activations here have more digits.
    if outputs.shape != expected.shape or not np.allclose(
        outputs, expected, rtol=0.1, atol=0.1
    ):
        raise ValueError(
            "`model` must apply its layers one after the other, and return "
            "distances with a negative sign. "
            f"Received: model={model.name!r}, which returns something else"
        )


def _pull_back(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], outer: Tensor
) -> Any:
    """Returns the gradients of a function's outputs, weighted by `outer`."""
    backend = keras.backend.backend()
    if backend == "jax":
        return _jax_pull_back()(function, inputs, outer)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs)
        return tape.gradient(outputs, inputs, output_gradients=outer)
    import torch

    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        outputs = function(*inputs)
    return torch.autograd.grad(outputs, inputs, outer.detach())


@functools.cache
def _jax_pull_back() -> Callable[..., Any]:
    # Operation by operation, compiling takes ten times as long.
    import jax

    return jax.jit(
        lambda function, inputs, outer: jax.vjp(function, *inputs)[1](outer),
        static_argnums=0,
    )
