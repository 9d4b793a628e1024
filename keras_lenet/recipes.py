"""Recipes for training: what to give to `compile`."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lenet.datasets import is_positive_integer
from keras_lenet.layers import Tensor
from keras_lenet.optimizers import LevenbergMarquardt
from keras_lenet.original import DistanceLoss, one_hot_labels


@keras.saving.register_keras_serializable(package="keras_lenet")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises to a peak, then falls to zero.

    It rises linearly over the first part of the steps and falls linearly over
    the others, as in https://arxiv.org/abs/1708.07120, section 3. After the
    last step it stays at zero.

    Args:
        peak_learning_rate: Number above 0. The learning rate at its highest.
        steps: Integer. How many training steps there are.
        warmup: Number above 0 and below 1. The share of the steps in which
            the rate rises. Defaults to `0.15`.

    Raises:
        ValueError: When an argument is not of the form above.

    Example:

    >>> from keras_lenet.recipes import OneCycle
    >>> schedule = OneCycle(0.1, steps=100)
    >>> [round(float(schedule(step)), 3) for step in (0, 14, 99, 100)]
    [0.007, 0.1, 0.001, 0.0]
    """

    def __init__(
        self, peak_learning_rate: float, steps: int, warmup: float = 0.15
    ) -> None:
        if not (
            isinstance(peak_learning_rate, (int, float, np.number))
            and 0 < peak_learning_rate < math.inf
        ):
            raise ValueError(
                "`peak_learning_rate` must be a number above 0. "
                f"Received: peak_learning_rate={peak_learning_rate!r}"
            )
        _check_steps(steps)
        if not (isinstance(warmup, (float, np.floating)) and 0 < warmup < 1):
            raise ValueError(
                "`warmup` must be a number above 0 and below 1. "
                f"Received: warmup={warmup!r}"
            )
        self.peak_learning_rate = float(peak_learning_rate)
        self.steps = int(steps)
        self.warmup = float(warmup)

    def __call__(self, step: Any) -> Tensor:
        # The first step is 0 and has a rate already.
        done = ops.cast(step, "float32") + 1.0
        top = self.warmup * self.steps
        rising = done / top
        falling = (self.steps + 1 - done) / (self.steps + 1 - top)
        share = ops.maximum(ops.minimum(rising, falling), 0.0)
        return self.peak_learning_rate * share

    def get_config(self) -> dict[str, Any]:
        return {
            "peak_learning_rate": self.peak_learning_rate,
            "steps": self.steps,
            "warmup": self.warmup,
        }


@keras.saving.register_keras_serializable(package="keras_lenet")
class SmoothedSparseCategoricalCrossentropy(keras.losses.Loss):
    """Crossentropy of integer labels, with label smoothing.

    Keras' `SparseCategoricalCrossentropy` takes integers but does not smooth,
    its `CategoricalCrossentropy` smooths but takes one-hot labels. This is the
    latter for integers (https://arxiv.org/abs/1512.00567, section 7). Labels
    to leave out get a sample weight of 0.

    Args:
        label_smoothing: Number from 0 to 1. The share of the probability that
            is spread over all classes. Defaults to `0.1`.
        from_logits: Boolean. Whether the predictions are logits. Defaults to
            `False`: probabilities.
        **kwargs: `name`, `reduction` and `dtype`, as for any Keras loss.

    Call arguments:
        y_true: Integers of shape `(batch, d0, ..., dN)` or
            `(batch, d0, ..., dN, 1)`.
        y_pred: Floats of shape `(batch, d0, ..., dN, num_classes)`.

    Raises:
        ValueError: When `label_smoothing` is not from 0 to 1, or a shape is
            not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.recipes import SmoothedSparseCategoricalCrossentropy
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
            isinstance(label_smoothing, (int, float, np.number))
            and 0 <= label_smoothing <= 1
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


def fast(steps: int, from_logits: bool = False) -> dict[str, Any]:
    """Returns what to compile a model with to train it in few steps.

    Adam with momenta for short runs, a learning rate of one cycle, and label
    smoothing. It was tuned for LeNet-5 on MNIST with batches of 100 to 250
    images, on 5,000 images held out of the training set.

    Args:
        steps: Integer. How many training steps there will be, in all epochs.
        from_logits: Boolean. Whether the model returns logits. Defaults to
            `False`: probabilities.

    Returns:
        Dict with `optimizer`, `loss` and `metrics`, for `compile`.

    Raises:
        ValueError: When `steps` is not a positive integer.

    Example:

    >>> from keras_lenet import LeNet5, recipes
    >>> model = LeNet5()
    >>> model.compile(**recipes.fast(steps=2 * 480))
    >>> model.fit(x_train, y_train, batch_size=125, epochs=2)  # doctest: +SKIP
    """
    _check_steps(steps)
    return {
        "optimizer": keras.optimizers.Adam(
            OneCycle(0.016, steps), beta_1=0.8, beta_2=0.9
        ),
        "loss": SmoothedSparseCategoricalCrossentropy(from_logits=from_logits),
        "metrics": ["accuracy"],
    }


def accurate(steps: int, from_logits: bool = False) -> dict[str, Any]:
    """Returns what to compile a model with to train it for accuracy.

    AdamW with a learning rate of one cycle and a little label smoothing, for
    90 epochs of batches of 250 images that `keras_lenet.RandomDistortion`
    distorts anew each time. It was tuned for LeNet-5 on MNIST, on 5,000
    images held out of the training set.

    Args:
        steps: Integer. How many training steps there will be, in all epochs.
        from_logits: Boolean. Whether the model returns logits. Defaults to
            `False`: probabilities.

    Returns:
        Dict with `optimizer`, `loss` and `metrics`, for `compile`.

    Raises:
        ValueError: When `steps` is not a positive integer.

    Example:

    >>> from keras_lenet import LeNet5, RandomDistortion, datasets, recipes
    >>> model = LeNet5()
    >>> model.compile(**recipes.accurate(steps=90 * 240))
    >>> train = datasets.image_dataset_from_array(
    ...     x_train, y_train, 250, shuffle=True, augment=RandomDistortion()
    ... )  # doctest: +SKIP
    >>> model.fit(train, epochs=90, shuffle=False)  # doctest: +SKIP
    """
    _check_steps(steps)
    return {
        "optimizer": keras.optimizers.AdamW(
            OneCycle(0.006, steps, warmup=0.1), weight_decay=0.3, beta_2=0.99
        ),
        "loss": SmoothedSparseCategoricalCrossentropy(0.02, from_logits),
        "metrics": ["accuracy"],
    }


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
    _check_steps(steps)
    if not is_positive_integer(batch_size):
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}"
        )
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


def _check_steps(steps: Any) -> None:
    if not is_positive_integer(steps):
        raise ValueError(
            f"`steps` must be a positive integer. Received: steps={steps!r}"
        )
