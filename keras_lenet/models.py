"""LeNet-5."""

import contextlib
import functools
import inspect
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet import compiled
from keras_lenet.datasets import (
    check_targets,
    dataset_from_arrays,
    is_positive_integer,
)
from keras_lenet.files import (
    BEST_VALUE,
    FileFormatError,
    checked_entries,
    parsing,
)
from keras_lenet.layers import PadTo32, Tensor

_DATA = ("x", "y", "sample_weight")


@keras.saving.register_keras_serializable(package="keras_lenet")
class LeNet5(keras.Model):
    """LeNet-5 as it is used today: ReLU, max-pooling and softmax.

    The topology is that of LeNet-5 (https://doi.org/10.1109/5.726791, section
    II-B), its layers have the paper's names: convolutions `c1` (6 maps, 5x5),
    `c3` (16 maps, 5x5), each followed by a 2x2 subsampling `s2`, `s4`, then
    `c5` (120 units), `f6` (84 units) and `output`. As has become usual, the
    squashing functions are ReLU, subsampling takes the maximum and has no
    weights, every map of `c3` sees all maps of `s2`, and the output is a
    softmax. With one channel and ten classes there are 61,706 weights.

    On a CPU, with TensorFlow and JAX, `fit` makes several steps in one
    compiled program, as many as no callback notices, and calculates each
    convolution and its pooling as one product (`keras_lenet.compiled`). Both
    do what Keras' layers and `fit` do; a `train_step` of your own,
    `run_eagerly=True`, other data types than float32 and anything added to
    the layers are honoured by leaving it all to Keras. Compile with
    `steps_per_execution` to choose the number of steps yourself. On
    TensorFlow, NumPy arrays become datasets that `tf.data` does not tune, for
    whose tuner the end of every pass would wait.

    Args:
        num_classes: Integer. How many classes to tell apart. Defaults to
            `10`.
        input_shape: Tuple `(height, width, channels)`. With preprocessing any
            height and width from 1 to 32, by default `(28, 28, 1)`; without,
            `(32, 32, channels)`, by default `(32, 32, 1)`.
        include_preprocessing: Boolean. Whether the model takes raw pixels in
            [0, 255], centres them on a field of 32x32 zeros and divides by
            255. If `False`, it takes numbers in [0, 1]. Defaults to `True`.
        classifier_activation: String or callable. The activation of the
            `output` layer; `None` returns the logits. Defaults to
            `"softmax"`.
        dtype: Data type or policy of the layers. By default the global one.
            Under 16-bit policies the `output` layer stays float32, so that
            probabilities and loss do not lose precision.
        name: String. The name of the model. Defaults to `"lenet5"`.
        **kwargs: `trainable`, as for any Keras model.

    Input shape:
        `(batch, height, width, channels)`: integers or floats.

    Output shape:
        `(batch, num_classes)`: probabilities, or logits when
        `classifier_activation=None`.

    Raises:
        ValueError: When `num_classes` is not a positive integer, or
            `input_shape` is not of the form above. From `fit` and `evaluate`,
            when a label of an array is not from 0 to `num_classes - 1`, or a
            crossentropy's `from_logits` does not fit the activation.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import LeNet5
    >>> model = LeNet5()
    >>> model.count_params()
    61706
    >>> images = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1))
    >>> tuple(model(images).shape)
    (2, 10)
    >>> model.get_layer("c3").output.shape
    (None, 10, 10, 16)
    """

    # What the user compiled with, while `fit` runs.
    _steps_asked_for: int | None = None

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] | None = None,
        include_preprocessing: bool = True,
        classifier_activation: str | Callable[..., Any] | None = "softmax",
        dtype: Any = None,
        name: str = "lenet5",
        **kwargs: Any,
    ) -> None:
        if not is_positive_integer(num_classes):
            raise ValueError(
                "`num_classes` must be a positive integer. "
                f"Received: num_classes={num_classes!r}"
            )
        if input_shape is None:
            input_shape = (28, 28, 1) if include_preprocessing else (32, 32, 1)
        _check_input_shape(input_shape, include_preprocessing)
        shape = tuple(int(size) for size in input_shape)

        policy = keras.dtype_policies.get(dtype)
        head_policy = policy
        if policy.compute_dtype in ("float16", "bfloat16") and not isinstance(
            policy, keras.dtype_policies.DTypePolicyMap
        ):
            head_policy = keras.dtype_policies.get("float32")
        common = {"dtype": policy}
        convolution = {
            "kernel_size": 5,
            "activation": "relu",
            "data_format": "channels_last",
            **common,
        }
        pooling = {"data_format": "channels_last", **common}

        inputs = keras.Input(shape, name="images")
        x = inputs
        if include_preprocessing:
            x = PadTo32(name="pad_to_32", **common)(x)
            x = keras.layers.Rescaling(1 / 255, name="rescaling", **common)(x)
        x = keras.layers.Conv2D(6, name="c1", **convolution)(x)
        x = keras.layers.MaxPooling2D(name="s2", **pooling)(x)
        x = keras.layers.Conv2D(16, name="c3", **convolution)(x)
        x = keras.layers.MaxPooling2D(name="s4", **pooling)(x)
        x = keras.layers.Flatten(name="flatten", **pooling)(x)
        x = keras.layers.Dense(120, activation="relu", name="c5", **common)(x)
        x = keras.layers.Dense(84, activation="relu", name="f6", **common)(x)
        outputs = keras.layers.Dense(
            int(num_classes),
            activation=classifier_activation,
            name="output",
            dtype=head_policy,
        )(x)
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)

        self.dtype_policy = policy
        self.num_classes = int(num_classes)
        self.include_preprocessing = include_preprocessing
        self.classifier_activation = keras.activations.get(
            classifier_activation
        )

    def call(
        self, inputs: Tensor, training: Any = None, mask: Any = None
    ) -> Tensor:
        images, *others = keras.tree.flatten(inputs)
        if (
            not others
            and compiled.is_being_compiled(images)
            and compiled.is_plain(self)
            and tuple(images.shape[1:]) == self.input_shape[1:]
        ):
            return compiled.forward(self, images, training=bool(training))
        return super().call(inputs, training=training, mask=mask)

    def _trains_compiled(self) -> bool:
        return type(self).call is LeNet5.call and compiled.can_train(self)

    def make_train_function(self, force: bool = False) -> Any:
        if not self._trains_compiled():
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function: Any = compiled.train_function(self)
        return self.train_function

    @functools.wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        arguments = _bind(super().fit, args, kwargs)
        self._check(arguments)
        if self._may_replace_arrays():
            arguments = _replace_arrays_of_fit(arguments)
        steps = self._steps_asked_for = self.steps_per_execution
        if steps == 1 and self._trains_compiled():
            steps = compiled.choose_steps(**arguments)
        try:
            with compiled.steps_per_execution(self, steps):
                return super().fit(**arguments)
        finally:
            self._steps_asked_for = None

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_use_cached_eval_dataset"):
            # Called by `fit`, with an iterator made for its steps.
            return super().evaluate(*args, **kwargs)
        arguments = _bind(super().evaluate, args, kwargs)
        self._check(arguments)
        if self._may_replace_arrays():
            arguments = _replace_arrays(arguments)
        with self._in_steps_asked_for():
            return super().evaluate(**arguments)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _bind(super().predict, args, kwargs)
        if self._may_replace_arrays():
            arguments = _replace_arrays(arguments)
        with self._in_steps_asked_for():
            return super().predict(**arguments)

    def _check(self, arguments: dict[str, Any]) -> None:
        """Refuses what Keras would train on without a word."""
        if not self.compiled:
            return
        check_targets(self, arguments.get("y"))
        loss: Any = self.loss
        name = loss if isinstance(loss, str) else getattr(loss, "name", "")
        activation = self.classifier_activation
        logits = activation is keras.activations.linear
        if (
            str(name).endswith("categorical_crossentropy")
            and (logits or activation is keras.activations.softmax)
            and logits != _takes_logits(loss)
        ):
            raise ValueError(
                f"`loss` must have from_logits={logits}, as the model has "
                f"classifier_activation={activation.__name__!r}. Received: "
                f"loss={loss!r} with from_logits={not logits}."
            )

    def _may_replace_arrays(self) -> bool:
        if keras.backend.backend() != "tensorflow":
            return False
        return bool(self.distribute_strategy.num_replicas_in_sync == 1)

    def _in_steps_asked_for(self) -> contextlib.AbstractContextManager[None]:
        # A callback may call while `fit` makes more.
        steps = self._steps_asked_for or self.steps_per_execution
        return compiled.steps_per_execution(self, steps)

    def get_config(self) -> dict[str, Any]:
        dtype = self.dtype_policy
        if any(
            layer.quantization_mode for layer in self.layers
        ) and not isinstance(dtype, keras.dtype_policies.DTypePolicyMap):
            # Quantized layers have policies of their own, without which the
            # weights of a saved model would not fit when it is loaded.
            dtype = keras.dtype_policies.DTypePolicyMap(
                default_policy=dtype,
                policy_map={
                    layer.path: layer.dtype_policy
                    for layer in self.layers
                    if layer.weights
                },
            )
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(dtype),
            "num_classes": self.num_classes,
            "input_shape": self.input_shape[1:],
            "include_preprocessing": self.include_preprocessing,
            "classifier_activation": keras.activations.serialize(
                self.classifier_activation
            ),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "LeNet5":
        # Keras would otherwise rebuild the graph of layers as a plain
        # functional model.
        config = {**config, "input_shape": tuple(config["input_shape"])}
        config["dtype"] = keras.saving.deserialize_keras_object(
            config["dtype"], custom_objects=custom_objects
        )
        return cls(**config)


def load_model(path: str | os.PathLike[str]) -> LeNet5:
    """Loads a `LeNet5` from a `.keras` file that anybody may have made.

    `keras.saving.load_model` makes whatever registered class the file asks
    for, of any size. Here nothing but a `LeNet5` is loaded, all of it or
    nothing: checksums, sizes and links are checked before.

    Args:
        path: Path of the file, as `model.save` writes it.

    Returns:
        A `LeNet5`, not compiled.

    Raises:
        FileFormatError: When it is something else, or damaged, or a weight is
            not finite. It is a `ValueError`.

    Example:

    >>> from keras_lenet import LeNet5
    >>> from keras_lenet.models import load_model
    >>> path = getfixture("tmp_path") / "model.keras"
    >>> LeNet5(num_classes=26).save(path)
    >>> load_model(path).num_classes
    26
    """
    path = Path(path)
    with path.open("rb") as file, parsing(path, "a `.keras` file"):
        with zipfile.ZipFile(file) as archive:
            entries = checked_entries(path, archive)
            # To read to the end compares the checksum.
            contents = {e.filename: archive.read(e) for e in entries}
        _check_config(path, contents)
        _check_weights(path, contents["model.weights.h5"])
        model: LeNet5 = keras.saving.load_model(
            path, compile=False, safe_mode=True
        )
        for weight in model.weights:
            if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                raise FileFormatError(
                    path, weight.path, "finite", "numbers that are not"
                )
    return model


def _check_config(path: Path, contents: dict[str, bytes]) -> None:
    """Checks that it makes a LeNet-5 no larger than its weights."""
    expected = {"config.json", "metadata.json", "model.weights.h5"}
    if set(contents) - {BEST_VALUE} != expected:
        raise FileFormatError(
            path, "the entries", sorted(expected), sorted(contents)
        )
    outer = json.loads(contents["config.json"])
    if outer["registered_name"] != "keras_lenet>LeNet5":
        raise FileFormatError(
            path,
            "the model",
            "a LeNet5, as `keras-lenet train` saves it",
            outer["registered_name"],
            "Load other models by `keras.saving.load_model`.",
        )
    config = outer["config"]
    known = {*inspect.signature(LeNet5).parameters, "trainable"}
    if not set(config) <= known:
        raise FileFormatError(path, "arguments", "of LeNet5", sorted(config))
    if not isinstance(config["classifier_activation"], str):
        raise FileFormatError(
            path,
            "classifier_activation",
            "by name",
            config["classifier_activation"],
        )
    for made in _objects(config["dtype"]):
        if made.get("module") != "keras" or "Policy" not in made["class_name"]:
            raise FileFormatError(path, "dtype", "a policy of Keras", made)
    least = config["num_classes"] + config["input_shape"][-1]
    if least > len(contents["model.weights.h5"]):
        raise FileFormatError(
            path, "sizes", "of its weights", f"{least} channels and classes"
        )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects that a configuration would make."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for part in config.values():
            yield from _objects(part)


def _check_weights(path: Path, content: bytes) -> None:
    """Checks that nothing leads out of an HDF5 file or unfolds in memory."""
    import h5py

    def check(group: Any) -> None:
        for name in group:
            field = f"model.weights.h5{group.name}/{name}"
            link = group.get(name, getlink=True)
            if type(link) is not h5py.HardLink:
                raise FileFormatError(
                    path, field, "in the file itself", type(link).__name__
                )
            part = group[name]
            if isinstance(part, h5py.Group):
                check(part)
            elif (
                part.is_virtual
                or part.external
                or part.compression
                or part.nbytes > len(content)
            ):
                raise FileFormatError(
                    path, field, "with its numbers as they are", part
                )

    with h5py.File(io.BytesIO(content)) as file:
        check(file)


def _takes_logits(loss: Any) -> bool:
    if not isinstance(loss, keras.losses.Loss):
        return False
    return bool(loss.get_config().get("from_logits"))


def _bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of a call by name."""
    arguments = inspect.signature(method).bind(*args, **kwargs).arguments
    return {**arguments, **arguments.pop("kwargs", {})}


def _replace_arrays_of_fit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Does what `_replace_arrays` does, and for validation too."""
    if arguments.get("validation_split"):
        return arguments
    replaced = _replace_arrays(arguments, arguments.get("shuffle", True))
    if replaced is not arguments:
        # Or Keras warns.
        replaced["shuffle"] = False
    validation = arguments.get("validation_data")
    if isinstance(validation, tuple):
        size = arguments.get("validation_batch_size") or arguments.get(
            "batch_size"
        )
        data = keras.utils.unpack_x_y_sample_weight(validation)
        given = {**dict(zip(_DATA, data, strict=True)), "batch_size": size}
        dataset = _replace_arrays(given)
        replaced = {**replaced, "validation_batch_size": size}
        if dataset is not given:
            replaced["validation_data"] = dataset["x"]
    return replaced


def _replace_arrays(
    arguments: dict[str, Any], shuffle: Any = False
) -> dict[str, Any]:
    """Replaces arrays in arguments by a dataset that tf.data does not tune.

    It tunes those that Keras makes of arrays, and the end of a pass waits for
    the tuner: epochs of 0.8 seconds lasted 1.3, and those of 3 lasted 5.
    """
    x, y, sample_weight = map(arguments.get, _DATA)
    arrays = [data for data in (x, y, sample_weight) if data is not None]
    size = arguments.get("batch_size") or 32
    # With numbers of steps Keras cuts arrays up in another way.
    others = ("class_weight", "steps", "steps_per_epoch", "validation_steps")
    if (
        any(map(arguments.get, others))
        or keras.config.max_steps_per_epoch()
        or not isinstance(size, int)
        or size < 1
        or not isinstance(shuffle, bool)
        or x is None
        or (y is None and sample_weight is not None)
        or not all(
            isinstance(array, np.ndarray)
            and array.dtype.kind in "biuf"
            and array.ndim > 0
            and len(array) == len(x) > 0
            for array in arrays
        )
    ):
        return arguments
    floatx = keras.config.floatx()
    for index, array in enumerate(arrays):
        if array.dtype.kind == "f":
            arrays[index] = array.astype(floatx, copy=False)
    # `set_random_seed` seeds this one.
    seed = np.random.randint(2**32) if shuffle else None  # noqa: NPY002
    dataset = dataset_from_arrays(tuple(arrays), size, seed)
    kept = {
        k: v for k, v in arguments.items() if k not in (*_DATA, "batch_size")
    }
    return {"x": dataset, **kept}


def _check_input_shape(shape: Any, include_preprocessing: bool) -> None:
    if (
        not isinstance(shape, (tuple, list))
        or len(shape) != 3
        or not all(
            isinstance(size, (int, np.integer)) and size > 0 for size in shape
        )
    ):
        raise ValueError(
            "`input_shape` must be (height, width, channels), positive "
            f"integers. Received: input_shape={shape!r}"
        )
    if include_preprocessing:
        # `PadTo32` refuses larger images; what it cannot see is that a batch
        # of images with their channels first would fit.
        if shape[0] in (1, 3) and shape[1] == shape[2] and shape[2] > 4:
            raise ValueError(
                "`input_shape` must have the channels last. Received: "
                f"input_shape={shape!r}. Transpose the images with "
                "`images.transpose(0, 2, 3, 1)`."
            )
    elif tuple(shape[:2]) != (32, 32):
        raise ValueError(
            "`input_shape` must be (32, 32, channels) when "
            "`include_preprocessing=False`. Received: "
            f"input_shape={shape!r}. Pad the images with `PadTo32`."
        )
