"""Second derivatives of the loss, estimated as in the 1998 paper."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
from keras import ops

from keras_lenet.layers import PadTo32
from keras_lenet.original.layers import WeightedSum
from keras_lenet.original.rbf import EuclideanRBF
from keras_lenet.types import Tensor

_NOT_ELEMENTWISE = (
    keras.activations.glu,
    keras.activations.log_softmax,
    keras.activations.softmax,
    keras.activations.sparsemax,
)

# The second derivatives of these are constant.
_PENALTIES = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)


def diagonal_curvature(
    model: keras.Model, images: Any, labels: Any
) -> list[Tensor]:
    """Estimates the loss's second derivative with respect to each parameter.

    It follows https://doi.org/10.1109/5.726791, appendix C: it backpropagates
    the diagonal of each layer's matrix of second derivatives (equations 23 to
    27) and leaves out the second derivatives of the activation functions
    (Gauss-Newton approximation), so no estimate is negative. The second
    derivative with respect to the inputs of `EuclideanRBF` is exact. L2
    penalties on weights count.

    Args:
        model: A compiled model that is a chain of layers: those of
            `keras_lenet.original`, `Dense`, and layers without weights such as
            `Flatten`, up to an `EuclideanRBF`. The model returns negative
            distances. Activations are elementwise, regularizers are L1 or L2
            penalties on weights, and the loss is the mean of a `DistanceLoss`.
        images: Array of shape `(samples, height, width, channels)`.
        labels: Integer array of shape `(samples,)`.

    Returns:
        List of tensors, the means over the samples, in the shapes of
        `model.trainable_variables`.

    Raises:
        ValueError: If the model's layers, regularizers, loss or outputs are
            others.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.original import diagonal_curvature
    >>> from keras_lenet.original import DistanceLoss, OriginalLeNet5
    >>> model = OriginalLeNet5()
    >>> model.compile("sgd", DistanceLoss())
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1))
    >>> curvatures = diagonal_curvature(model, images, np.arange(5))
    >>> len(curvatures) == len(model.trainable_variables)
    True
    """
    _check_chain(model)
    x = ops.convert_to_tensor(images)
    tape: list[tuple[Any, Tensor, Tensor]] = []
    for layer in model.layers:
        if isinstance(layer, EuclideanRBF):
            break
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if layer.weights:
            # Cast integer images, as their squares overflow below.
            x = ops.cast(x, layer.variable_dtype)
            sums = _weigh(layer)(x, layer.kernel)
            if layer.use_bias:
                sums = sums + layer.bias
            tape.append((layer, x, sums))
            x = layer.activation(sums)
        else:
            x = layer(x)
    _check_outputs(model, model(images), -layer(x))
    second = model.loss.second_derivatives(labels, x, layer.codes)
    curvatures: dict[str, Tensor] = {}
    for layer, inputs, sums in reversed(tape):
        second = ops.reshape(second, sums.shape)
        (slope,) = _pull_back(layer.activation, [sums], ops.ones_like(sums))
        second = second * slope**2
        if layer.use_bias:
            curvatures[layer.bias.path] = ops.sum(
                second, axis=tuple(range(len(second.shape) - 1))
            )
        # Equations 24 and 25 are gradients of sums of squared inputs times
        # squared weights.
        second, curvatures[layer.kernel.path] = _pull_back(
            _weigh(layer), [inputs**2, layer.kernel**2], second
        )
    count = math.prod(x.shape[:-1])
    return [
        curvatures[v.path] / count + 2 * getattr(v.regularizer, "l2", 0.0)
        for v in model.trainable_variables
    ]


def _weigh(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return layer.weigh if isinstance(layer, WeightedSum) else ops.matmul


def _check_chain(model: keras.Model) -> None:
    weighted = (WeightedSum, keras.layers.Dense)
    # Layers before the first weights need no derivative.
    allowed: tuple[type, ...] = (
        keras.layers.InputLayer,
        keras.layers.Rescaling,
        PadTo32,
        *weighted,
    )
    for layer in model.layers:
        if isinstance(layer, EuclideanRBF):
            break
        if not isinstance(layer, allowed):
            _raise_no_chain(model, layer)
        if isinstance(layer, weighted):
            allowed = (keras.layers.Flatten, *weighted)
            _check_layer(layer)
    else:
        _raise_no_chain(model, layer)
    loss = model.loss
    reduction = getattr(loss, "reduction", None)
    if not hasattr(loss, "second_derivatives") or reduction in (
        None,
        "none",
        "sum",
    ):
        raise ValueError(
            "`model` must be compiled with the mean of a `DistanceLoss`. "
            f"Received: loss={loss!r} with reduction={reduction!r}"
        )


def _raise_no_chain(model: Any, layer: Any) -> NoReturn:
    raise ValueError(
        "`model` must be a chain of layers such as `Dense` that ends with an "
        "`EuclideanRBF`, like `OriginalLeNet5`. "
        f"Received: model={model.name!r} with the layer {layer.name!r}"
    )


def _check_layer(layer: Any) -> None:
    if len(layer.weights) != 1 + layer.use_bias:
        raise ValueError(
            "`model` must have layers with a kernel and a bias only, neither "
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
            "`model` must have no regularizers but L1 and L2 on weights. "
            f"Received: the layer {layer.name!r} with {penalties} and "
            f"activity_regularizer={layer.activity_regularizer}"
        )


def _check_outputs(model: keras.Model, outputs: Any, expected: Tensor) -> None:
    """Checks that the model applies its layers one after the other."""
    outputs, expected = map(ops.convert_to_numpy, (outputs, expected))
    # Tolerate rounding: the model may compute with 16 bits.
    if outputs.shape != expected.shape or not np.allclose(
        outputs, expected, rtol=0.1, atol=0.1
    ):
        raise ValueError(
            "`model` must apply its layers one after the other and return "
            "negative distances. "
            f"Received: model={model.name!r}, which returns something else"
        )


def _pull_back(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], outer: Tensor
) -> Any:
    """Returns the gradients of a function's outputs, weighted with `outer`."""
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
    # Compile as a whole: operation by operation takes ten times as long.
    import jax

    return jax.jit(
        lambda function, inputs, outer: jax.vjp(function, *inputs)[1](outer),
        static_argnums=0,
    )
