"""Several models as one."""

from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_lenet.callbacks.isolation import preserve_random_state


@keras.saving.register_keras_serializable(package="keras_lenet")
class Ensemble(keras.Model):
    """A model whose output is the mean of several models' outputs.

    The mean of the probabilities of models that were trained from different
    initial weights is more accurate than each of them
    (https://doi.org/10.1109/34.58871). The ensemble has copies of the models,
    and is trained, saved and loaded like any Keras model. Unlike a `LeNet5`, it
    does not check the scale of pixels. `keras_lenet.export` writes it as ONNX,
    LiteRT and SavedModel.

    Args:
        models: Sequence of at least two Keras models with the same input and
            output shapes. They must take pixels of the same scale and have the
            same output: probabilities, or logits. `class_names` must not
            differ.
        name: String. The name of the model. Defaults to `"ensemble"`.
        **kwargs: `trainable`, as for any Keras model.

    Attributes:
        models: List of the copies, with the names `{name}_0`, `{name}_1`, ...

    Input shape:
        That of the models.

    Output shape:
        That of the models.

    Raises:
        ValueError: If there are fewer than two models, one is not built, or
            they differ in their shapes or in one of these.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.models import Ensemble
    >>> ensemble = Ensemble([LeNet5(), LeNet5()])
    >>> ensemble.count_params()
    123412
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        name: str = "ensemble",
        **kwargs: Any,
    ) -> None:
        models = list(models)
        _check_models(models)
        inputs = keras.Input(models[0].input_shape[1:], name="images")
        outputs = [
            _copy(model, f"{name}_{index}")(inputs)
            for index, model in enumerate(models)
        ]
        # The mean is as precise as the outputs, whatever the global policy is.
        average = keras.layers.Average(name="average", dtype=outputs[0].dtype)
        super().__init__(
            inputs=inputs, outputs=average(outputs), name=name, **kwargs
        )

    @property
    def models(self) -> list[Any]:
        return list(self.layers[1:-1])

    # All models of an ensemble of `LeNet5` or of `OriginalLeNet5` share these.

    @property
    def num_classes(self) -> int:
        return int(self.output_shape[-1])

    @property
    def class_names(self) -> Any:
        return self._shared("class_names")

    @property
    def include_preprocessing(self) -> Any:
        return self._shared("include_preprocessing")

    @property
    def classifier_activation(self) -> Any:
        return self._shared("classifier_activation")

    def _shared(self, argument: str) -> Any:
        """Returns an argument of the models, `None` if none of them has it."""
        return next(iter(_given(self.models, argument)), None)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "models": [
                _without_compiling(keras.saving.serialize_keras_object(model))
                for model in self.models
            ],
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Self:
        models = [
            keras.saving.deserialize_keras_object(
                model, custom_objects=custom_objects
            )
            for model in config["models"]
        ]
        return cls(**{**config, "models": models})


def _check_models(models: Sequence[Any]) -> None:
    """Checks that the outputs of models can be averaged."""
    # Other objects, and models that are not built, have no shapes.
    shapes = [
        (
            getattr(model, "input_shape", None),
            getattr(model, "output_shape", None),
        )
        for model in models
    ]
    if (
        len(models) < 2
        or any(shape != shapes[0] for shape in shapes)
        or not isinstance(shapes[0][0], tuple)
    ):
        raise ValueError(
            "`models` must be at least two built models with one input and "
            "the same input and output shapes. Received: "
            f"{len(models)} with the shapes {shapes}"
        )
    for argument in ("include_preprocessing", "class_names"):
        given = _given(models, argument)
        if any(value != given[0] for value in given):
            raise ValueError(
                f"`models` must have the same `{argument}`. Received: {given}"
            )
    activations = _given(models, "classifier_activation")
    if len({each is keras.activations.linear for each in activations}) > 1:
        raise ValueError(
            "`models` must all return probabilities, or all logits. "
            f"Received: models with `classifier_activation` {activations}"
        )


def _given(models: Sequence[keras.Model], argument: str) -> list[Any]:
    """Returns an argument of those models that have it."""
    values = [getattr(model, argument, None) for model in models]
    return [value for value in values if value is not None]


def _without_compiling(serialized: dict[str, Any]) -> dict[str, Any]:
    """Leaves out how a model was compiled: only the ensemble is trained."""
    serialized.pop("compile_config", None)
    return serialized


def _copy(model: keras.Model, name: str) -> keras.Model:
    """Returns a copy with another name: names in a model must differ."""
    with preserve_random_state():
        copy = type(model).from_config({**model.get_config(), "name": name})
    copy.set_weights(model.get_weights())
    return copy
