"""Every use of what Keras does not export or document, in one place.

All of it was checked with Keras 3.15.1.
"""

from typing import Any

import keras


def attach_jax_state(model: Any) -> None:
    """Gives a model the values of its variables as its JAX state."""
    # Before it asks for the next batch, Keras takes the state out of the
    # model. Where there is no next batch it puts back what the last user of
    # the model left here: from an evaluation that is only a part, and metrics
    # of its own.
    model._jax_state = {
        name: [v.value for v in variables]
        for name, variables in (
            ("trainable_variables", model.trainable_variables),
            ("non_trainable_variables", model.non_trainable_variables),
            ("optimizer_variables", model.optimizer.variables),
            ("metrics_variables", model.metrics_variables),
        )
    }


# Keras' own random image layers derive from this class, which it does not
# export.
ImagePreprocessingLayer: Any = keras.layers.RandomRotation.__mro__[1]


# Only layers of this base class run inside `tf.data` on every backend. Keras
# does not export it; its own preprocessing layers derive from it.
DataLayer: Any = keras.layers.Rescaling.__mro__[1]
