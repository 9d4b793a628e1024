"""The base class of the models."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

import keras
import numpy as np

from keras_lenet.callbacks.order import check_order
from keras_lenet.files.hdf5 import has_optimizer_state
from keras_lenet.keras_internals import has_one_replica, is_validation_of_fit
from keras_lenet.models import array_data, jax_programs, multi_step, torch_step
from keras_lenet.models.adapt import adapt
from keras_lenet.models.layer_record import LayerRecord
from keras_lenet.models.presets import load_preset, write_preset
from keras_lenet.models.steps_per_execution import (
    choose_steps,
    steps_per_execution,
)
from keras_lenet.types import Tensor
from keras_lenet.validation import batches
from keras_lenet.validation.arguments import standardize_class_names
from keras_lenet.version import __version__

Method = TypeVar("Method", bound=Callable[..., Any])


def _documented_as(method: Any) -> Callable[[Method], Method]:
    """Gives a method the signature and docstring of Keras' method."""
    return functools.wraps(method)  # type: ignore[return-value]


class BaseModel(keras.Model):
    """A Keras model that trains fast, checks its inputs and has presets.

    If `trains_compiled` returns `True`, `fit` runs as many steps in one
    compiled program as the callbacks allow (`keras_lenet.models.multi_step`).
    Otherwise it is Keras' `fit`. A subclass builds its layers with
    `LayerRecord.add` and ends `__init__` with `_finish`.
    """

    num_classes: int
    include_preprocessing: bool
    classifier_activation: Any

    # The user's `steps_per_execution` while `fit` runs.
    _user_steps: int | None = None
    # The callbacks of a `fit` that runs several steps per execution.
    _multi_step_callbacks: Any = ()
    # The number of rows of all batches but the last, while the data are arrays.
    _batch_size: int | None = None
    # Checks each batch while the data are not arrays.
    _check_batch: Callable[[Any], None] | None = None
    # The argument of `compile`: TensorFlow's trainer turns "auto" into `False`.
    _jit_compile_argument: Any = "auto"
    # Whether `multi_step` could compile when the train function was made.
    _could_compile: bool | None = None
    # Set when XLA cannot run the loss or metrics of `compile`.
    _uses_keras_loop = False

    def _finish(self, record: LayerRecord, policy: Any) -> None:
        record.finish()
        self._record = record
        self.dtype_policy = policy

    @property
    def class_names(self) -> list[str] | None:
        return self._class_names

    @class_names.setter
    def class_names(self, names: Sequence[str] | None) -> None:
        self._class_names = standardize_class_names(names, self.num_classes)

    def layers_unchanged(self, *names: str) -> bool:
        """Returns whether layers, by default all, are as they were built."""
        return self._record.is_unchanged(names)

    def call(
        self, inputs: Tensor, training: Any = None, mask: Any = None
    ) -> Tensor:
        batches.check_shape(self, inputs)
        return super().call(inputs, training=training, mask=mask)

    def trains_compiled(self) -> bool:
        """Returns whether `fit` runs several steps in one program."""
        names = ("__call__", "call", "train_step", "compute_metrics")
        return (
            not self._uses_keras_loop
            and not self._is_overridden(*names)
            and multi_step.can_compile(self)
        )

    def use_keras_loop(self) -> Callable[..., Any]:
        """Returns Keras' train function, used until `compile` is called."""
        self._uses_keras_loop = True
        return self.make_train_function(force=True)  # type: ignore[no-any-return]

    def _is_overridden(self, *names: str) -> bool:
        """Returns whether the user has overridden any of the methods."""
        modules = (getattr(getattr(self, n), "__module__", None) for n in names)
        return any(
            (module or "").split(".")[0] not in ("keras", "keras_lenet")
            for module in modules
        )

    @_documented_as(keras.Model.compile)
    def compile(self, *args: Any, **kwargs: Any) -> None:
        arguments = _bind(super().compile, args, kwargs)
        self._jit_compile_argument = arguments.get("jit_compile", "auto")
        self._uses_keras_loop = False
        super().compile(*args, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_compile_config()
        if config:
            config["jit_compile"] = self._jit_compile_argument
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras does not call an overridden `compile` unless this method is
        # overridden too.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @_documented_as(keras.Model.load_weights)
    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        arguments = _bind(super().load_weights, args, kwargs)
        optimizer = self.optimizer if self.compiled else None
        if (
            optimizer is not None
            and not optimizer.built
            and has_optimizer_state(arguments["filepath"])
        ):
            # Keras would leave it out, with a warning.
            optimizer.build(self.trainable_variables)
        super().load_weights(**arguments)

    def make_train_function(self, force: bool = False) -> Any:
        # On a GPU, it depends on the batch size.
        can_compile = multi_step.can_compile(self)
        force = force or can_compile != self._could_compile
        self._could_compile = can_compile
        if self.train_function is None or force:
            if self.trains_compiled():
                self.train_function: Any = multi_step.train_function(self)
            elif torch_step.supports(self) and not self._is_overridden(
                "train_step", "compute_loss", "compute_metrics"
            ):
                function = torch_step.train_function(self)
                self.train_function = multi_step.with_checks(self, function)
            else:
                self._add_checks("train", super().make_train_function, force)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        if self.test_function is None or force:
            if self._shares_programs("test_step", "compute_metrics"):
                self.test_function: Any = jax_programs.test_function(self)
            else:
                self._add_checks("test", super().make_test_function, force)
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Any:
        if self.predict_function is None or force:
            if self._shares_programs("predict_step"):
                self.predict_function: Any = jax_programs.predict_function(self)
            else:
                self._add_checks(
                    "predict", super().make_predict_function, force
                )
        return self.predict_function

    def _shares_programs(self, *names: str) -> bool:
        """Returns whether other models can use the programs of this one."""
        return (
            keras.backend.backend() == "jax"
            and keras.distribution.distribution() is None
            and bool(self.jit_compile)
            and not self.run_eagerly
            and not self._is_overridden("__call__", "call", *names)
        )

    def _add_checks(self, kind: str, make: Any, force: bool) -> None:
        make(force)
        function = getattr(self, f"{kind}_function")
        checked = multi_step.with_checks(self, function)
        setattr(self, f"{kind}_function", checked)

    @_documented_as(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        if self._computes_compiled_loss():
            batches.check_compiled_loss(self)
        arguments = self._check_arguments(super().fit, args, kwargs)
        validation_data = arguments.get("validation_data")
        callbacks = arguments.get("callbacks") or []
        check_order(
            callbacks,
            validates=validation_data is not None
            or bool(arguments.get("validation_split")),
        )
        if isinstance(validation_data, (tuple, list)):
            try:
                self.check_arrays(array_data.name_data(validation_data))
            except ValueError as error:
                raise ValueError(f"`validation_data`: {error}") from None
        with self._checking_batches(arguments):
            if self._may_replace_arrays():
                arguments = array_data.replace_arrays_in_fit(arguments)
            steps = self._user_steps = self.steps_per_execution
            if steps == 1 and self.trains_compiled():
                steps = choose_steps(**arguments)
            if steps > self.steps_per_execution:
                self._multi_step_callbacks = tuple(
                    keras.tree.flatten(callbacks)
                )
            try:
                with steps_per_execution(self, steps):
                    return super().fit(**arguments)
            finally:
                self._user_steps = None
                self._multi_step_callbacks = ()

    @_documented_as(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        if is_validation_of_fit(kwargs):
            with self._checking_batches(kwargs):
                return super().evaluate(*args, **kwargs)
        return self._run(super().evaluate, args, kwargs)

    @_documented_as(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(super().predict, args, kwargs, targets=False)

    def _compiling_predict(
        self, arguments: dict[str, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """Changes how `predict` computes images, if a subclass knows better."""
        return contextlib.nullcontext()

    def _run(
        self, method: Any, args: Any, kwargs: Any, targets: bool = True
    ) -> Any:
        """Calls Keras' `evaluate` or `predict` with checked data."""
        if targets and self._computes_compiled_loss():
            batches.check_compiled_loss(self)
        arguments = self._check_arguments(method, args, kwargs, targets)
        # A callback may call this while `fit` runs more steps per execution.
        steps = self._user_steps or self.steps_per_execution
        compiling: Any = contextlib.nullcontext()
        if not targets:
            compiling = self._compiling_predict(arguments)
        with (
            self._checking_batches(arguments, targets),
            steps_per_execution(self, steps),
            compiling,
        ):
            if self._may_replace_arrays():
                arguments = array_data.replace_arrays(arguments)
            return method(**arguments)

    @_documented_as(keras.Model.train_on_batch)
    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_on_batch(super().train_on_batch, args, kwargs)

    @_documented_as(keras.Model.test_on_batch)
    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_on_batch(super().test_on_batch, args, kwargs)

    @_documented_as(keras.Model.predict_on_batch)
    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_on_batch(
            super().predict_on_batch, args, kwargs, targets=False
        )

    def _run_on_batch(
        self, method: Any, args: Any, kwargs: Any, targets: bool = True
    ) -> Any:
        arguments = self._check_arguments(method, args, kwargs, targets)
        with self._checking_batches(arguments, targets):
            return method(**arguments)

    def _check_arguments(
        self, method: Any, args: Any, kwargs: Any, targets: bool = True
    ) -> dict[str, Any]:
        """Returns a call's arguments by name, with arrays checked."""
        arguments = _bind(method, args, kwargs)
        self.check_arrays(arguments, targets)
        x = arguments.get("x")
        if (
            isinstance(x, np.ndarray)
            and x.ndim == len(self.input_shape) - 1
            and not self._is_overridden("call")
        ):
            # After images of two ranks, TensorFlow would trace an unknown rank.
            arguments["x"] = x[..., np.newaxis]
        return arguments

    def check_arrays(self, data: dict[str, Any], targets: bool = True) -> None:
        """Checks `x` and, if `targets`, `y` of a dict, if `x` is arrays."""
        x, y = data.get("x"), data.get("y")
        if not batches.is_arrays(x):
            return
        if not self._is_overridden("call"):
            batches.check_shape(self, x)
            batches.check_pixels(self, x)
        batches.check_lengths(x, y)
        if targets and self._computes_compiled_loss():
            batches.check_targets(self, y)

    def _computes_compiled_loss(self) -> bool:
        """Returns whether the model computes the loss of `compile`."""
        return bool(self.compiled) and not self._is_overridden("compute_loss")

    @contextlib.contextmanager
    def _checking_batches(
        self, data: dict[str, Any], targets: bool = True
    ) -> Iterator[None]:
        """Checks each batch, unless `x` is checked already."""
        before = self._check_batch, self._batch_size
        self._check_batch = self._batch_size = None
        x = data.get("x")
        if batches.is_arrays(x):
            self._batch_size = data.get("batch_size") or 32
        elif not hasattr(x, "is_checked"):
            self._check_batch = batches.batch_check(
                self,
                images=not self._is_overridden("call"),
                targets=targets and self._computes_compiled_loss(),
            )
        try:
            yield
        finally:
            self._check_batch, self._batch_size = before

    def _may_replace_arrays(self) -> bool:
        return keras.backend.backend() == "tensorflow" and has_one_replica(self)

    def get_config(self) -> dict[str, Any]:
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_classes": self.num_classes,
            "input_shape": self.input_shape[1:],
            "include_preprocessing": self.include_preprocessing,
        }
        if self.class_names is not None:
            config["class_names"] = list(self.class_names)
        changed = self._record.changed_configs()
        return {**config, "layer_configs": changed} if changed else config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> Self:
        # Keras would rebuild the graph of layers as a plain functional model.
        dtype = keras.saving.deserialize_keras_object(
            config.get("dtype"), custom_objects=custom_objects
        )
        scope: Any = contextlib.nullcontext()
        if custom_objects:
            # An empty scope would hide the objects of `load_model`.
            scope = keras.saving.custom_object_scope(custom_objects)
        with scope:
            return cls(**{**config, "dtype": dtype})

    @classmethod
    def from_preset(cls, preset: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Returns a trained model.

        Args:
            preset: Name of a preset that comes with the package (`"mnist"` or
                `"digits"` for `LeNet5`, `"original"` for `OriginalLeNet5`), or
                path of a folder that `save_to_preset` wrote. A name wins over
                a path: a folder called `mnist` is `"./mnist"`.
            **kwargs: Arguments of the model, in place of the preset's, as for
                `keras_lenet.saving.adapt`.

        Returns:
            A model of this class, not compiled. For its training recipe and
            test accuracy, see the card that `read_preset` returns.

        Raises:
            ValueError: If the preset does not exist or belongs to another
                class, or `adapt` rejects an argument.
            keras_lenet.files.FileFormatError: If the preset is damaged or is
                not a preset. It is a `ValueError`.

        Example:

        >>> from keras_lenet import LeNet5
        >>> model = LeNet5.from_preset("mnist")
        >>> letters = LeNet5.from_preset("mnist", num_classes=26)
        """
        model: Self = load_preset(preset, BaseModel, cls)
        return adapt(model, **kwargs) if kwargs else model

    def save_to_preset(
        self, path: str | os.PathLike[str], card: dict[str, Any] | None = None
    ) -> None:
        """Saves the model as a preset, a folder that `from_preset` loads.

        Args:
            path: Path of a folder that is empty or does not exist.
            card: Dict that describes the model, for JSON. Defaults to `{}`.

        Raises:
            ValueError: If the folder is not empty.

        Example:

        >>> from keras_lenet import LeNet5
        >>> path = getfixture("tmp_path") / "mine"
        >>> LeNet5().save_to_preset(path, card={"dataset": "my own"})
        >>> sorted(file.name for file in path.iterdir())
        ['config.json', 'metadata.json', 'model.weights.h5']
        """
        config = {
            "module": type(self).__module__,
            "class_name": type(self).__name__,
            "config": self.get_config(),
            "registered_name": keras.saving.get_registered_name(type(self)),
        }
        facts = {
            "keras_version": keras.version(),
            "keras_lenet_version": __version__,
            "parameter_count": self.count_params(),
        }
        # A copy that is not compiled has no optimizer state to save.
        save_weights = adapt(self).save_weights
        write_preset(path, config, save_weights, card or {}, facts)


def _bind(method: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Returns a call's arguments by name."""
    arguments = inspect.signature(method).bind(*args, **kwargs).arguments
    return {**arguments, **arguments.pop("kwargs", {})}
