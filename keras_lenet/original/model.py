"""LeNet-5 as the 1998 paper describes it."""

from typing import Any

import keras

from keras_lenet.layers import PadTo32
from keras_lenet.models.base import BaseModel
from keras_lenet.models.layer_record import LayerRecord
from keras_lenet.original.codes import TABLE, codes
from keras_lenet.original.initializer import UniformByFanIn
from keras_lenet.original.layers import (
    EuclideanRBF,
    TableConv2D,
    TrainableSubsampling2D,
    scaled_tanh,
)
from keras_lenet.validation.arguments import (
    is_positive_integer,
    standardize_input_shape,
)


@keras.saving.register_keras_serializable(package="keras_lenet")
class OriginalLeNet5(BaseModel):
    """LeNet-5 as in 1998: 60,000 weights and 340,908 connections.

    What is called LeNet-5 today, as `keras_lenet.LeNet5`, has ReLU,
    max-pooling and softmax. This one has what the paper describes
    (https://doi.org/10.1109/5.726791, section II-B): every unit squashes by
    `1.7159 * tanh(2 / 3 * x)`, subsampling has weights, a map of C3 sees some
    of S2's (table I), C5 is a convolution, and the output is the squared
    distance to a fixed code of each class (figure 3).

    | layer | maps | trainable | connections |
    | --- | --- | --- | --- |
    | `c1` | 6 of 28x28 | 156 | 122,304 |
    | `s2` | 6 of 14x14 | 12 | 5,880 |
    | `c3` | 16 of 10x10 | 1,516 | 151,600 |
    | `s4` | 16 of 5x5 | 32 | 2,000 |
    | `c5` | 120 of 1x1 | 48,120 | 48,120 |
    | `f6` | 84 | 10,164 | 10,164 |
    | `rbf` | 10 | 0 | 840 |

    The model returns the distances with a negative sign, so the largest wins,
    as everywhere in Keras: `metrics=["accuracy"]` works, and `softmax` of it
    is the probability of each class (those of equation 9 without rubbish).
    Its loss is `keras_lenet.original.DistanceLoss`.

    On a larger image the network is applied every four pixels, and gives a row
    of outputs or several (section VII, space displacement networks).

    Args:
        num_classes: Integer from 1 to 10. How many classes to tell apart, the
            digits from 0 on. Defaults to `10`.
        input_shape: Tuple `(height, width, channels)`. With preprocessing
            any height and width from 1 to 32, or both at least 32; without,
            both at least 32. By default `(28, 28, 1)` with preprocessing and
            `(32, 32, 1)` without.
        include_preprocessing: Boolean. Whether the model takes raw pixels in
            [0, 255], centres those of smaller images on a field of 32x32 zeros
            and brings all to -0.1 for paper and 1.175 for ink. If `False`, it
            takes these. Defaults to `True`.
        dtype: Data type or policy of the layers. By default the global one.
            Under 16-bit policies the distances stay float32.
        name: String. The name of the model. Defaults to `"original_lenet5"`.
        **kwargs: `trainable`, as for any Keras model, and `layer_configs`,
            the changes of layers that `get_config` returns.

    Input shape:
        `(batch, height, width, channels)`: integers or floats.

    Output shape:
        `(batch, num_classes)`: distances, negative. Of images larger than
        32x32 `(batch, (height - 32) // 4 + 1, (width - 32) // 4 + 1,
        num_classes)`.

    Raises:
        ValueError: If an argument is not of the form above. From `fit`,
            `evaluate` and `predict`: if images have another shape or scale
            than the model expects, or a label is not a whole number from 0 to
            `num_classes - 1`.

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
        **kwargs: Any,
    ) -> None:
        if not is_positive_integer(num_classes) or num_classes > 10:
            raise ValueError(
                "`num_classes` must be from 1 to 10, the digits, for which "
                f"there are codes. Received: num_classes={num_classes!r}"
            )
        if input_shape is None:
            input_shape = (28, 28, 1) if include_preprocessing else (32, 32, 1)
        shape = standardize_input_shape(input_shape)
        _check_input_shape(shape, include_preprocessing)
        policy = keras.dtype_policies.get(dtype)
        common = {"dtype": policy}
        squashed = {"activation": scaled_tanh, **common}
        subsampling = {
            "kernel_initializer": keras.initializers.Constant(0.5),
            **squashed,
        }

        record = LayerRecord(kwargs.pop("layer_configs", None))
        inputs = keras.Input(shape, name="images")
        x = inputs
        if include_preprocessing:
            if max(shape[:2]) <= 32:
                x = record.add(PadTo32(name="pad_to_32", **common))(x)
            x = record.add(
                keras.layers.Rescaling(
                    1.275 / 255, -0.1, name="rescaling", **common
                )
            )(x)
        for layer in (
            TableConv2D(
                6,
                kernel_initializer=UniformByFanIn(25 * shape[-1]),
                name="c1",
                **squashed,
            ),
            TrainableSubsampling2D(name="s2", **subsampling),
            TableConv2D(
                TABLE,
                kernel_initializer=UniformByFanIn(
                    [25 * len(sources) for sources in TABLE for _ in sources]
                ),
                name="c3",
                **squashed,
            ),
            TrainableSubsampling2D(name="s4", **subsampling),
            TableConv2D(
                120,
                kernel_initializer=UniformByFanIn(25 * 16),
                name="c5",
                **squashed,
            ),
            keras.layers.Dense(
                84,
                kernel_initializer=UniformByFanIn(120),
                name="f6",
                **squashed,
            ),
        ):
            x = record.add(layer)(x)
        if x.shape[1:3] == (1, 1):
            x = record.add(keras.layers.Flatten(name="flatten", **common))(x)
        head = common
        if policy.compute_dtype in ("float16", "bfloat16"):
            head = {"dtype": "float32"}
        for layer in (
            EuclideanRBF(codes()[:num_classes], name="rbf", **head),
            keras.layers.Rescaling(-1.0, name="output", **head),
        ):
            x = record.add(layer)(x)
        super().__init__(inputs=inputs, outputs=x, name=name, **kwargs)
        self._finish(record, policy)

        self.num_classes = int(num_classes)
        self.include_preprocessing = include_preprocessing
        # What `softmax` makes probabilities of.
        self.classifier_activation = keras.activations.linear


def _check_input_shape(
    shape: tuple[int, int, int], include_preprocessing: bool
) -> None:
    height, width, _ = shape
    if min(height, width) < 32 and (
        not include_preprocessing or max(height, width) > 32
    ):
        raise ValueError(
            "`input_shape` must be (height, width, channels), height and "
            "width both at least 32, or with `include_preprocessing=True` "
            f"both at most 32. Received: input_shape={shape!r}, "
            f"include_preprocessing={include_preprocessing}"
        )
