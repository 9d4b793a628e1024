"""The training of the 1998 paper."""

from typing import Any

import keras

from keras_lenet.original.loss import DistanceLoss
from keras_lenet.original.optimizer import LevenbergMarquardt
from keras_lenet.validation.arguments import check_positive_integer


def paper(steps: int, batch_size: int = 1) -> dict[str, Any]:
    """Returns arguments to compile an `OriginalLeNet5` as in the 1998 paper.

    The optimizer is stochastic diagonal Levenberg-Marquardt, one image per
    step. Its learning rate changes four times in 20 epochs
    (https://doi.org/10.1109/5.726791, appendix C). The loss is equation 9.

    The paper's learning rates are divided by 5, in the first two epochs by 50,
    as networks saturate otherwise. The constant j, which the paper does not
    give, is 7. These values were chosen on images held out of MNIST's training
    set. `fit` also needs the callback `keras_lenet.CurvatureEstimation`.

    Args:
        steps: Integer. The number of training steps in all epochs.
        batch_size: Integer. The number of images per step. Learning rates are
            multiplied by it, as the loss is a mean over images. Defaults to
            `1`, as in the paper.

    Returns:
        Dict with `optimizer`, `loss` and `metrics`, for `compile`.

    Raises:
        ValueError: If an argument is not a positive integer.

    Example:

    >>> from keras_lenet import recipes
    >>> from keras_lenet import CurvatureEstimation
    >>> from keras_lenet.original import OriginalLeNet5
    >>> model = OriginalLeNet5()
    >>> model.compile(**recipes.paper(steps=20 * 60_000))
    >>> model.fit(
    ...     x_train,
    ...     y_train,
    ...     batch_size=1,
    ...     epochs=20,
    ...     shuffle=False,
    ...     callbacks=[CurvatureEstimation(x_train, y_train)],
    ... )  # doctest: +SKIP
    """
    check_positive_integer("steps", steps)
    check_positive_integer("batch_size", batch_size)
    boundaries = [steps * epochs // 20 for epochs in (2, 5, 8, 12)]
    rates = (0.00001, 0.00004, 0.00002, 0.00001, 0.000002)
    return {
        "optimizer": LevenbergMarquardt(
            keras.optimizers.schedules.PiecewiseConstantDecay(
                boundaries, [batch_size * rate for rate in rates]
            )
        ),
        "loss": DistanceLoss(rubbish=7.0),
        "metrics": ["accuracy"],
    }
