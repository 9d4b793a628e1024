"""The base class of the models."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import keras
import numpy as np

from keras_lenet.callbacks.order import check_order
from keras_lenet.models.adapt import adapt
from keras_lenet.models.array_data import (
    name_data,
    replace_arrays,
    replace_arrays_in_fit,
)
from keras_lenet.models.layer_record import LayerRecord
from keras_lenet.models.multi_step import can_train, train_function, with_checks
from keras_lenet.models.presets import load_preset, write_preset
from keras_lenet.models.steps_per_execution import (
    choose_steps,
    steps_per_execution,
)
from keras_lenet.types import Tensor
from keras_lenet.validation.batches import (
    batch_check,
    check_compiled_loss,
    check_lengths,
    check_pixels,
    check_shape,
    check_targets,
    is_arrays,
)
from keras_lenet.version import __version__

Method = TypeVar("Method", bound=Callable[..., Any])


def _documented_as(method: Any) -> Callable[[Method], Method]:
    """Lets a method have the signature and docstring of Keras' own."""
    return functools.wraps(method)  # type: ignore[return-value]


class BaseModel(keras.Model):
    """A Keras model that trains fast, checks its inputs and has presets.

    `fit` runs several steps in one compiled program, as many as the callbacks
    allow (`keras_lenet.models.multi_step`), if `trains_compiled` says so.
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
    # The callbacks of a `fit` that runs several steps per execution.
    _callbacks_of_execution: Any = ()
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
        check_shape(self, inputs)
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
            and can_train(self)
        )

    def leave_to_keras(self) -> Callable[..., Any]:
        """Lets Keras train until the model is compiled again.

        Returns:
            Keras' own training function.
        """
        self._left_to_keras = True
        return self.make_train_function(force=True)  # type: ignore[no-any-return]

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

    def make_train_function(self, force: bool = False) -> Any:
        if self.train_function is None or force:
            if self.trains_compiled():
                self.train_function: Any = train_function(self)
            else:
                super().make_train_function(force)
                self.train_function = with_checks(self, self.train_function)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function: Any = with_checks(self, self.test_function)
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Any:
        if self.predict_function is None or force:
            super().make_predict_function(force)
            self.predict_function: Any = with_checks(
                self, self.predict_function
            )
        return self.predict_function

    @_documented_as(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        if self._has_keras_loss():
            check_compiled_loss(self)
        arguments = self._checked(super().fit, args, kwargs)
        validation_data = arguments.get("validation_data")
        check_order(
            arguments.get("callbacks"),
            validates=validation_data is not None
            or bool(arguments.get("validation_split")),
        )
        if isinstance(validation_data, (tuple, list)):
            try:
                self.check_arrays(name_data(validation_data))
            except ValueError as error:
                raise ValueError(f"`validation_data`: {error}") from None
        with self._checking_batches(arguments.get("x")):
            if self._may_replace_arrays():
                arguments = replace_arrays_in_fit(arguments)
            steps = self._steps_asked_for = self.steps_per_execution
            if steps == 1 and self.trains_compiled():
                steps = choose_steps(**arguments)
            if steps > self.steps_per_execution:
                self._callbacks_of_execution = tuple(
                    keras.tree.flatten(arguments.get("callbacks") or [])
                )
            try:
                with steps_per_execution(self, steps):
                    return super().fit(**arguments)
            finally:
                self._steps_asked_for = None
                self._callbacks_of_execution = ()

    @_documented_as(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_use_cached_eval_dataset"):
            # `fit` calls this, with an iterator made for its steps.
            with self._checking_batches(kwargs.get("x")):
                return super().evaluate(*args, **kwargs)
        if self._has_keras_loss():
            check_compiled_loss(self)
        arguments = self._checked(super().evaluate, args, kwargs)
        with (
            self._checking_batches(arguments.get("x")),
            self._in_steps_asked_for(),
        ):
            if self._may_replace_arrays():
                arguments = replace_arrays(arguments)
            return super().evaluate(**arguments)

    @_documented_as(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._checked(super().predict, args, kwargs, targets=False)
        with (
            self._checking_batches(arguments.get("x"), targets=False),
            self._in_steps_asked_for(),
        ):
            if self._may_replace_arrays():
                arguments = replace_arrays(arguments)
            return super().predict(**arguments)

    @_documented_as(keras.Model.train_on_batch)
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._checked(super().train_on_batch, args, kwargs)
        with self._checking_batches(arguments["x"]):
            return super().train_on_batch(**arguments)

    @_documented_as(keras.Model.test_on_batch)
    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._checked(super().test_on_batch, args, kwargs)
        with self._checking_batches(arguments["x"]):
            return super().test_on_batch(**arguments)

    @_documented_as(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._checked(
            super().predict_on_batch, args, kwargs, targets=False
        )
        with self._checking_batches(arguments["x"], targets=False):
            return super().predict_on_batch(**arguments)

    def _checked(
        self,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        targets: bool = True,
    ) -> dict[str, Any]:
        """Returns the arguments of a call by name, with arrays checked."""
        arguments = _bind(method, args, kwargs)
        self.check_arrays(arguments, targets)
        x = arguments.get("x")
        if (
            isinstance(x, np.ndarray)
            and x.ndim == len(self.input_shape) - 1
            and not self._is_replaced("call")
        ):
            # With images of two ranks, TensorFlow would trace an unknown one.
            arguments["x"] = x[..., np.newaxis]
        return arguments

    def check_arrays(self, data: dict[str, Any], targets: bool = True) -> None:
        """Checks images and labels that are arrays, all of them at once.

        Args:
            data: Dict with `"x"` and `"y"`. What is no array is not checked.
            targets: Boolean. Whether to check labels. Defaults to `True`.

        Raises:
            ValueError: If `fit` would refuse them.
        """
        x, y = data.get("x"), data.get("y")
        if not is_arrays(x):
            return
        if not self._is_replaced("call"):
            check_shape(self, x)
            check_pixels(self, x)
        check_lengths(x, y)
        if targets and self._has_keras_loss():
            check_targets(self, y)

    def _has_keras_loss(self) -> bool:
        """Returns whether the loss that `compile` received is computed."""
        return bool(self.compiled) and not self._is_replaced("compute_loss")

    @contextlib.contextmanager
    def _checking_batches(self, x: Any, targets: bool = True) -> Iterator[None]:
        """Checks each batch that comes in, unless `x` is checked already."""
        before = self._check_batch
        self._check_batch = None
        if not is_arrays(x) and not hasattr(x, "is_checked"):
            self._check_batch = batch_check(
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
        return steps_per_execution(self, steps)

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
            `keras_lenet.saving.read_preset` gives the card that says how it
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
        model: Self = load_preset(preset, BaseModel, cls)
        if kwargs:
            model = adapt(model, **kwargs)
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
        write_preset(
            path,
            {
                "module": type(self).__module__,
                "class_name": type(self).__name__,
                "config": self.get_config(),
                "registered_name": keras.saving.get_registered_name(type(self)),
            },
            # Not compiled, it has no state of an optimizer.
            adapt(self).save_weights,
            card or {},
            {
                "keras_version": keras.version(),
                "keras_lenet_version": __version__,
                "parameter_count": self.count_params(),
            },
        )


def _bind(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Returns the arguments of a call by name."""
    arguments = inspect.signature(method).bind(*args, **kwargs).arguments
    return {**arguments, **arguments.pop("kwargs", {})}
