"""The training of the 1998 paper."""

from typing import Any

import keras

from keras_lenet.original.loss import DistanceLoss
from keras_lenet.original.optimizer import LevenbergMarquardt
from keras_lenet.validation.arguments import check_positive_integer


def paper(steps: int, batch_size: int = 1) -> dict[str, Any]:
    """Returns what to compile an `OriginalLeNet5` with, as the 1998 paper says.

    Stochastic diagonal Levenberg-Marquardt, one image at a time, whose rate
    changes four times in 20 passes (https://doi.org/10.1109/5.726791, appendix
    C), and the loss of equation 9. The paper's rates are divided by 5, those of
    the first two passes by 50, without which networks saturate, and its
    constant j is 7; these were chosen on images held out of MNIST's training
    set. It also needs `keras_lenet.CurvatureEstimation`.

    Args:
        steps: Integer. How many training steps there will be, in all epochs.
        batch_size: Integer. How many images a step has. As the loss is their
            mean, rates are multiplied by it. Defaults to `1`, as the paper.

    Returns:
        Dict with `optimizer`, `loss` and `metrics`, for `compile`.

    Raises:
        ValueError: When an argument is not a positive integer.

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
    boundaries = [steps * passes // 20 for passes in (2, 5, 8, 12)]
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
