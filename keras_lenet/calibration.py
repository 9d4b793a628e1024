"""Calibration of probabilities, and rejection of uncertain predictions."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import softmax

from keras_lenet.types import Array

if TYPE_CHECKING:
    from keras_lenet.models import LeNet5

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 100.0


def fit_temperature(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> float:
    """Returns the temperature that calibrates probabilities.

    `softmax(logits / temperature)` has the smallest crossentropy
    (https://arxiv.org/abs/1706.04599, section 4.2). An overconfident model has
    a temperature above 1. The predicted class stays the same.

    Args:
        probabilities: Array of floats of shape `(n, num_classes)`, for images
            that the model was not trained on.
        labels: Array of integers of shape `(n,)`.

    Returns:
        Float from 0.01 to 100.

    Raises:
        ValueError: If a shape or dtype differs, a row of `probabilities` does
            not add up to 1, or a label is out of range.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.calibration import fit_temperature
    >>> probabilities = np.tile([0.9, 0.1], (10, 1))
    >>> labels = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]  # 7 of 10 are correct.
    >>> temperature = fit_temperature(probabilities, labels)
    >>> logits = np.log(probabilities[0]) / temperature
    >>> round(float(np.exp(logits[0]) / np.exp(logits).sum()), 3)
    0.7
    """
    probabilities, labels = _check_predictions(probabilities, labels)
    # Softmax does not depend on the constant that the logarithm lacks.
    logits = np.log(np.maximum(probabilities, np.finfo("float32").tiny))
    actual = logits[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        """Returns the derivative of the crossentropy by `1 / temperature`."""
        weights = softmax(logits / np.exp(log_temperature), axis=1)
        return float(((weights * logits).sum(axis=1) - actual).mean())

    # The crossentropy is convex in `1 / temperature`: the slope changes its
    # sign at most once.
    low, high = np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE)
    if slope(low) <= 0:
        return _MIN_TEMPERATURE
    if slope(high) > 0:
        return _MAX_TEMPERATURE
    return float(np.exp(brentq(slope, low, high, xtol=1e-12)))


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, num_bins: int = 15
) -> float:
    """Returns the mean difference of confidence and accuracy.

    Predictions are binned by the probability of the predicted class. The error
    is the mean over the bins, weighted by their numbers of predictions
    (https://arxiv.org/abs/1706.04599, equation 3).

    Args:
        probabilities: Array of floats of shape `(n, num_classes)`.
        labels: Array of integers of shape `(n,)`.
        num_bins: Integer. The number of bins from 0 to 1. Defaults to `15`.

    Returns:
        Float from 0 to 1.

    Raises:
        ValueError: If a shape or dtype differs, a row of `probabilities` does
            not add up to 1, or a label is out of range.

    Example:

    >>> import numpy as np
    >>> from keras_lenet.calibration import expected_calibration_error
    >>> probabilities = np.tile([0.9, 0.1], (10, 1))
    >>> labels = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]  # 7 of 10 are correct.
    >>> round(expected_calibration_error(probabilities, labels), 3)
    0.2
    """
    probabilities, labels = _check_predictions(probabilities, labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * num_bins).clip(1, num_bins).astype("int64")
    gaps = np.bincount(bins, confidence - correct)
    return float(abs(gaps).sum() / len(labels))


def risk_coverage_curve(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> dict[str, Array]:
    """Returns the error that remains if uncertain predictions are rejected.

    Args:
        probabilities: Array of floats of shape `(n, num_classes)`.
        labels: Array of integers of shape `(n,)`.

    Returns:
        Dict of arrays with one number for each distinct probability of a
        predicted class, in ascending order: `"threshold"`, below which
        predictions are rejected; `"rejected"`, their share; `"error"`, the
        share of wrong predictions among the others.

    Raises:
        ValueError: If a shape or dtype differs, a row of `probabilities` does
            not add up to 1, or a label is out of range.

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
    probabilities, labels = _check_predictions(probabilities, labels)
    confidence = probabilities.max(axis=1)
    order = confidence.argsort()
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    threshold, first = np.unique(confidence[order], return_index=True)
    # Number of errors from each prediction to the most confident one.
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
    """Calibrates the probabilities of a model with a temperature.

    The weights of the output layer are divided by it, so the model itself
    returns calibrated probabilities. Predicted classes stay the same.

    Args:
        model: A `LeNet5`, or another model whose last layer is `Dense` with
            a softmax.
        images: Array of images that the model was not trained on.
        labels: Array of integers of shape `(n,)`.

    Returns:
        The temperature, a float.

    Raises:
        ValueError: If the model does not end in a `Dense` layer with a softmax,
            the layer has LoRA or an unsupported quantization, or the model
            rejects the data.

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
        # A weight is the stored integer divided by the scale.
        layer.kernel_scale.assign(layer.kernel_scale * temperature)
    else:
        layer.kernel.assign(layer.kernel / temperature)
    if layer.bias is not None:
        layer.bias.assign(layer.bias / temperature)
    return temperature


def _check_predictions(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[Array, Array]:
    """Returns probabilities and labels as valid arrays."""
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
    sums = values.sum(axis=1)
    # bfloat16 has 3 digits. A comparison with NaN is false.
    if not ((values >= 0).all() and (abs(sums - 1) < 1e-2).all()):
        raise ValueError(
            "`probabilities` must be from 0 to 1 and add up to 1. Received: "
            f"a smallest value of {values.min():g} and sums from "
            f"{sums.min():g} to {sums.max():g}. Convert logits with "
            "`keras.ops.softmax`."
        )
    if indices.min() < 0 or indices.max() >= values.shape[1]:
        raise ValueError(
            f"`labels` must be from 0 to {values.shape[1] - 1}. "
            f"Received: {indices.min()} to {indices.max()}."
        )
    return values, indices
