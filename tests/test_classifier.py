"""LeNet-5 as a scikit-learn estimator."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import (
    check_estimator,
    parametrize_with_checks,
)

from keras_lenet import LeNet5Classifier
from keras_lenet.models import twins
from tests.helpers import BACKEND, on_torch

NAMES = np.array(["zero", "one", "two", "three", "four"])


@pytest.fixture(scope="module")
def data():
    """500 of the digits 0 to 4, flat floats in [0, 16], and names."""
    x, y = load_digits(n_class=5, return_X_y=True)
    return x[:500], NAMES[y[:500]]


def make(**kwargs):
    return LeNet5Classifier(**{"epochs": 3, "random_state": 0, **kwargs})


def test_it_learns_and_names_the_classes(data):
    x, y = data
    classifier = make().fit(x[:400], y[:400])
    assert list(classifier.classes_) == sorted(NAMES)
    probabilities = classifier.predict_proba(x[400:])
    assert probabilities.shape == (100, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    found = classifier.classes_[probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(classifier.predict(x[400:]), found)
    assert classifier.score(x[400:], y[400:]) == (found == y[400:]).mean() > 0.8
    assert len(classifier.history_["loss"]) == 3


@on_torch
def test_images_are_the_same_in_every_form(data):
    x, y = data
    pixels = (x * 15).astype("uint8")
    pixels[0, 0] = 255
    for forms in (
        [x, x * 3 - 7, x.reshape(-1, 8, 8), x.astype("float32")],
        [pixels, pixels.reshape(-1, 8, 8, 1), pixels.astype("float64")],
    ):
        expected, *others = (
            make(epochs=1).fit(form, y).predict_proba(form) for form in forms
        )
        for other in others:
            np.testing.assert_allclose(other, expected, atol=0.01)


@on_torch
def test_flat_images_may_have_any_shape(generator):
    x = generator.random((60, 10 * 6 * 3))
    y = generator.integers(0, 2, 60)
    flat = make(image_shape=(10, 6, 3)).fit(x, y)
    assert flat.model_.input_shape == (None, 10, 6, 3)
    images = x.reshape(-1, 10, 6, 3)
    found = make().fit(images, y).predict_proba(images)
    np.testing.assert_array_equal(flat.predict_proba(x), found)


@on_torch
def test_values_beyond_those_of_training_are_clipped(data):
    x, y = data
    classifier = make(epochs=1).fit(x, y)
    beyond = np.where(x == 16, 100, np.where(x == 0, -100, x))
    np.testing.assert_array_equal(
        classifier.predict_proba(beyond), classifier.predict_proba(x)
    )


@on_torch
@pytest.mark.parametrize(
    "shape, options, message",
    [
        ((20, 60), {}, "a square number. Received: X.shape=.20, 60."),
        ((20, 60), {"image_shape": (7, 8)}, r"image_shape=\(7, 8\)"),
        ((20, 8, 8, 1, 1), {}, "`X` must have the shape"),
        ((20, 40, 40), {}, "32"),
    ],
)
def test_wrong_shapes_say_what_is_expected(shape, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options).fit(np.ones(shape), np.arange(20) % 2)


@on_torch
@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"batch_size": 1.5}, {"learning_rate": -1}]
)
def test_invalid_arguments_raise(options, data):
    x, y = data
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options).fit(x, y)


@on_torch
def test_images_of_another_shape_are_refused_after_fit(data):
    x, y = data
    classifier = make(epochs=1).fit(x.reshape(-1, 8, 8), y)
    for other in (x[:, :49].reshape(-1, 7, 7), x.reshape(-1, 8, 4, 2)):
        with pytest.raises(ValueError, match=r"as in `fit`|features"):
            classifier.predict(other)


@on_torch
def test_one_class_is_refused(data):
    x, _ = data
    with pytest.raises(ValueError, match="at least 2 classes"):
        make().fit(x, np.ones(500))


@on_torch
def test_random_state_decides_the_model_and_stays_inside(data):
    x, y = data
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, two, other = (
        make(epochs=1, random_state=state).fit(x, y).predict_proba(x)
        for state in (0, np.random.RandomState(0), 1)
    )
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(one, two)
    assert abs(one - other).max() > 1e-3


@on_torch
def test_weights_of_samples_count(data):
    x, y = data
    weights = np.where(y == "zero", 0.0, 1.0)
    weighted = make(epochs=5).fit(x, y, sample_weight=weights)
    assert not (weighted.predict(x) == "zero").any()
    others = y != "zero"
    assert weighted.score(x[others], y[others]) > 0.8


@on_torch
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],
    ids=["copy", "pickle"],
)
def test_a_copy_predicts_the_same(duplicate, data):
    x, y = data
    classifier = make(epochs=1).fit(x, y)
    other = duplicate(classifier)
    np.testing.assert_array_equal(
        other.predict_proba(x), classifier.predict_proba(x)
    )
    assert other.get_params() == classifier.get_params()
    assert not hasattr(clone(other), "model_")


def test_cross_validation_shares_programs(data, monkeypatch):
    monkeypatch.setattr(twins, "_twins", {})
    x, y = data
    scores = cross_val_score(make(), x[:480], y[:480], cv=3)
    assert scores.mean() > 0.8
    # PyTorch compiles nothing.
    assert len(twins._twins) == (BACKEND != "torch")


@on_torch
def test_grid_search_pipelines_and_calibration(data):
    x, y = data
    pipeline = make_pipeline(MinMaxScaler(), make(epochs=1))
    grid = {"lenet5classifier__learning_rate": [1e-9, 0.01]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_params_ == {"lenet5classifier__learning_rate": 0.01}
    images = x.reshape(-1, 8, 8, 1)
    calibrated = CalibratedClassifierCV(make(), cv=2).fit(images, y)
    assert calibrated.score(images, y) > 0.8


class PaddedClassifier(LeNet5Classifier):
    """Adds columns of zeros to make an image of 10x10 of any columns."""

    def _image_shape(self, X):
        return 10, 10, 1

    def _to_images(self, X):
        return super()._to_images(np.pad(X, ((0, 0), (0, 100 - X.shape[1]))))


# Training in batches: an image twice is not an image of twice the weight.
IN_BATCHES = {
    "check_sample_weight_equivalence_on_dense_data": "batches differ",
}

# Checks whose data have 2, 3, 5, ... columns, which are no square image.
NOT_IMAGES = {
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_one_label_sample_weights",
    "check_classifiers_train",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_pipeline_consistency",
    "check_readonly_memmap_input",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_not_overwritten",
    "check_sample_weights_shape",
    "check_supervised_y_2d",
}


@on_torch
@parametrize_with_checks(
    [PaddedClassifier(random_state=0)],
    expected_failed_checks=lambda classifier: IN_BATCHES,
)
def test_it_keeps_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@on_torch
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_only_checks_without_images_fail():
    results = check_estimator(make(epochs=1), on_fail=None)
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    assert failed == NOT_IMAGES
