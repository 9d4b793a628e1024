import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from keras_lenet.calibration import (
    calibrate,
    expected_calibration_error,
    fit_temperature,
    risk_coverage_curve,
)
from tests.helpers import once


def softmax(logits):
    return keras.ops.convert_to_numpy(
        keras.ops.softmax(logits.astype("float32"))
    )


def draw(generator, logits):
    """Draws labels with the probabilities of the logits."""
    sums = softmax(logits).cumsum(axis=1)
    labels = (generator.random((len(logits), 1)) > sums).sum(axis=1)
    return labels.clip(max=logits.shape[1] - 1)


@once
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature, generator):
    logits = generator.normal(0, 2, (20_000, 5))
    labels = draw(generator, logits)
    probabilities = softmax(logits * temperature)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    # Correct probabilities have only sampling error.
    assert expected_calibration_error(softmax(logits), labels) < 0.015
    if temperature != 1:
        assert expected_calibration_error(probabilities, labels) > 0.05


@once
def test_the_temperature_minimizes_the_crossentropy(generator):
    logits = generator.normal(0, 2, (300, 4))
    probabilities = softmax(logits)
    labels = draw(generator, logits)
    found = fit_temperature(probabilities, labels)

    def crossentropy(temperature):
        powers = softmax(np.log(probabilities) / temperature)
        return -np.log(powers[np.arange(300), labels]).mean()

    assert crossentropy(found) < crossentropy(found * 1.05)
    assert crossentropy(found) < crossentropy(found / 1.05)


@once
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("of_labels", ["uint8", "int16", "uint64"])
def test_probabilities_and_labels_may_have_any_precision(
    dtype, of_labels, generator
):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    dtype = bfloat16 if dtype == "bfloat16" else dtype
    logits = generator.normal(0, 2, (2_000, 30))
    probabilities, labels = softmax(logits), draw(generator, logits)
    given = probabilities.astype(dtype), labels.astype(of_labels)
    assert fit_temperature(*given) == pytest.approx(
        fit_temperature(probabilities, labels), abs=0.01
    )
    assert expected_calibration_error(*given) == pytest.approx(
        expected_calibration_error(probabilities, labels), abs=0.01
    )
    assert risk_coverage_curve(*given)["error"][0] == pytest.approx(
        risk_coverage_curve(probabilities, labels)["error"][0], abs=0.01
    )


@once
def test_perfect_and_wrong_predictions_have_the_extreme_temperatures():
    assert fit_temperature(np.eye(3), [0, 1, 2]) == pytest.approx(0.01)
    assert fit_temperature(np.eye(3), [1, 2, 0]) == pytest.approx(100)


@once
def test_the_calibration_error_equals_a_hand_computed_value():
    # Two bins: (0.5, 0.75] has 2 of 2 right, (0.75, 1] has 1 of 2.
    probabilities = [[0.6, 0.4], [0.3, 0.7], [0.9, 0.1], [0.9, 0.1]]
    error = expected_calibration_error(probabilities, [0, 1, 0, 1], 4)
    assert error == pytest.approx((abs(1.3 - 2) + abs(1.8 - 1)) / 4)


@once
def test_the_risk_coverage_curve_equals_a_direct_count(generator):
    # Few distinct values give ties.
    probabilities = generator.integers(1, 6, (200, 3)).astype("float64")
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = generator.integers(0, 3, 200)
    curve = risk_coverage_curve(probabilities, labels)
    confidence = probabilities.max(axis=1)
    np.testing.assert_array_equal(curve["threshold"], np.unique(confidence))
    for threshold, rejected, error in zip(*curve.values(), strict=True):
        kept = confidence >= threshold
        wrong = probabilities[kept].argmax(axis=1) != labels[kept]
        assert rejected == pytest.approx(1 - kept.mean())
        assert error == pytest.approx(wrong.mean())


def test_calibrate_applies_the_temperature_to_the_model(
    generator,
):
    keras.utils.set_random_seed(int(generator.integers(2**31)))
    model = LeNet5(3)
    images = generator.integers(0, 256, (400, 28, 28, 1)).astype("uint8")
    before = model.predict(images, verbose=0)
    labels = draw(generator, np.log(before) * 3)
    temperature = calibrate(model, images, labels)
    after = model.predict(images, verbose=0)
    np.testing.assert_allclose(
        after, softmax(np.log(before) / temperature), atol=1e-5
    )
    # A calibrated model needs no further change.
    assert calibrate(model, images, labels) == pytest.approx(1, abs=1e-3)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_a_quantized_model_is_calibrated(generator):
    model = LeNet5(3)
    model.quantize("int8")
    images = generator.integers(0, 256, (100, 28, 28, 1)).astype("uint8")
    before = model.predict(images, verbose=0)
    temperature = calibrate(model, images, draw(generator, np.log(before) * 3))
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        softmax(np.log(before) / temperature),
        atol=1e-5,
    )


def test_a_model_with_lora_is_rejected():
    model = LeNet5()
    model.get_layer("output").enable_lora(2)
    with pytest.raises(ValueError, match=r"without LoRA.*Calibrate the model"):
        calibrate(model, np.ones((1, 28, 28, 1), "uint8"), [3])


@pytest.mark.parametrize(
    "make",
    [
        lambda: LeNet5(classifier_activation=None),
        lambda: keras.Sequential([keras.Input((3,)), keras.layers.Softmax()]),
    ],
)
def test_a_model_that_does_not_end_in_dense_and_softmax_is_rejected(make):
    with pytest.raises(ValueError, match="`model` must end in a `Dense`"):
        calibrate(make(), np.ones((1, 28, 28, 1), "uint8"), [3])


@once
@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([0.5, 0.5], [0, 1], r"Received: shapes \(2,\)"),
        ([[0.5, 0.5]], [0, 1], r"Received: shapes \(1, 2\) and \(2,\)"),
        ([[0.5, 0.5]], [0.0], "labels of dtype float64"),
        ([[0.5, 0.6]], [0], "add up to 1"),
        ([[1.5, -0.5]], [0], "from 0 to 1"),
        ([[np.nan, 0.5]], [0], "from 0 to 1"),
        ([[0.5, 0.5]], [2], "from 0 to 1. Received: 2 to 2"),
        ([[0.5, 0.5]], [-1], "from 0 to 1. Received: -1 to -1"),
        (np.ones((0, 2)), np.ones(0, int), r"Received: shapes \(0, 2\)"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [fit_temperature, expected_calibration_error, risk_coverage_curve],
)
def test_invalid_arguments_are_rejected(
    function, probabilities, labels, message
):
    with pytest.raises(ValueError, match=message):
        function(probabilities, labels)
