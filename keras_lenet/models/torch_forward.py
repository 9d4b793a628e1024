"""The forward pass of LeNet-5 in few operations of PyTorch.

Keras keeps the channels last, transposes before and after each convolution, and
calls every layer through its own machinery, which takes longer than computing
small batches. This module computes the same function with the channels first.
The maximum is taken before bias and ReLU, which preserve the order. `LeNet5`
uses it where it was measured to be faster, on a CPU.
"""

from typing import Any

import keras

from keras_lenet.layers import padding
from keras_lenet.types import Tensor

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def supports(model: Any, images: Tensor) -> bool:
    """Returns whether unchanged layers compute what `forward` does."""
    return (
        images.device.type == "cpu"
        and not any(
            getattr(layer, name) for layer in model.layers for name in _HOOKS
        )
        # Layers in other scopes may compute on a device of their own.
        and model.get_layer("c1").kernel.value.device.type == "cpu"
    )


def forward(model: Any, images: Tensor) -> Tensor:
    """Computes a float32 `LeNet5`.

    Args:
        model: A `LeNet5` whose layers are unchanged.
        images: Tensor of shape `(batch, height, width, channels)`.

    Returns:
        Tensor of shape `(batch, num_classes)`.
    """
    import torch
    from torch.nn import functional

    c1, c3, c5, f6 = (
        (layer.kernel.value, layer.bias.value)
        for layer in map(model.get_layer, ("c1", "c3", "c5", "f6"))
    )
    # The images stay in memory as they are, which suits the convolutions.
    x = images.permute(0, 3, 1, 2).to(torch.float32)
    border = 0, 0
    if model.include_preprocessing:
        rows, columns = padding(images.shape)[-3:-1]
        border = rows[0], columns[0]
        if border != (rows[1], columns[1]):
            x = functional.pad(x, (*columns, *rows))
            border = 0, 0
        x = x * model.get_layer("rescaling").scale
    for (kernel, bias), around in ((c1, border), (c3, (0, 0))):
        x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), padding=around)
        x = functional.max_pool2d(x, 2)
        x = functional.relu(x + bias[:, None, None])
    # `flatten` puts the maps last.
    x = x.permute(0, 2, 3, 1).flatten(1)
    for kernel, bias in (c5, f6):
        x = functional.relu(torch.addmm(bias, x, kernel))
    output = model.get_layer("output")
    x = torch.addmm(output.bias.value, x, output.kernel.value)
    if output.activation is keras.activations.softmax:
        return torch.softmax(x, -1)
    return output.activation(x)
