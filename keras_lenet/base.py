"""What the models of this package have in common."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import keras
import numpy as np

from keras_lenet import compiled, saving, validation
from keras_lenet.callbacks import check_order
from keras_lenet.datasets import dataset_from_arrays
from keras_lenet.layer_record import LayerRecord
from keras_lenet.presets import write_preset

Tensor = Any
Method = TypeVar("Method", bound=Callable[..., Any])

_DATA = ("x", "y", "sample_weight")


def _documented_as(method: Any) -> Callable[[Method], Method]:
    """Lets a method have the signature and docstring of Keras' own."""
    return functools.wraps(method)  # type: ignore[return-value]


class BaseModel(keras.Model):
    """A Keras model that trains fast, checks its inputs and has presets.

    `fit` runs several steps in one compiled program, as many as the callbacks
    allow (`keras_lenet.compiled`), if `trains_compiled` says that this serves.
    Otherwise it is Keras' `fit`. On TensorFlow, NumPy arrays become datasets
    without `tf.data` autotuning, which delays the end of each epoch.

    A subclass builds its layers with `LayerRecord.add` and ends `__init__`
    with `_finish`.
    """

    num_classes: int
    include_preprocessing: bool
    classifier_activation: Any

    # The user's own `steps_per_execution`, while `fit` runs.
    _steps_asked_for: int | None = None
    # Checks each batch, while data come in that are no arrays.
    _check_batch: Callable[[Any], None] | None = None
    # What `compile` received. On TensorFlow, Keras turns "auto" into `False`.
    _jit_compile_asked_for: Any = "auto"
    # Set once XLA turns out not to compile what the model is compiled with.
    _left_to_keras = False

    def _finish(self, record: LayerRecord, policy: Any) -> None:
        record.finish()
        self._record = record
        self.dtype_policy = policy

    def layers_unchanged(self, *names: str) -> bool:
        """Returns whether layers compute what the class built them for.

        Args:
            *names: Names of layers. Defaults to all layers.
        """
        return self._record.is_unchanged(names)

    def call(
        self, inputs: Tensor, training: Any = None, mask: Any = None
    ) -> Tensor:
        validation.check_shape(self, inputs)
        return super().call(inputs, training=training, mask=mask)

    def trains_compiled(self) -> bool:
        """Returns whether `fit` runs several steps in one program."""
        return (
            not self._left_to_keras
            and not any(
                map(
                    self._is_replaced,
                    ("__call__", "call", "train_step", "compute_metrics"),
                )
            )
            and compiled.can_train(self)
        )

    def leave_to_keras(self) -> Callable[..., Any]:
        """Lets Keras train until the model is compiled again.

        Returns:
            Keras' own training function.
        """
        self._left_to_keras = True
        self.make_train_function(force=True)
        return self.train_function  # type: ignore[no-any-return]

    def _is_replaced(self, name: str) -> bool:
        """Returns whether a method is the user's own."""
        method = getattr(self, name)
        module = getattr(method, "__module__", None) or ""
        return module.split(".")[0] not in ("keras", "keras_lenet")

    @_documented_as(keras.Model.compile)
    def compile(self, *args: Any, **kwargs: Any) -> None:
        arguments = _bind(super().compile, args, kwargs)
        self._jit_compile_asked_for = arguments.get("jit_compile", "auto")
        self._left_to_keras = False
        super().compile(*args, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_compile_config()
        if config:
            config["jit_compile"] = self._jit_compile_asked_for
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras does not call a `compile` that is overridden, unless this
        # method is too.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        if self.trains_compiled():
            self.train_function: Any = compiled.train_function(self)
            return
        super().make_train_function(force)
        self.train_function = compiled.with_checks(self, self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is not None and not force:
            return
        super().make_test_function(force)
        self.test_function: Any = compiled.with_checks(self, self.test_function)

    def make_predict_function(self, force: bool = False) -> None:
        if self.predict_function is not None and not force:
            return
        super().make_predict_function(force)
        self.predict_function: Any = compiled.with_checks(
            self, self.predict_function
        )

    @_documented_as(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        arguments = _bind(super().fit, args, kwargs)
        if self._has_keras_loss():
            validation.check_compiled_loss(self)
        self.check_arrays(arguments)
        validation_data = arguments.get("validation_data")
        check_order(
            arguments.get("callbacks"),
            validates=validation_data is not None
            or bool(arguments.get("validation_split")),
        )
        if isinstance(validation_data, (tuple, list)):
            try:
                self.check_arrays(_named(validation_data))
            except ValueError as error:
                raise ValueError(f"`validation_data`: {error}") from None
        with self._checking_batches(arguments.get("x")):
            if self._may_replace_arrays():
                arguments = _replace_arrays_of_fit(arguments)
            steps = self._steps_asked_for = self.steps_per_execution
            if steps == 1 and self.trains_compiled():
                steps = compiled.choose_steps(**arguments)
            try:
                with compiled.steps_per_execution(self, steps):
                    return super().fit(**arguments)
            finally:
                self._steps_asked_for = None

    @_documented_as(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_use_cached_eval_dataset"):
            # `fit` calls this, with an iterator made for its steps.
            with self._checking_batches(kwargs.get("x")):
                return super().evaluate(*args, **kwargs)
        arguments = _bind(super().evaluate, args, kwargs)
        if self._has_keras_loss():
            validation.check_compiled_loss(self)
        self.check_arrays(arguments)
        with (
            self._checking_batches(arguments.get("x")),
            self._in_steps_asked_for(),
        ):
            if self._may_replace_arrays():
                arguments = _replace_arrays(arguments)
            return super().evaluate(**arguments)

    @_documented_as(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _bind(super().predict, args, kwargs)
        self.check_arrays(arguments, targets=False)
        with (
            self._checking_batches(arguments.get("x"), targets=False),
            self._in_steps_asked_for(),
        ):
            if self._may_replace_arrays():
                arguments = _replace_arrays(arguments)
            return super().predict(**arguments)

    @_documented_as(keras.Model.train_on_batch)
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _bind(super().train_on_batch, args, kwargs)
        self.check_arrays(arguments)
        with self._checking_batches(arguments["x"]):
            return super().train_on_batch(**arguments)

    @_documented_as(keras.Model.test_on_batch)
    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _bind(super().test_on_batch, args, kwargs)
        self.check_arrays(arguments)
        with self._checking_batches(arguments["x"]):
            return super().test_on_batch(**arguments)

    @_documented_as(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _bind(super().predict_on_batch, args, kwargs)
        self.check_arrays(arguments, targets=False)
        with self._checking_batches(arguments["x"], targets=False):
            return super().predict_on_batch(**arguments)

    def check_arrays(self, data: dict[str, Any], targets: bool = True) -> None:
        """Checks images and labels that are arrays, all of them at once.

        Args:
            data: Dict with `"x"` and `"y"`. What is no array is not checked.
            targets: Boolean. Whether to check labels. Defaults to `True`.

        Raises:
            ValueError: If `fit` would refuse them.
        """
        x, y = data.get("x"), data.get("y")
        if not validation.is_arrays(x):
            return
        if not self._is_replaced("call"):
            validation.check_shape(self, x)
            validation.check_pixels(self, x)
        validation.check_lengths(x, y)
        if targets and self._has_keras_loss():
            validation.check_targets(self, y)

    def _has_keras_loss(self) -> bool:
        """Returns whether the loss that `compile` received is computed."""
        return bool(self.compiled) and not self._is_replaced("compute_loss")

    @contextlib.contextmanager
    def _checking_batches(self, x: Any, targets: bool = True) -> Iterator[None]:
        """Checks each batch that comes in, unless `x` is checked already."""
        before = self._check_batch
        self._check_batch = None
        if not validation.is_arrays(x) and not hasattr(x, "is_checked"):
            self._check_batch = validation.batch_check(
                self,
                images=not self._is_replaced("call"),
                targets=targets and self._has_keras_loss(),
            )
        try:
            yield
        finally:
            self._check_batch = before

    def _may_replace_arrays(self) -> bool:
        if keras.backend.backend() != "tensorflow":
            return False
        return bool(self.distribute_strategy.num_replicas_in_sync == 1)

    def _in_steps_asked_for(self) -> contextlib.AbstractContextManager[None]:
        # A callback may call while `fit` runs with more.
        steps = self._steps_asked_for or self.steps_per_execution
        return compiled.steps_per_execution(self, steps)

    def get_config(self) -> dict[str, Any]:
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_classes": self.num_classes,
            "input_shape": self.input_shape[1:],
            "include_preprocessing": self.include_preprocessing,
        }
        changed = self._record.changed_configs()
        return {**config, "layer_configs": changed} if changed else config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Self:
        # Keras would otherwise rebuild the graph of layers as a plain
        # functional model.
        dtype = keras.saving.deserialize_keras_object(
            config.get("dtype"), custom_objects=custom_objects
        )
        scope: Any = contextlib.nullcontext()
        if custom_objects:
            # An empty scope would hide those of `load_model`.
            scope = keras.saving.custom_object_scope(custom_objects)
        with scope:
            return cls(**{**config, "dtype": dtype})

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Makes a trained model.

        Args:
            preset: Name of a preset that comes with the package, `"mnist"` or
                `"digits"` for `LeNet5` and `"original"` for `OriginalLeNet5`,
                or path of a folder that `save_to_preset` wrote. A name wins
                over a path: a folder called `mnist` is `"./mnist"`.
            **kwargs: Arguments of the model, in place of the preset's. With
                another `num_classes` the `output` layer of a `LeNet5` starts
                again, on top of the trained others. With `input_shape` for
                colour, the weights for grey images are spread over the
                channels, and the reverse.

        Returns:
            A model of this class, not compiled.
            `keras_lenet.presets.read_preset` gives the card that says how it
            was trained and how good it is.

        Raises:
            ValueError: When there is no such preset, it is one of another
                class, an argument is not of the form above, or neither the
                weights nor `input_shape` are for grey images.
            keras_lenet.files.FileFormatError: When the preset is damaged, or
                something else. It is a `ValueError`.

        Example:

        >>> from keras_lenet import LeNet5
        >>> model = LeNet5.from_preset("mnist")
        >>> letters = LeNet5.from_preset("mnist", num_classes=26)
        """
        model: Self = saving.load_preset(preset, cls)
        if kwargs:
            model = saving.adapt(model, **kwargs)
        return model

    def save_to_preset(
        self,
        path: str | os.PathLike[str],
        card: dict[str, Any] | None = None,
    ) -> None:
        """Saves the model as a preset, a folder that `from_preset` takes.

        Args:
            path: Path of a folder that is empty or does not exist.
            card: Dict of what is known about the model, for JSON. By default
                empty.

        Raises:
            ValueError: When the folder has something in it.

        Example:

        >>> from keras_lenet import LeNet5
        >>> path = getfixture("tmp_path") / "mine"
        >>> LeNet5().save_to_preset(path, card={"dataset": "my own"})
        >>> sorted(file.name for file in path.iterdir())
        ['config.json', 'metadata.json', 'model.weights.h5']
        """
        import keras_lenet

        write_preset(
            path,
            {
                "module": type(self).__module__,
                "class_name": type(self).__name__,
                "config": self.get_config(),
                "registered_name": keras.saving.get_registered_name(type(self)),
            },
            # Not compiled, it has no state of an optimizer.
            saving.adapt(self).save_weights,
            card or {},
            {
                "keras_version": keras.version(),
                "keras_lenet_version": keras_lenet.__version__,
                "parameter_count": self.count_params(),
            },
        )


def _bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of a call by name."""
    arguments = inspect.signature(method).bind(*args, **kwargs).arguments
    return {**arguments, **arguments.pop("kwargs", {})}


def _named(data: Any) -> dict[str, Any]:
    """Returns images, labels and weights by name."""
    parts = keras.utils.unpack_x_y_sample_weight(data)
    return dict(zip(_DATA, parts, strict=True))


def _replace_arrays_of_fit(arguments: dict[str, Any]) -> dict[str, Any]:
    """Does what `_replace_arrays` does, and for validation too."""
    if arguments.get("validation_split"):
        return arguments
    replaced = _replace_arrays(arguments, arguments.get("shuffle", True))
    if replaced is not arguments:
        # Otherwise Keras warns that it cannot shuffle a dataset.
        replaced["shuffle"] = False
    validation = arguments.get("validation_data")
    if isinstance(validation, tuple):
        size = arguments.get("validation_batch_size") or arguments.get(
            "batch_size"
        )
        given = {**_named(validation), "batch_size": size}
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
    seed = np.random.randint(2**32) if shuffle else 0  # noqa: NPY002
    dataset = dataset_from_arrays(tuple(arrays), size, seed, shuffle)
    dataset.is_checked = True
    kept = {
        k: v for k, v in arguments.items() if k not in (*_DATA, "batch_size")
    }
    return {"x": dataset, **kept}
