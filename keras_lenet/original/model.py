"""LeNet-5 as the 1998 paper describes it."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_lenet.layers import PadTo32
from keras_lenet.models.base import BaseModel
from keras_lenet.models.layer_record import LayerRecord
from keras_lenet.original.codes import TABLE, codes
from keras_lenet.original.initializer import UniformByFanIn
from keras_lenet.original.layers import (
    TableConv2D,
    TrainableSubsampling2D,
    scaled_tanh,
)
from keras_lenet.original.rbf import EuclideanRBF
from keras_lenet.validation.arguments import (
    is_positive_integer,
    standardize_class_names,
    standardize_input_shape,
)


@keras.saving.register_keras_serializable(package="keras_lenet")
class OriginalLeNet5(BaseModel):
    """LeNet-5 as in 1998: 60,000 weights and 340,908 connections.

    The networks called LeNet-5 today, such as `keras_lenet.LeNet5`, have ReLU,
    max-pooling and softmax. This one follows the paper
    (https://doi.org/10.1109/5.726791, section II-B): the activation function is
    `1.7159 * tanh(2 / 3 * x)`, subsampling has weights, each map of C3 sees
    some maps of S2 (table I), C5 is a convolution, and the output is the
    squared distance to a fixed code of each class (figure 3).

    | layer | maps | trainable | connections |
    | --- | --- | --- | --- |
    | `c1` | 6 of 28x28 | 156 | 122,304 |
    | `s2` | 6 of 14x14 | 12 | 5,880 |
    | `c3` | 16 of 10x10 | 1,516 | 151,600 |
    | `s4` | 16 of 5x5 | 32 | 2,000 |
    | `c5` | 120 of 1x1 | 48,120 | 48,120 |
    | `f6` | 84 | 10,164 | 10,164 |
    | `rbf` | 10 | 0 | 840 |

    The model returns negative distances, so the largest output wins, as
    everywhere in Keras: `metrics=["accuracy"]` works, and `softmax` of the
    outputs gives the probability of each class (equation 9 without rubbish).
    The loss is `keras_lenet.original.DistanceLoss`.

    On an image larger than 32x32, the network is applied every four pixels and
    returns a map of outputs (section VII, space displacement networks).

    Args:
        num_classes: Integer from 1 to 10. The number of classes, which are the
            digits from 0. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`. Height and width are
            both at least 32 or, with `include_preprocessing=True`, both at most
            32. Defaults to `(28, 28, 1)` with preprocessing and `(32, 32, 1)`
            without.
        include_preprocessing: Boolean. Whether the model takes raw pixels in
            [0, 255], pads smaller images with zeros to 32x32 pixels, and
            rescales paper to -0.1 and ink to 1.175. If `False`, it takes
            rescaled images. Defaults to `True`.
        dtype: Data type or policy of the layers. Defaults to the global policy.
            Under 16-bit policies, the distances stay float32.
        name: String. The name of the model. Defaults to `"original_lenet5"`.
        class_names: Sequence of strings, the names of classes 0, 1, ... They
            are saved with the model, and `keras-lenet predict` prints them.
            Defaults to `None`, for numbers.
        **kwargs: `trainable`, as for any Keras model, and `layer_configs`,
            the changes of layers that `get_config` returns.

    Input shape:
        `(batch, height, width, channels)`: integers or floats.

    Output shape:
        `(batch, num_classes)`: negative distances. For images larger than
        32x32: `(batch, (height - 32) // 4 + 1, (width - 32) // 4 + 1,
        num_classes)`.

    Raises:
        ValueError: If `num_classes`, `input_shape` or `class_names` is invalid.
            From `fit`, `evaluate` and `predict`: if images have another shape
            or scale than the model expects, or a label is not a whole number
            from 0 to `num_classes - 1`.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.original import DistanceLoss, OriginalLeNet5
    >>> model = OriginalLeNet5()
    >>> model.count_params()
    60000
    >>> model.compile("sgd", DistanceLoss(), metrics=["accuracy"])
    >>> OriginalLeNet5(input_shape=(32, 64, 1)).output_shape
    (None, 1, 9, 10)
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] | None = None,
        include_preprocessing: bool = True,
        dtype: Any = None,
        name: str = "original_lenet5",
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_positive_integer(num_classes) or num_classes > 10:
            raise ValueError(
                "`num_classes` must be from 1 to 10, as only digits have "
                f"codes. Received: num_classes={num_classes!r}"
            )
        names = standardize_class_names(class_names, num_classes)
        if input_shape is None:
            input_shape = (28, 28, 1) if include_preprocessing else (32, 32, 1)
        shape = standardize_input_shape(input_shape)
        _check_input_shape(shape, include_preprocessing)
        policy = keras.dtype_policies.get(dtype)
        head: Any = policy
        if policy.compute_dtype in ("float16", "bfloat16"):
            head = "float32"

        record = LayerRecord(kwargs.pop("layer_configs", None))
        x = inputs = keras.Input(shape, name="images")
        layers = _hidden_layers(shape[-1], policy)
        if include_preprocessing:
            rescaling = keras.layers.Rescaling(
                1.275 / 255, -0.1, name="rescaling", dtype=policy
            )
            layers.insert(0, rescaling)
            if max(shape[:2]) <= 32:
                layers.insert(0, PadTo32(name="pad_to_32", dtype=policy))
        for layer in layers:
            x = record.add(layer)(x)
        if x.shape[1:3] == (1, 1):
            flatten = keras.layers.Flatten(name="flatten", dtype=policy)
            x = record.add(flatten)(x)
        for layer in (
            EuclideanRBF(codes()[:num_classes], name="rbf", dtype=head),
            keras.layers.Rescaling(-1.0, name="output", dtype=head),
        ):
            x = record.add(layer)(x)
        super().__init__(inputs=inputs, outputs=x, name=name, **kwargs)
        self._finish(record, policy)

        self.num_classes = int(num_classes)
        self.class_names = names
        self.include_preprocessing = include_preprocessing
        # Mark the outputs as logits: `softmax` turns them into probabilities.
        self.classifier_activation = keras.activations.linear


def _hidden_layers(channels: int, policy: Any) -> list[Any]:
    """Returns the layers from C1 to F6."""
    common = {"activation": scaled_tanh, "dtype": policy}
    coefficients = keras.initializers.Constant(0.5)
    connections = [25 * len(sources) for sources in TABLE for _ in sources]
    layers: list[tuple[str, Any, list[Any], Any]] = [
        ("c1", TableConv2D, [6], UniformByFanIn(25 * channels)),
        ("s2", TrainableSubsampling2D, [], coefficients),
        ("c3", TableConv2D, [TABLE], UniformByFanIn(connections)),
        ("s4", TrainableSubsampling2D, [], coefficients),
        ("c5", TableConv2D, [120], UniformByFanIn(25 * 16)),
        ("f6", keras.layers.Dense, [84], UniformByFanIn(120)),
    ]
    return [
        layer(*size, kernel_initializer=initializer, name=name, **common)
        for name, layer, size, initializer in layers
    ]


def _check_input_shape(
    shape: tuple[int, int, int], include_preprocessing: bool
) -> None:
    height, width, _ = shape
    if min(height, width) < 32 and (
        not include_preprocessing or max(height, width) > 32
    ):
        raise ValueError(
            "`input_shape` must have a height and width of at least 32 or, "
            "with `include_preprocessing=True`, of at most 32. "
            f"Received: input_shape={shape!r}, "
            f"include_preprocessing={include_preprocessing}"
        )
