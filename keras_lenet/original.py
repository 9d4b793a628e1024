"""LeNet-5 as the 1998 paper describes it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet import validation
from keras_lenet.base import BaseModel
from keras_lenet.datasets import is_positive_integer
from keras_lenet.layer_record import LayerRecord
from keras_lenet.layers import (
    EuclideanRBF,
    PadTo32,
    TableConv2D,
    Tensor,
    TrainableSubsampling2D,
    scaled_tanh,
)

# Which maps of S2 each map of C3 sees (table I).
TABLE = tuple(
    tuple(map(int, sources))
    for sources in (
        "012 123 234 345 045 015 0123 1234 2345 0345 0145 0125 0134 1245 0235 "
        "012345"
    ).split()
)

# The codes of the digits (figure 3), 7x12 pixels: `#` is 1 and `.` is -1.
_CODES = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def codes() -> np.ndarray[Any, Any]:
    """Returns the codes of the ten digits.

    They are drawings of the digits (https://doi.org/10.1109/5.726791, figure
    3), so that those of similar digits are similar.

    Returns:
        float32 array of shape `(10, 84)` of 1 and -1, row by row of 12x7
        pixels.

    Example:

    >>> from keras_lenet.original import codes
    >>> codes().shape, codes()[0, :7].astype(int).tolist()
    ((10, 84), [-1, 1, 1, 1, 1, 1, -1])
    """
    rows = [row.split() for row in _CODES.split("\n") if row]
    pixels = np.array([[list(part) for part in row] for row in rows])
    drawn = np.where(pixels == "#", 1, -1).astype("float32")
    return np.asarray(drawn.transpose(1, 0, 2).reshape(10, 84))


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


def one_hot_labels(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Returns integer labels as one-hot vectors, of the form of predictions.

    Args:
        y_true: Labels of shape `(batch, d0, ..., dN)` or
            `(batch, d0, ..., dN, 1)`.
        y_pred: Predictions of shape `(batch, d0, ..., dN, num_classes)`.

    Returns:
        Tensor of the shape and dtype of `y_pred`.

    Raises:
        ValueError: When the shapes are not of the form above.
    """
    labels = y_true
    if len(labels.shape) == len(y_pred.shape) and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) != len(y_pred.shape) - 1 or any(
        size != expected and None not in (size, expected)
        for size, expected in zip(labels.shape, y_pred.shape[:-1], strict=True)
    ):
        raise ValueError(
            "`y_true` must be integer labels of the shape of `y_pred` without "
            "its last axis, or with one of size 1. "
            f"Received: y_true of shape {tuple(y_true.shape)}, y_pred of "
            f"shape {tuple(y_pred.shape)}"
        )
    return ops.one_hot(
        ops.cast(labels, "int32"), y_pred.shape[-1], dtype=y_pred.dtype
    )


@keras.saving.register_keras_serializable(package="keras_lenet")
class DistanceLoss(keras.losses.Loss):
    """The loss of the 1998 paper, on what `OriginalLeNet5` returns.

    Without `rubbish` it is the distance to the code of the right class
    (https://doi.org/10.1109/5.726791, equation 8). With it, all classes
    compete, and so does one of rubbish whose distance is always `rubbish`
    (equation 9, where it is called j): the loss is the distance to the right
    code plus `log(exp(-rubbish) + sum(exp(-distances)))`.

    Args:
        rubbish: Number above 0, or `None`. Defaults to `None`.
        **kwargs: `name`, `reduction` and `dtype`, as for any Keras loss.

    Call arguments:
        y_true: Integers of shape `(batch,)` or `(batch, 1)`. For a map of
            outputs `(batch, height, width)` or `(batch, height, width, 1)`.
        y_pred: Floats of shape `(batch, num_classes)`: distances, negative.
            For a map of outputs `(batch, height, width, num_classes)`.

    Raises:
        ValueError: When `rubbish` or a shape is not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.original import DistanceLoss
    >>> scores = np.array([[-3.0, -5.0]])
    >>> float(DistanceLoss()(np.array([0]), scores))
    3.0
    >>> round(float(DistanceLoss(rubbish=4.0)(np.array([0]), scores)), 4)
    0.4076
    """

    takes_class_indices = True

    def __init__(
        self,
        rubbish: float | None = None,
        name: str = "distance_loss",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if rubbish is not None and not (
            isinstance(rubbish, (int, float, np.number))
            and 0 < rubbish < np.inf
        ):
            raise ValueError(
                "`rubbish` must be a number above 0, or None. "
                f"Received: rubbish={rubbish!r}"
            )
        self.rubbish = None if rubbish is None else float(rubbish)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        loss = -ops.sum(one_hot_labels(y_true, y_pred) * y_pred, axis=-1)
        if self.rubbish is None:
            return loss
        # exp(-distance) underflows.
        others = ops.logsumexp(y_pred, axis=-1)
        return loss + ops.logaddexp(
            others, -ops.ones_like(others) * self.rubbish
        )

    def second_derivatives(
        self, y_true: Tensor, features: Tensor, codes: Any
    ) -> Tensor:
        """Returns the second derivatives of the loss by the features.

        Args:
            y_true: Integers of shape `(..., )`.
            features: Tensor of shape `(..., size)`, what the distances to
                `codes` are taken of.
            codes: Array of shape `(num_classes, size)`.

        Returns:
            Tensor of shape `(..., size)`: the diagonal, never negative.
        """
        if self.rubbish is None:
            return 2 * ops.ones_like(features)
        codes = ops.convert_to_tensor(codes, features.dtype)
        apart = ops.expand_dims(features, -2) - codes
        scores = -ops.sum(apart**2, axis=-1, keepdims=True)
        rubbish = -self.rubbish * ops.ones_like(scores[..., :1, :])
        shares = ops.softmax(ops.concatenate([scores, rubbish], -2), axis=-2)
        shares = shares[..., :-1, :]
        # The distances' own, 2, as far as it is no rubbish, and how gradients
        # differ between classes.
        slopes = 2 * apart
        mean = ops.sum(shares * slopes, axis=-2)
        spread = ops.sum(shares * slopes**2, axis=-2) - mean**2
        return 2 * (1 - ops.sum(shares, axis=-2)) + spread

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rubbish": self.rubbish}


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
        shape = validation.checked_input_shape(input_shape)
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
