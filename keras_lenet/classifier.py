"""LeNet-5 as a scikit-learn estimator."""

import math
from typing import Any, Self

import keras
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from keras_lenet.callbacks.isolation import preserve_random_state
from keras_lenet.models import LeNet5
from keras_lenet.recipes import OneCycle
from keras_lenet.types import Array
from keras_lenet.validation.arguments import check_positive_integer


class LeNet5Classifier(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier of images: LeNet-5, trained by Keras.

    It works with cross-validation, grid search, calibration and pipelines, and
    can be copied and pickled. Fits of the same size share compiled programs, so
    later ones start faster.

    Images are an array of shape `(n, height, width)`, `(n, height, width,
    channels)` or, as scikit-learn's data sets have them, flat:
    `(n, height * width * channels)`. Flat images are square and grey unless
    `image_shape` says otherwise. Images have at most 32x32 pixels.

    Pixels of dtype uint8 are in [0, 255]. Other pixels are scaled from the
    smallest and largest value of the training images, and values beyond these
    are clipped.

    Args:
        epochs: Integer. The number of epochs. Defaults to `10`.
        batch_size: Integer. The number of images per step. Defaults to `32`.
        learning_rate: Number above 0. The highest learning rate of Adam, which
            rises and falls in one cycle. Defaults to `0.01`.
        image_shape: Tuple `(height, width)` or `(height, width, channels)`, the
            shape of flat images. Defaults to square grey images.
        random_state: Integer, `numpy.random.RandomState` or `None`. Decides
            the initial weights and the order of the images. Defaults to
            `None`, for other results in every fit.
        verbose: 0 or 1, as for `fit` of a Keras model. Defaults to `0`.

    Attributes:
        classes_: Array of shape `(n_classes,)`, the labels in order.
        model_: The trained `LeNet5`.
        history_: Dict of lists, the loss and accuracy of every epoch.
        n_features_in_: Integer. The number of columns of flat images, or the
            height of others.

    Example:

    >>> from keras_lenet import LeNet5Classifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_digits(return_X_y=True)
    >>> scores = cross_val_score(LeNet5Classifier(), X[:600], y[:600], cv=2)
    >>> bool(scores.mean() > 0.8)
    True
    """

    def __init__(
        self,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        image_shape: tuple[int, ...] | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.image_shape = image_shape
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains a new model.

        Args:
            X: Array of images.
            y: Array of shape `(n,)`, the labels: numbers or strings.
            sample_weight: Array of shape `(n,)`, the weights of the images in
                the loss. Defaults to equal weights.

        Returns:
            The classifier itself.

        Raises:
            ValueError: If an argument, the images or the labels are invalid.
        """
        check_positive_integer("epochs", self.epochs)
        check_positive_integer("batch_size", self.batch_size)
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, X, dtype="float32"
            )
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                "`y` must have at least 2 classes. "
                f"Received: one class, {self.classes_[0]!r}."
            )
        self._shape = self._image_shape(X)
        self._low, self._high = 0.0, 255.0
        if X.dtype != "uint8":
            self._low, self._high = float(X.min()), float(X.max())
        images = self._to_images(X)
        steps = self.epochs * math.ceil(len(images) / self.batch_size)
        schedule = OneCycle(self.learning_rate, steps)
        seed = check_random_state(self.random_state).randint(2**31)
        with preserve_random_state():
            keras.utils.set_random_seed(seed)
            self.model_: LeNet5 = LeNet5(
                len(self.classes_), input_shape=self._shape
            )
            self.model_.compile(
                keras.optimizers.Adam(schedule, beta_1=0.8, beta_2=0.9),
                "sparse_categorical_crossentropy",
                metrics=["accuracy"],
            )
            history = self.model_.fit(
                images,
                labels.astype("int32"),
                batch_size=self.batch_size,
                epochs=self.epochs,
                sample_weight=sample_weight,
                verbose=self.verbose,
            )
        self.history_: dict[str, list[float]] = history.history
        return self

    def predict_proba(self, X: Any) -> Array:
        """Returns probabilities of shape `(n, n_classes)`."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, reset=False)
        images = self._to_images(X)
        outputs = self.model_.predict(images, batch_size=500, verbose=0)
        # Sums of 1, in the precision that scikit-learn computes with.
        outputs = outputs.astype("float64")
        probabilities: Array = outputs / outputs.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> Array:
        """Returns the most probable labels, of shape `(n,)`."""
        chosen = self.predict_proba(X).argmax(axis=1)
        labels: Array = self.classes_[chosen]
        return labels

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _image_shape(self, X: Array) -> tuple[int, int, int]:
        """Returns the height, width and channels of training images."""
        if X.ndim == 2:
            side = math.isqrt(X.shape[1])
            shape = self.image_shape or (side, side)
            if math.prod(shape) != X.shape[1]:
                expected = self.image_shape or "a square number"
                raise ValueError(
                    "`X` of flat images must have as many columns as an image "
                    f"has pixels. Expected: image_shape={expected}. Received: "
                    f"X.shape={X.shape}. Give `image_shape`."
                )
        elif X.ndim in (3, 4):
            shape = X.shape[1:]
        else:
            raise ValueError(
                "`X` must have the shape (n, height, width), (n, height, "
                "width, channels) or (n, pixels). "
                f"Received: X.shape={X.shape}"
            )
        height, width, channels = (*shape, 1)[:3]
        return height, width, channels

    def _to_images(self, X: Array) -> Array:
        """Returns images as the model takes them."""
        if math.prod(X.shape[1:]) != math.prod(self._shape) or (
            X.ndim > 2 and X.shape[1:3] != self._shape[:2]
        ):
            raise ValueError(
                f"`X` must have images of the shape {self._shape}, as in "
                f"`fit`. Received: X.shape={X.shape}"
            )
        images: Array = X.reshape(-1, *self._shape)
        if X.dtype == "uint8" and (self._low, self._high) == (0, 255):
            return images
        span = (self._high - self._low) or 1.0
        scaled = (images.astype("float64") - self._low) * (255 / span)
        return scaled.clip(0, 255).astype("float32")
