"""Validation of the data that a model is trained, evaluated and used on.

The backends handle bad images and labels inconsistently, and often silently.
These checks raise the same `ValueError` on all of them, and leave to Keras
whatever they cannot judge with certainty. Images `x` are an array or tensor,
alone in a list, or in a dict.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lenet.types import Array
from keras_lenet.validation.images import check_labels

# No usual scaling of pixels ([0, 1], [-1, 1], standardized) exceeds this.
_LARGEST_SCALED = 16


class _Crossentropy(NamedTuple):
    """The properties of a crossentropy loss."""

    takes_class_indices: bool
    # `None` if the loss has no such argument.
    from_logits: bool | None
    ignore_class: int | None


def check_compiled_loss(model: Any) -> None:
    """Checks that the loss's `from_logits` fits the model's output."""
    loss = _known_crossentropy(model.loss)
    activation = getattr(
        model.layers[-1], "activation", model.classifier_activation
    )
    known = (keras.activations.linear, keras.activations.softmax)
    if loss is None or loss.from_logits is None or activation not in known:
        return
    logits = activation is keras.activations.linear
    if loss.from_logits != logits:
        raise ValueError(
            f"`loss` must have from_logits={logits}, because the output of "
            f"the model has the activation {activation.__name__!r}. Received: "
            f"loss={model.loss!r} with from_logits={loss.from_logits}"
        )


def check_targets(model: Any, y: Any) -> None:
    """Checks the labels for a loss that takes class indices.

    If a label is out of range, TensorFlow raises an error or returns NaN, JAX
    returns a loss of zero, and PyTorch raises an error or ignores the label.
    All of them truncate 3.7 to 3.
    """
    loss = _known_crossentropy(model.loss)
    shape = getattr(model, "output_shape", None)
    if (
        loss is None
        or not loss.takes_class_indices
        or not isinstance(shape, tuple)
        or not isinstance(shape[-1], int)
    ):
        return
    if y is None:
        raise ValueError(
            f"`y` must be labels, which the loss {model.loss!r} needs. "
            "Received: y=None"
        )
    leaves = keras.tree.flatten(y)
    labels = _as_array(leaves[0]) if len(leaves) == 1 else None
    if labels is None or not labels.size or labels.dtype.kind not in "biufOSU":
        return
    if labels.dtype.kind in "iu" and loss.ignore_class is None:
        # The common case takes two fast operations per batch.
        if labels.min() >= 0 and labels.max() < shape[-1]:
            return
    labels = labels.ravel()
    if labels.dtype.kind == "b" or (
        labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels))
    ):
        labels = labels.astype("int64")
    if loss.ignore_class is not None:
        labels = labels[labels != loss.ignore_class]
    if labels.size:
        check_labels(labels, shape[-1])


def check_shape(model: Any, x: Any) -> None:
    """Checks that images have the shape that the model was built for.

    A last axis of size 1 may be missing, as for any Keras model.
    """
    shape, expected = _shape(x), model.input_shape[1:]
    if shape is None:
        return
    allowed = [expected, (*expected, 1)]
    if expected[-1] == 1:
        allowed.append(expected[:-1])
    if not any(_fits(shape[1:], other) for other in allowed):
        advice = ""
        if _fits(shape, expected) or _fits(shape, expected[:-1]):
            advice = " A single image needs a batch axis: `x[np.newaxis]`."
        raise ValueError(
            f"`x` must be images of shape {('batch', *expected)}. "
            f"Received: shape {shape}.{advice}".replace("'", "")
        )


def check_pixels(model: Any, x: Any) -> None:
    """Checks that images have the scale that the model expects."""
    images = _as_array(_only_leaf(x))
    if images is None or not images.size or images.dtype.kind not in "iuf":
        return
    if not model.include_preprocessing:
        largest = images.max()
        if largest > _LARGEST_SCALED:
            raise ValueError(
                "`x` must be scaled images, because the model has "
                "`include_preprocessing=False`. Received: raw pixels up to "
                f"{largest:g}. Scale them first, or build the model "
                "with `include_preprocessing=True`."
            )
        return
    if images.dtype.kind != "f" or not model.layers_unchanged("rescaling"):
        return
    largest = images.max()
    is_standardized = (
        largest <= _LARGEST_SCALED and -_LARGEST_SCALED <= images.min() < 0
    )
    if 0 < largest <= 1 or is_standardized:
        raise ValueError(
            "`x` must be raw pixels in [0, 255], because the model scales "
            "them itself. Received: floats that are already scaled, up to "
            f"{largest:g}. Omit the division by 255, or build the model with "
            "`include_preprocessing=False`."
        )


def check_lengths(x: Any, y: Any) -> None:
    """Checks that there are images, and as many labels as images."""
    count = _length(x)
    if count == 0:
        raise ValueError("`x` must have at least one image. Received: none.")
    labels = _length(y)
    if None not in (count, labels) and count != labels:
        raise ValueError(
            "`x` and `y` must have the same length. "
            f"Received: {count} images and {labels} labels."
        )


def batch_check(
    model: Any, images: bool, targets: bool
) -> Callable[[Any], None]:
    """Returns a function that checks each batch of one `fit` or `evaluate`.

    `images` and `targets` say what to check. Only the first batch's pixels
    are checked.
    """
    is_first = True

    def check(batch: Any) -> None:
        nonlocal is_first
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        if images:
            check_shape(model, x)
            if is_first:
                check_pixels(model, x)
            is_first = False
        if targets:
            check_targets(model, y)

    return check


def is_arrays(x: Any) -> bool:
    """Returns whether data are arrays or tensors, so checkable at once."""
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(
        isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf)
        for leaf in leaves
    )


def _known_crossentropy(loss: Any) -> _Crossentropy | None:
    """Returns a loss's properties; losses are recognised by type, not name."""
    if isinstance(loss, (list, tuple, dict)):
        losses = keras.tree.flatten(loss)
        if len(losses) != 1:
            return None
        (loss,) = losses
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    sparse = (
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy,
    )
    dense = (
        keras.losses.categorical_crossentropy,
        keras.losses.CategoricalCrossentropy,
        keras.losses.categorical_focal_crossentropy,
        keras.losses.CategoricalFocalCrossentropy,
    )
    kind = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    ours = getattr(kind, "takes_class_indices", False)
    if kind not in (*sparse, *dense) and not ours:
        return None
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    return _Crossentropy(
        ours or kind in sparse,
        config.get("from_logits", None if ours else False),
        config.get("ignore_class"),
    )


def _only_leaf(x: Any) -> Any:
    if isinstance(x, dict):
        return x.get("images")
    if isinstance(x, (list, tuple)):
        return x[0] if len(x) == 1 else None
    return x


def _as_array(values: Any) -> Array | None:
    if isinstance(values, np.ndarray):
        return values
    if not getattr(values, "is_fully_addressable", True):
        # The JAX array spans processes; each process checks its own part.
        parts = [np.asarray(part.data) for part in values.addressable_shards]
        return np.concatenate(parts)
    if keras.ops.is_tensor(values):
        if keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(values.dtype)
        ):
            # NumPy does not know bfloat16.
            values = keras.ops.cast(values, "float32")
        return np.asarray(keras.ops.convert_to_numpy(values))
    return np.asarray(values) if hasattr(values, "__array__") else None


def _shape(x: Any) -> tuple[Any, ...] | None:
    shape = getattr(_only_leaf(x), "shape", None)
    # A TensorFlow shape of unknown rank has no length.
    if shape is None or getattr(shape, "rank", 0) is None:
        return None
    return tuple(shape)


def _length(x: Any) -> int | None:
    shape = _shape(x)
    return shape[0] if shape else None


def _fits(shape: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    return len(shape) == len(expected) and all(
        None in (size, other) or size == other
        for size, other in zip(shape, expected, strict=True)
    )
