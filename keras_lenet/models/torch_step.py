"""Keras' training step on PyTorch, with PyTorch's fused Adam.

Keras updates the weights with a dozen operations, and finds each weight's place
in the optimizer anew, which takes a tenth of a step with small batches. PyTorch
has one operation for it, on a CPU too.
"""

import math
from collections.abc import Callable
from typing import Any

import keras

from keras_lenet.keras_internals import adam_moments, updates_all_alike
from keras_lenet.models.twins import has_own_methods

# With these settings, Keras' Adam does nothing else.
_PLAIN = {
    "amsgrad": False,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


def supports(model: Any) -> bool:
    """Returns whether `train_function` trains a compiled model as Keras does.

    The model must have Keras' own `train_step`. Keras rejects several steps per
    execution.
    """
    return (
        keras.backend.backend() == "torch"
        and not model.jit_compile
        and model.steps_per_execution == 1
    )


def train_function(model: Any) -> Callable[[Any], Any]:
    """Returns a `train_function` for one batch."""

    def function(data: Any) -> Any:
        optimizer = model.optimizer
        variables = model.trainable_variables
        if not _is_plain(optimizer, variables):
            return model.train_step(data[0])
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data[0])
        outputs = model(x, training=True)
        model.zero_grad()
        loss = model.compute_loss(x, y, outputs, sample_weight, training=True)
        loss_metric, *_ = model.metrics
        rows = keras.tree.flatten(x)[0].shape[0]
        loss_metric.update_state(loss, sample_weight=rows)
        loss.backward()
        gradients = [variable.value.grad for variable in variables]
        if any(gradient is None for gradient in gradients):
            optimizer.apply(gradients, variables)
        else:
            _apply(optimizer, gradients, variables)
        return model.compute_metrics(x, y, outputs, sample_weight)

    return function


def _is_plain(optimizer: Any, variables: list[Any]) -> bool:
    """Returns whether `_apply` does what the optimizer does."""
    return (
        bool(variables)
        and isinstance(optimizer, keras.optimizers.Adam)
        and type(optimizer).__module__.startswith("keras.")
        and not has_own_methods(optimizer)
        and all(getattr(optimizer, k) is v for k, v in _PLAIN.items())
        and all(
            variable.constraint is None
            and not variable.overwrite_with_gradient
            and variable.value.device.type == "cpu"
            and variable.dtype == "float32"
            for variable in variables
        )
        and updates_all_alike(optimizer, variables)
    )


def _apply(optimizer: Any, gradients: list[Any], variables: list[Any]) -> None:
    import torch
    from torch.optim.adam import adam

    step = int(optimizer.iterations)
    with torch.no_grad():
        adam(
            [variable.value for variable in variables],
            gradients,
            *adam_moments(optimizer, variables),
            [],
            list(torch.full((len(variables),), float(step))),
            fused=True,
            amsgrad=False,
            decoupled_weight_decay=True,
            beta1=optimizer.beta_1,
            beta2=optimizer.beta_2,
            lr=float(optimizer.learning_rate),
            weight_decay=optimizer.weight_decay or 0.0,
            # PyTorch adds epsilon after it corrects the bias, Keras before.
            eps=optimizer.epsilon
            / math.sqrt(1 - optimizer.beta_2 ** (step + 1)),
            maximize=False,
        )
        optimizer.iterations.assign_add(1)
