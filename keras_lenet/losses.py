"""Losses for integer labels."""

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
