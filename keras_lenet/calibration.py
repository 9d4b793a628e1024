"""Whether probabilities can be trusted, and what to reject by them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from keras_lenet.models import LeNet5

Array = npt.NDArray[Any]


def fit_temperature(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> float:
    """Returns the temperature that makes probabilities fit best.

    Divided by it, logits give the probabilities `softmax(logits / T)` whose
    crossentropy is smallest (https://arxiv.org/abs/1706.04599, section 4.2).
    Above 1 a model is too sure of itself, below 1 not sure enough. The class
    with the highest probability stays the same.

    Args:
        probabilities: Array of floats of shape `(n, num_classes)`, of images
            that the model was not trained on.
        labels: Array of integers of shape `(n,)`.

    Returns:
        Float from 0.01 to 100.

    Raises:
        ValueError: When shapes or values are not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.calibration import fit_temperature
    >>> sure = np.tile([0.9, 0.1], (10, 1))
    >>> labels = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]  # Right in 7 of 10.
    >>> temperature = fit_temperature(sure, labels)
    >>> logits = np.log(sure[0]) / temperature
    >>> round(float(np.exp(logits[0]) / np.exp(logits).sum()), 3)
    0.7
    """
    values, indices = _checked(probabilities, labels)
    # Up to a constant, logits.
    logits = np.log(np.maximum(values, np.finfo("float32").tiny))
    actual = np.take_along_axis(logits, indices[:, np.newaxis], axis=1)
    low, high = np.log(0.01), np.log(100.0)
    # The derivative by 1/T, which grows with it, changes its sign once.
    for _ in range(60):
        middle = (low + high) / 2
        weights = _softmax(logits / np.exp(middle))
        if ((weights * logits).sum(axis=1) - actual[:, 0]).mean() > 0:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = 15
) -> float:
    """Returns how far off probabilities are from how often they are right.

    Predictions are put into bins by the probability of the predicted class;
    it is the mean difference of that and the accuracy, weighted by the
    numbers of predictions (https://arxiv.org/abs/1706.04599, equation 3).

    Args:
        probabilities: Array of floats of shape `(n, num_classes)`.
        labels: Array of integers of shape `(n,)`.
        num_bins: Integer. How many bins from 0 to 1. Defaults to `15`.

    Returns:
        Float from 0 to 1.

    Raises:
        ValueError: When shapes or values are not of the form above.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.calibration import expected_calibration_error
    >>> sure = np.tile([0.9, 0.1], (10, 1))
    >>> labels = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]  # Right in 7 of 10.
    >>> round(expected_calibration_error(sure, labels), 3)
    0.2
    """
    values, indices = _checked(probabilities, labels)
    confidence = values.max(axis=1)
    right = values.argmax(axis=1) == indices
    bins = np.ceil(confidence * num_bins).clip(1, num_bins).astype("int64")
    # Sums of what a bin lacks or has too much.
    surplus = np.bincount(bins, confidence - right)
    return float(abs(surplus).sum() / len(indices))


def risk_coverage_curve(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> dict[str, Array]:
    """Returns the error that is left when unsure predictions are rejected.

    Args:
        probabilities: Array of floats of shape `(n, num_classes)`.
        labels: Array of integers of shape `(n,)`.

    Returns:
        Dict of arrays, one number for each different probability of a
        predicted class, from the lowest on: `"threshold"`, below which
        predictions are rejected; `"rejected"`, their share; `"error"`, the
        share of the others that is wrong.

    Raises:
        ValueError: When shapes or values are not of the form above.

    Example:

    >>> from keras_lenet.calibration import risk_coverage_curve
    >>> curve = risk_coverage_curve(
    ...     [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], [0, 0, 1, 0]
    ... )
    >>> curve["rejected"].tolist()
    [0.0, 0.25, 0.5, 0.75]
    >>> curve["error"].tolist()
    [0.25, 0.0, 0.0, 0.0]
    """
    values, indices = _checked(probabilities, labels)
    confidence = values.max(axis=1)
    order = confidence.argsort()
    wrong = (values.argmax(axis=1) != indices)[order]
    threshold, first = np.unique(confidence[order], return_index=True)
    # Of each prediction and all that are surer.
    errors = wrong[::-1].cumsum()[::-1]
    count = len(wrong)
    return {
        "threshold": threshold,
        "rejected": first / count,
        "error": errors[first] / (count - first),
    }


def calibrate(
    model: "LeNet5", images: npt.ArrayLike, labels: npt.ArrayLike
) -> float:
    """Makes the probabilities of a model fit, by a temperature.

    The weights of the output layer are divided by it, so that the model
    itself gives calibrated probabilities, wherever it is used. Predicted
    classes stay the same.

    Args:
        model: A `LeNet5`, or another model whose last layer is `Dense` with
            a softmax.
        images: Array of images that the model was not trained on.
        labels: Array of integers of shape `(n,)`.

    Returns:
        The temperature, a float.

    Raises:
        ValueError: When the model does not end in a softmax, or the data are
            not of the form above.

    Example:

    >>> from keras_lenet.calibration import calibrate
    >>> calibrate(model, x_val, y_val)  # doctest: +SKIP
    """
    import keras

    layer = model.layers[-1]
    if (
        not isinstance(layer, keras.layers.Dense)
        or layer.activation is not keras.activations.softmax
    ):
        raise ValueError(
            "`model` must end in a `Dense` layer with a softmax. "
            f"Received: a model that ends in {layer!r}."
        )
    if layer.lora_enabled or layer.quantization_mode not in (None, "int8"):
        raise ValueError(
            "`model` must end in a layer with float or int8 weights and "
            "without LoRA. Received: quantization_mode="
            f"{layer.quantization_mode!r}, lora_enabled={layer.lora_enabled}. "
            "Calibrate the model before you change it."
        )
    probabilities = model.predict(images, batch_size=500, verbose=0)
    temperature = fit_temperature(probabilities, labels)
    if layer.quantization_mode == "int8":
        # Weights are what is stored, divided by the scale.
        layer.kernel_scale.assign(layer.kernel_scale * temperature)
    else:
        layer.kernel.assign(layer.kernel / temperature)
    if layer.bias is not None:
        layer.bias.assign(layer.bias / temperature)
    return temperature


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _checked(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Array, Array]:
    values, indices = np.asarray(probabilities), np.asarray(labels)
    if (
        values.ndim != 2
        or 0 in values.shape
        or indices.shape != values.shape[:1]
        or indices.dtype.kind not in "iu"
    ):
        raise ValueError(
            "`probabilities` must have the shape (n, num_classes) and `labels` "
            f"be integers of shape (n,). Received: shapes {values.shape} and "
            f"{indices.shape}, labels of dtype {indices.dtype}."
        )
    values = values.astype("float64")
    # bfloat16 has 3 digits. NaN compares false.
    if not ((values >= 0).all() and (abs(values.sum(axis=1) - 1) < 1e-2).all()):
        raise ValueError(
            "`probabilities` must be from 0 to 1 and add up to 1. Received: "
            "others. Logits become probabilities by `keras.ops.softmax`."
        )
    if indices.min() < 0 or indices.max() >= values.shape[1]:
        raise ValueError(
            f"`labels` must be from 0 to {values.shape[1] - 1}. "
            f"Received: {indices.min()} to {indices.max()}."
        )
    return values, indices
