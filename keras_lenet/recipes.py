"""Recipes: arguments for `compile`, and compiled models."""

from typing import Any

import keras
from keras import ops

from keras_lenet.losses import (
    KLDistillation,
    SmoothedSparseCategoricalCrossentropy,
)
from keras_lenet.original.recipe import paper
from keras_lenet.types import Tensor
from keras_lenet.validation.arguments import (
    check_positive_integer,
    is_finite_number,
)

__all__ = [
    "OneCycle",
    "SmoothedSparseCategoricalCrossentropy",
    "accurate",
    "distilled",
    "fast",
    "paper",
]


@keras.saving.register_keras_serializable(package="keras_lenet")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises to a peak, then falls to zero.

    It rises linearly over the first steps and falls linearly over the others
    (https://arxiv.org/abs/1708.07120, section 3). After the last step it stays
    at zero.

    Args:
        peak_learning_rate: Number above 0. The highest learning rate.
        steps: Integer. The number of training steps.
        warmup: Number above 0 and below 1. The share of the steps in which
            the learning rate rises. Defaults to `0.15`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> from keras_lenet.recipes import OneCycle
    >>> schedule = OneCycle(0.1, steps=100)
    >>> [round(float(schedule(step)), 3) for step in (0, 14, 99, 100)]
    [0.007, 0.1, 0.001, 0.0]
    """

    def __init__(
        self, peak_learning_rate: float, steps: int, warmup: float = 0.15
    ) -> None:
        if not is_finite_number(peak_learning_rate) or peak_learning_rate <= 0:
            raise ValueError(
                "`peak_learning_rate` must be a number above 0. "
                f"Received: peak_learning_rate={peak_learning_rate!r}"
            )
        check_positive_integer("steps", steps)
        if not is_finite_number(warmup) or not 0 < warmup < 1:
            raise ValueError(
                "`warmup` must be a number above 0 and below 1. "
                f"Received: warmup={warmup!r}"
            )
        self.peak_learning_rate = float(peak_learning_rate)
        self.steps = int(steps)
        self.warmup = float(warmup)

    def __call__(self, step: Any) -> Tensor:
        # Count from 1: the learning rate of step 0 is above zero.
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


def fast(steps: int, from_logits: bool = False) -> dict[str, Any]:
    """Returns arguments of `compile` to train a model in few steps.

    Muon (https://arxiv.org/abs/2502.16982) for the kernels of hidden dense
    layers and Adam for the other weights, with momenta for short runs, a
    one-cycle learning rate, and label smoothing. It was tuned for LeNet-5 on
    MNIST, one epoch of batches of 125 images, on images held out of the
    training set. Name the last layer of your model `output`.

    Args:
        steps: Integer. The number of training steps in all epochs.
        from_logits: Boolean. Whether the model returns logits. Defaults to
            `False`, for probabilities.

    Returns:
        Dict with `optimizer`, `loss` and `metrics`, for `compile`.

    Raises:
        ImportError: If Keras is older than 3.13.
        ValueError: If `steps` is not a positive integer.

    Example:

    >>> from keras_lenet import LeNet5, recipes
    >>> model = LeNet5()
    >>> model.compile(**recipes.fast(steps=480))
    >>> model.fit(x_train, y_train, batch_size=125)  # doctest: +SKIP
    """
    check_positive_integer("steps", steps)
    return {
        "optimizer": _muon(
            OneCycle(0.016, steps),
            adam_beta_1=0.8,
            adam_beta_2=0.9,
            # More iterations give no better accuracy, and cost time.
            ns_steps=3,
        ),
        "loss": SmoothedSparseCategoricalCrossentropy(from_logits=from_logits),
        "metrics": ["accuracy"],
    }


def accurate(steps: int, from_logits: bool = False) -> dict[str, Any]:
    """Returns arguments of `compile` to train a model for accuracy.

    Muon, as in `fast`, with weight decay, a one-cycle learning rate and little
    label smoothing, for 90 epochs of batches of 250 images that
    `keras_lenet.RandomDistortion` distorts differently each time. It was tuned
    for LeNet-5 on MNIST, on 5,000 images held out of the training set. Name
    the last layer of your model `output`.

    Args:
        steps: Integer. The number of training steps in all epochs.
        from_logits: Boolean. Whether the model returns logits. Defaults to
            `False`, for probabilities.

    Returns:
        Dict with `optimizer`, `loss` and `metrics`, for `compile`.

    Raises:
        ImportError: If Keras is older than 3.13.
        ValueError: If `steps` is not a positive integer.

    Example:

    >>> from keras_lenet import LeNet5, RandomDistortion, datasets, recipes
    >>> model = LeNet5()
    >>> model.compile(**recipes.accurate(steps=90 * 240))
    >>> train = datasets.image_dataset_from_array(
    ...     x_train, y_train, 250, shuffle=True, augment=RandomDistortion()
    ... )  # doctest: +SKIP
    >>> model.fit(train, epochs=90, shuffle=False)  # doctest: +SKIP
    """
    check_positive_integer("steps", steps)
    return {
        "optimizer": _muon(
            OneCycle(0.012, steps, warmup=0.1), weight_decay=0.1
        ),
        "loss": SmoothedSparseCategoricalCrossentropy(0.02, from_logits),
        "metrics": ["accuracy"],
    }


def distilled(
    teacher: keras.Model,
    student: keras.Model,
    steps: int,
    temperature: float = 4.0,
    from_logits: bool = False,
) -> keras.Model:
    """Returns a model whose `fit` trains a student to answer as a teacher.

    It is a compiled `keras.distillation.Distiller`. The student learns from
    what the teacher answers for the same, distorted image
    (https://arxiv.org/abs/1503.02531); the labels serve the metrics only. The
    optimizer is that of `accurate`, with the learning rate and weight decay
    that were best for LeNet-5 on MNIST, on 5,000 images held out of the
    training set.

    Args:
        teacher: A trained model, with input and output shapes of the student.
        student: The model to train, e.g. a `LeNet5`. Afterwards, save this
            one. Name its last layer `output`.
        steps: Integer. The number of training steps in all epochs.
        temperature: Number above 0. The higher it is, the more the small
            probabilities of the teacher count. Defaults to `4.0`.
        from_logits: Boolean. Whether both models return logits. Defaults to
            `False`, for probabilities.

    Returns:
        `keras.distillation.Distiller`, compiled.

    Raises:
        ImportError: If Keras is older than 3.13.
        ValueError: If `steps` is not a positive integer, `temperature` is not
            above 0, or the shapes of the models do not match.

    Example:

    >>> from keras_lenet import LeNet5, recipes
    >>> student = LeNet5()
    >>> distiller = recipes.distilled(
    ...     LeNet5.from_preset("mnist"), student, steps=90 * 240
    ... )
    >>> distiller.fit(train, epochs=90)  # doctest: +SKIP
    >>> student.save("student.keras")  # doctest: +SKIP
    """
    check_positive_integer("steps", steps)
    optimizer = _muon(OneCycle(0.024, steps, warmup=0.1), weight_decay=0.05)
    distiller = keras.distillation.Distiller(
        teacher,
        student,
        KLDistillation(temperature, from_logits),
        student_loss_weight=0.0,
    )
    distiller.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    if student.built:
        # So that `ResumableTraining` can resume it.
        distiller.build(student.input_shape)
    return distiller


def _muon(
    learning_rate: OneCycle,
    weight_decay: float | None = None,
    adam_beta_1: float = 0.9,
    adam_beta_2: float = 0.99,
    ns_steps: int = 5,
) -> keras.optimizers.Optimizer:
    """Returns Muon for the kernels of hidden dense layers, else AdamW."""
    version = tuple(map(int, keras.version().split(".")[:2]))
    if version < (3, 13):
        raise ImportError(
            "This recipe needs Keras 3.13 or later, for its Muon optimizer. "
            f"Received: Keras {keras.version()}. Update it with "
            "`pip install --upgrade keras`, or choose your own optimizer."
        )
    return keras.optimizers.Muon(
        learning_rate,
        adam_beta_1=adam_beta_1,
        adam_beta_2=adam_beta_2,
        adam_weight_decay=weight_decay,
        weight_decay=weight_decay,
        exclude_layers=["output/"],
        momentum=0.9,
        ns_steps=ns_steps,
    )
