"""Losses for integer labels, and for the output of a teacher."""

from typing import Any

import keras
from keras import ops

from keras_lenet.types import Tensor
from keras_lenet.validation.arguments import is_finite_number


def one_hot_labels(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Returns integer labels as one-hot vectors like the predictions.

    Args:
        y_true: Labels of shape `(batch, d0, ..., dN)` or
            `(batch, d0, ..., dN, 1)`.
        y_pred: Predictions of shape `(batch, d0, ..., dN, num_classes)`.

    Returns:
        Tensor with the shape and dtype of `y_pred`.

    Raises:
        ValueError: If the shapes of labels and predictions do not match.
    """
    labels = y_true
    if len(labels.shape) == len(y_pred.shape) and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) != len(y_pred.shape) - 1 or any(
        size != expected and None not in (size, expected)
        for size, expected in zip(labels.shape, y_pred.shape[:-1], strict=True)
    ):
        raise ValueError(
            "`y_true` must be integer labels with the shape of `y_pred` "
            "without its last axis, or with a last axis of size 1. "
            f"Received: y_true of shape {tuple(y_true.shape)}, y_pred of "
            f"shape {tuple(y_pred.shape)}"
        )
    return ops.one_hot(
        ops.cast(labels, "int32"), y_pred.shape[-1], dtype=y_pred.dtype
    )


@keras.saving.register_keras_serializable(package="keras_lenet")
class SmoothedSparseCategoricalCrossentropy(keras.losses.Loss):
    """Crossentropy of integer labels, with label smoothing.

    Keras' `SparseCategoricalCrossentropy` takes integers but does not smooth;
    its `CategoricalCrossentropy` smooths but takes one-hot labels. This is the
    latter for integers (https://arxiv.org/abs/1512.00567, section 7). To ignore
    a label, give it a sample weight of 0.

    Args:
        label_smoothing: Number from 0 to 1. The share of the probability that
            is spread over all classes. Defaults to `0.1`.
        from_logits: Boolean. Whether the predictions are logits. Defaults to
            `False`, for probabilities.
        **kwargs: `name`, `reduction` and `dtype`, as for any Keras loss.

    Call arguments:
        y_true: Integers of shape `(batch, d0, ..., dN)` or
            `(batch, d0, ..., dN, 1)`.
        y_pred: Floats of shape `(batch, d0, ..., dN, num_classes)`.

    Raises:
        ValueError: If `label_smoothing` is not from 0 to 1, or the shapes of
            labels and predictions do not match.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.losses import SmoothedSparseCategoricalCrossentropy
    >>> loss = SmoothedSparseCategoricalCrossentropy(label_smoothing=0.2)
    >>> round(float(loss(np.array([1]), np.array([[0.5, 0.5]]))), 4)
    0.6931
    """

    takes_class_indices = True

    def __init__(
        self,
        label_smoothing: float = 0.1,
        from_logits: bool = False,
        name: str = "smoothed_sparse_categorical_crossentropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not (
            is_finite_number(label_smoothing) and 0 <= label_smoothing <= 1
        ):
            raise ValueError(
                "`label_smoothing` must be a number from 0 to 1. "
                f"Received: label_smoothing={label_smoothing!r}"
            )
        self.label_smoothing = float(label_smoothing)
        self.from_logits = from_logits

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return keras.losses.categorical_crossentropy(
            one_hot_labels(y_true, y_pred),
            y_pred,
            from_logits=self.from_logits,
            label_smoothing=self.label_smoothing,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
        }


# Keras 3.11 and earlier have no distillation.
_DistillationLoss: Any = getattr(
    getattr(keras, "distillation", None), "DistillationLoss", object
)


@keras.saving.register_keras_serializable(package="keras_lenet")
class KLDistillation(_DistillationLoss):
    """How far a student's probabilities are from those of its teacher.

    The Kullback-Leibler divergence of both at a temperature, multiplied by the
    square of the temperature (https://arxiv.org/abs/1503.02531, section 2).
    Keras' `keras.distillation.LogitsDistillation` takes no probabilities. Its
    default loss takes the divergence of the logits without softmax (Keras
    3.15.1); with `loss=keras.losses.KLDivergence()` it equals this class.

    Args:
        temperature: Number above 0. The logits, or the logarithms of the
            probabilities, are divided by it: the higher it is, the more the
            small probabilities count. Defaults to `4.0`.
        from_logits: Boolean. Whether the models return logits. Defaults to
            `False`, for probabilities.

    Raises:
        ValueError: If `temperature` is not a number above 0.

    Example:

    >>> import keras
    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.losses import KLDistillation
    >>> distiller = keras.distillation.Distiller(
    ...     teacher=LeNet5.from_preset("mnist"),
    ...     student=LeNet5(),
    ...     distillation_losses=KLDistillation(temperature=2.0),
    ... )
    """

    def __init__(
        self, temperature: float = 4.0, from_logits: bool = False
    ) -> None:
        if not is_finite_number(temperature) or temperature <= 0:
            raise ValueError(
                "`temperature` must be a number above 0. "
                f"Received: temperature={temperature!r}"
            )
        self.temperature = float(temperature)
        self.from_logits = from_logits

    def compute_loss(
        self, teacher_outputs: Tensor, student_outputs: Tensor, **_: Any
    ) -> Tensor:
        teacher, student = (
            ops.log_softmax(self._logits(outputs) / self.temperature)
            for outputs in (teacher_outputs, student_outputs)
        )
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return ops.mean(divergence) * self.temperature**2

    def _logits(self, outputs: Tensor) -> Tensor:
        if self.from_logits:
            return outputs
        # Above the smallest float32, because the logarithm must be finite.
        return ops.log(ops.maximum(outputs, 1e-30))

    def get_config(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "from_logits": self.from_logits,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "KLDistillation":
        return cls(**config)
