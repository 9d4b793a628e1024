"""Every use of Keras that Keras does not export or document, in one place.

Checked with Keras 3.10.0 and 3.15.1.
"""

from typing import Any

import keras

# Keras' preprocessing layers derive from `DataLayer`, the only base class whose
# subclasses run inside `tf.data` on every backend.
DataLayer: Any = keras.layers.Rescaling.__mro__[1]

# Keras' random image layers derive from `BaseImagePreprocessingLayer`.
ImagePreprocessingLayer: Any = keras.layers.RandomRotation.__mro__[1]

if not hasattr(ImagePreprocessingLayer, "_transform_images"):

    class _ImagePreprocessingLayer(ImagePreprocessingLayer):
        """Calls `_transform_images`, as Keras 3.14 and later do."""

        def transform_images(
            self, images: Any, transformation: Any, training: bool = True
        ) -> Any:
            images = self.backend.cast(images, self.compute_dtype)
            if training:
                images = self._transform_images(
                    images, transformation, self.interpolation
                )
            return images

        def transform_segmentation_masks(
            self, masks: Any, transformation: Any, training: bool = True
        ) -> Any:
            if training:
                masks = self._transform_images(masks, transformation, "nearest")
            return masks

    ImagePreprocessingLayer = _ImagePreprocessingLayer

# Keras sets these attributes when it freezes a layer or loads its weights. They
# do not change the layer's output: only quantized layers read the last two.
BOOKKEEPING_ATTRIBUTES = {
    "_trainable",
    "is_awq_calibrated",
    "is_gptq_calibrated",
}


def attach_jax_state(model: Any) -> None:
    """Makes the values of a model's variables its JAX state.

    Keras' `fit` takes the values out of the variables before it asks for the
    next batch, and puts `_jax_state` back if there is none. An evaluation
    inside `fit` leaves `_jax_state` incomplete and with its own metrics.
    """
    model._jax_state = {
        name: [variable.value for variable in variables]
        for name, variables in (
            ("trainable_variables", model.trainable_variables),
            ("non_trainable_variables", model.non_trainable_variables),
            ("optimizer_variables", model.optimizer.variables),
            ("metrics_variables", model.metrics_variables),
        )
    }


def restore_jax_state(model: Any, state: tuple[Any, ...]) -> None:
    """Puts a JAX state back into a model's variables.

    Keras takes the values out of the variables before the first step, and
    loses them if the step raises an error. The state has no optimizer
    variables in `evaluate` and `predict`, and no metrics in `predict`.
    """
    names = ["trainable", "non_trainable", "optimizer", "metrics"]
    if len(state) == 3:
        names.remove("optimizer")
    model._jax_state = {
        f"{name}_variables": values
        for name, values in zip(names, state, strict=False)
    }
    model._jax_state_synced = False
    model.jax_state_sync()


def tensorboard_acts_only_on_epochs(callback: Any) -> bool:
    """Returns whether Keras' `TensorBoard` does nothing on batches.

    Then it only counts them, for the profiler.
    """
    return (
        callback.update_freq == "epoch"
        and not callback.write_steps_per_second
        and not callback._should_trace
    )


def is_validation_of_fit(arguments: dict[str, Any]) -> bool:
    """Returns whether `evaluate` got these arguments from Keras' `fit`.

    Keras' `fit` passes this keyword, and validates with an iterator that it
    made for its own `steps_per_execution`.
    """
    return bool(arguments.get("_use_cached_eval_dataset"))


def max_steps_per_epoch() -> int | None:
    """Returns the limit that Keras 3.11 and later have for debugging."""
    get_limit = getattr(keras.config, "max_steps_per_epoch", lambda: None)
    limit: int | None = get_limit()
    return limit


def set_initial_epoch(model: Any, epoch: int | None) -> None:
    """Sets the epoch at which `fit` starts.

    Keras reads `_initial_epoch` after `on_train_begin`, in every `fit` until
    it is reset, and falls back to `initial_epoch` if it is 0 or `None`.
    """
    model._initial_epoch = epoch


def build_symbolically(model: Any, batch: Any) -> None:
    """Builds a compiled model's layers, metrics, loss and optimizer.

    Keras does this before the first step, but on TensorFlow only under a
    distribution strategy.
    """
    model._symbolic_build(data_batch=batch)


def record_shardings(model: Any) -> None:
    """Prepares a built model's steps on JAX to be traced outside `fit`.

    Keras 3.11 and earlier read there what this method records.
    """
    record = getattr(model, "_record_training_state_sharding_spec", None)
    if record is not None:
        record()


def has_one_replica(model: Any) -> bool:
    """Returns whether a TensorFlow model trains in a single replica.

    Keras keeps the strategy in whose scope the model was made.
    """
    return bool(model.distribute_strategy.num_replicas_in_sync == 1)


def updates_as_configured(optimizer: Any, variables: list[Any]) -> bool:
    """Returns whether an optimizer's configuration says how it updates these.

    It does not say for which variables the optimizer was built, nor which it
    does not decay.
    """
    known = getattr(optimizer, "_trainable_variables", [])
    is_theirs = list(map(id, known)) == list(map(id, variables))
    return (not optimizer.built or is_theirs) and _decays_all(
        optimizer, variables
    )


def step_counter(optimizer: Any) -> Any:
    """Returns the variable that counts steps.

    `iterations` counts accumulated steps as one.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def updates_all_alike(optimizer: Any, variables: list[Any]) -> bool:
    """Returns whether an optimizer is built for variables and decays all."""
    known = getattr(optimizer, "_trainable_variables", [])
    ids = {id(variable) for variable in known}
    return (
        optimizer.built
        and all(id(variable) in ids for variable in variables)
        and _decays_all(optimizer, variables)
    )


def _decays_all(optimizer: Any, variables: list[Any]) -> bool:
    return optimizer.weight_decay is None or all(
        map(optimizer._use_weight_decay, variables)
    )


def adam_moments(
    optimizer: Any, variables: list[Any]
) -> tuple[list[Any], list[Any]]:
    """Returns the tensors of Adam's first and second moments of variables."""
    indices = list(map(optimizer._get_variable_index, variables))
    return (
        [optimizer._momentums[index].value for index in indices],
        [optimizer._velocities[index].value for index in indices],
    )
