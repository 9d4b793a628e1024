"""Several models as one."""

from collections.abc import Sequence

import keras

from keras_lenet.callbacks.isolation import preserve_random_state


def average_models(
    models: Sequence[keras.Model], name: str = "ensemble"
) -> keras.Model:
    """Returns a model whose output is the mean of several models' outputs.

    The mean of the probabilities of models that were trained from different
    initial weights is more accurate than each of them
    (https://doi.org/10.1109/34.58871). The returned model has copies of the
    models, and is saved, loaded and trained like any Keras model.

    Args:
        models: Sequence of at least two Keras models with the same input and
            output shapes. They must have the same output: probabilities, or
            logits.
        name: String. The name of the returned model. Defaults to
            `"ensemble"`.

    Returns:
        `keras.Model` with the models' input and output shapes, not compiled.

    Raises:
        ValueError: If there are fewer than two models, or their shapes differ.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.models import average_models
    >>> ensemble = average_models([LeNet5(), LeNet5()])
    >>> ensemble.count_params()
    123412
    """
    models = list(models)
    shapes = [(model.input_shape, model.output_shape) for model in models]
    if len(models) < 2 or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "`models` must be at least two models with the same input and "
            f"output shapes. Received: {len(models)} with the shapes {shapes}"
        )
    inputs = keras.Input(shapes[0][0][1:], name="images")
    outputs = [
        _copy(model, f"{name}_{index}")(inputs)
        for index, model in enumerate(models)
    ]
    return keras.Model(
        inputs, keras.layers.Average(name="average")(outputs), name=name
    )


def _copy(model: keras.Model, name: str) -> keras.Model:
    """Returns a copy with another name: names in a model must differ."""
    with preserve_random_state():
        copy = type(model).from_config({**model.get_config(), "name": name})
    copy.set_weights(model.get_weights())
    return copy
