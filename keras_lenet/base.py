"""What the models of this package have in common."""

import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np

from keras_lenet import compiled, saving
from keras_lenet.callbacks import check_order
from keras_lenet.datasets import check_targets, dataset_from_arrays
from keras_lenet.presets import write_preset

_DATA = ("x", "y", "sample_weight")


class BaseModel(keras.Model):
    """A Keras model that is fast to train and comes with presets.

    `fit` makes several steps in one compiled program, as many as no callback
    notices (`keras_lenet.compiled`), where `trains_compiled` says that it
    serves; else it is Keras'. On TensorFlow, NumPy arrays become datasets that
    `tf.data` does not tune, for whose tuner the end of every pass would wait.
    """

    # What the user compiled with, while `fit` runs.
    _steps_asked_for: int | None = None

    def trains_compiled(self) -> bool:
        """Returns whether several steps are made in one program."""
        return compiled.can_train(self)

    def check_arguments(self, arguments: dict[str, Any]) -> None:
        """Refuses what Keras would train on without a word."""
        if self.compiled:
            check_targets(self, arguments.get("y"))

    def make_train_function(self, force: bool = False) -> Any:
        if not self.trains_compiled():
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function: Any = compiled.train_function(self)
        return self.train_function

    @functools.wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        arguments = _bind(super().fit, args, kwargs)
        self.check_arguments(arguments)
        check_order(
            arguments.get("callbacks"),
            validates=arguments.get("validation_data") is not None
            or bool(arguments.get("validation_split")),
        )
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

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_use_cached_eval_dataset"):
            # Called by `fit`, with an iterator made for its steps.
            return super().evaluate(*args, **kwargs)
        arguments = _bind(super().evaluate, args, kwargs)
        self.check_arguments(arguments)
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

    def _may_replace_arrays(self) -> bool:
        if keras.backend.backend() != "tensorflow":
            return False
        return bool(self.distribute_strategy.num_replicas_in_sync == 1)

    def _in_steps_asked_for(self) -> contextlib.AbstractContextManager[None]:
        # A callback may call while `fit` makes more.
        steps = self._steps_asked_for or self.steps_per_execution
        return compiled.steps_per_execution(self, steps)

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
                anew, on top of the trained others.

        Returns:
            A model of this class, not compiled.
            `keras_lenet.presets.read_preset` gives the card that says how it
            was trained and how good it is.

        Raises:
            ValueError: When there is no such preset, it is one of another
                class, an argument is not of the form above, or `input_shape`
                has another number of channels.
            keras_lenet.files.FileFormatError: When the preset is damaged, or
                something else. It is a `ValueError`.

        Example:

        >>> from keras_lenet import LeNet5
        >>> model = LeNet5.from_preset("mnist")
        >>> letters = LeNet5.from_preset("mnist", num_classes=26)
        """
        model = saving.load_preset(preset)
        if not isinstance(model, cls):
            raise ValueError(
                f"`preset` must be one of a {cls.__name__}. Received: "
                f"preset={os.fspath(preset)!r}, a {type(model).__name__}."
            )
        return saving.adapt(model, **kwargs) if kwargs else model

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
    seed = np.random.randint(2**32) if shuffle else 0  # noqa: NPY002
    dataset = dataset_from_arrays(tuple(arrays), size, seed, shuffle)
    kept = {
        k: v for k, v in arguments.items() if k not in (*_DATA, "batch_size")
    }
    return {"x": dataset, **kept}
