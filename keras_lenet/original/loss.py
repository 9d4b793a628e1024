"""The loss of the 1998 paper."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.losses import one_hot_labels
from keras_lenet.types import Tensor


@keras.saving.register_keras_serializable(package="keras_lenet")
class DistanceLoss(keras.losses.Loss):
    """Computes the loss of the 1998 paper from `OriginalLeNet5`'s output.

    Without `rubbish`, the loss is the distance to the code of the right class
    (https://doi.org/10.1109/5.726791, equation 8). With `rubbish`, called j in
    the paper, all classes compete with each other and with a rubbish class
    whose distance is constant (equation 9): the loss is the distance to the
    right code plus `log(exp(-rubbish) + sum(exp(-distances)))`.

    Args:
        rubbish: Number above 0, or `None`. Defaults to `None`.
        **kwargs: `name`, `reduction` and `dtype`, as for any Keras loss.

    Call arguments:
        y_true: Integers of shape `(batch,)` or `(batch, 1)`. For a map of
            outputs `(batch, height, width)` or `(batch, height, width, 1)`.
        y_pred: Floats of shape `(batch, num_classes)`: negative distances. For
            a map of outputs `(batch, height, width, num_classes)`.

    Raises:
        ValueError: If `rubbish` is not above 0, or the shapes do not match.

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
        # `exp(-distance)` underflows, so compute with logarithms.
        others = ops.logsumexp(y_pred, axis=-1)
        return loss + ops.logaddexp(
            others, -ops.ones_like(others) * self.rubbish
        )

    def second_derivatives(
        self, y_true: Tensor, features: Tensor, codes: Any
    ) -> Tensor:
        """Returns the loss's second derivatives with respect to the features.

        Args:
            y_true: Integers of shape `(...,)`.
            features: Tensor of shape `(..., size)`, the inputs of
                `EuclideanRBF`.
            codes: Array of shape `(num_classes, size)`.

        Returns:
            Tensor of shape `(..., size)`: the diagonal, never negative.
        """
        if self.rubbish is None:
            return 2 * ops.ones_like(features)
        codes = ops.convert_to_tensor(codes, features.dtype)
        differences = ops.expand_dims(features, -2) - codes
        scores = -ops.sum(differences**2, axis=-1, keepdims=True)
        rubbish = -self.rubbish * ops.ones_like(scores[..., :1, :])
        scores = ops.concatenate([scores, rubbish], axis=-2)
        probabilities = ops.softmax(scores, axis=-2)[..., :-1, :]
        # Add the second derivative of the distance, 2, times the probability of
        # rubbish, and the variance of the distances' gradients.
        slopes = 2 * differences
        mean = ops.sum(probabilities * slopes, axis=-2)
        variance = ops.sum(probabilities * slopes**2, axis=-2) - mean**2
        return 2 * (1 - ops.sum(probabilities, axis=-2)) + variance

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rubbish": self.rubbish}
