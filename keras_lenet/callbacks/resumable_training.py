"""Resuming an interrupted run exactly."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.callbacks import run_state
from keras_lenet.callbacks.fingerprint import describe_run
from keras_lenet.callbacks.isolation import (
    get_values,
    metrics_results,
    set_values,
)
from keras_lenet.callbacks.periodic import (
    PeriodicCallback,
    StatefulCallback,
)
from keras_lenet.distribution import (
    gather_from_processes,
    is_main_process,
    process_count,
)
from keras_lenet.files.arrays import read_arrays, write_arrays
from keras_lenet.files.atomic import check_file
from keras_lenet.files.formats import FileFormatError, parsing
from keras_lenet.keras_internals import build_symbolically, set_initial_epoch
from keras_lenet.types import Array, Logs

# Stands in errors for a value that only one of two runs has.
_MISSING = "nothing"

_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end")


class OtherRunError(ValueError):
    """Raised if a file holds the state of another run.

    Attributes:
        path: Path of the file.
        differences: Dict of names to tuples `(saved value, current value)`.
    """

    def __init__(
        self, path: Path, differences: dict[str, tuple[Any, Any]]
    ) -> None:
        lines = [
            f"{name}: {saved!r} saved, {now!r} now"
            for name, (saved, now) in differences.items()
        ]
        super().__init__(
            f"{path}: expected the state of this run. Received: the state of "
            f"another run, with {'; '.join(lines)}. Give another `filepath`, "
            "or delete the file to start again."
        )
        self.path = path
        self.differences = differences


class ResumableTraining(PeriodicCallback):
    """Saves a run every few steps, and resumes it from there next time.

    If the file exists when `fit` begins, the run continues as if it had not
    been interrupted: run the same script again. The weights, optimizer,
    metrics, random state, `History` and the state of this package's callbacks
    become, bit for bit, those of an uninterrupted run. It does not matter
    whether an error, Ctrl-C or a power cut ended it: the file is replaced
    atomically.

    With a dataset from `image_dataset_from_array`, whose order is a function
    of seed and epoch, a run resumes in the middle of an epoch, and each batch
    is seen exactly once. The steps made before are skipped without training,
    so that progress bars and step counts are right. With any other data, the
    state is saved between epochs, and an interrupted epoch is repeated; data
    that shuffle themselves start their order again.

    Put it last in the list of callbacks.

    Args:
        filepath: Path of the `.npz` file to save to and resume from. Delete it
            to start again.
        dataset: The `tf.data.Dataset` from `image_dataset_from_array` that
            `fit` trains on, itself or repeated. Nothing else should iterate
            over it meanwhile. By default `fit` may train on any data.
        callbacks: List of callbacks of Keras or your own in the same `fit`
            whose state belongs to the run, e.g. `EarlyStopping`. All their
            attributes that are numbers, strings, arrays of numbers, or lists or
            dicts of these, are saved, except constructor arguments. They do
            not see the steps that are skipped, as others do: give
            `ModelCheckpoint` if it saves during an epoch. This package's
            callbacks need not be given.
        freq: Integer or `"epoch"`. The number of training steps between two
            saves. Defaults to `"epoch"`.
        verbose: 0 or 1. Whether to print where a run resumes, or that it is
            finished. Defaults to `1`.
        strict: Boolean. Whether an error while saving ends the run. By default
            the run continues, with one warning, and the file is unchanged.

    Raises:
        ValueError: If an argument is invalid. In `fit`, if the callback is not
            last in the list, the file is damaged, or it belongs to another
            run: with another model, optimizer, loss, number of steps, list of
            callbacks or version, and, if `dataset` is given, other data,
            another batch size or seed.

    A state with non-finite numbers never replaces a finite one. If several
    processes train together, the first one writes and all read.

    Example:

    >>> from keras_lenet import LeNet5, ResumableTraining, datasets
    >>> (x_train, y_train), _ = datasets.load_data("digits")
    >>> train = datasets.image_dataset_from_array(
    ...     x_train, y_train, shuffle=True, seed=98
    ... )  # doctest: +SKIP
    >>> resumable = ResumableTraining(
    ...     "training.npz", train, freq=100
    ... )  # doctest: +SKIP
    >>> model.fit(
    ...     train, epochs=20, callbacks=[resumable], shuffle=False
    ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        dataset: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        freq: int | str = "epoch",
        verbose: int = 1,
        strict: bool = False,
    ) -> None:
        super().__init__(freq, strict)
        self.filepath: Path = Path(filepath)
        check_file(self.filepath, "filepath", ".npz")
        if dataset is not None and not hasattr(dataset, "sampler"):
            raise ValueError(
                "`dataset` must be what `image_dataset_from_array` returned, "
                f"before any change. Received: dataset={dataset!r}. Leave it "
                "out to resume from the beginning of an epoch."
            )
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.Callback):
                raise ValueError(
                    "`callbacks` must be a list of Keras callbacks. "
                    f"Received: {callback!r}"
                )
        self.dataset = dataset
        self.callbacks: list[keras.callbacks.Callback] = list(callbacks)
        self.verbose = verbose
        self._interrupt_requested = False
        # Given callbacks that do not see steps, and hooks of their own.
        self._muted: list[tuple[keras.callbacks.Callback, Any]] = []

    def interrupt(self) -> None:
        """Requests to save the run and end it after the current step.

        `fit` then raises `KeyboardInterrupt`. Call it from signal handlers,
        e.g. for the signal with which a cluster announces its shutdown. If
        several processes train together, a request in one of them ends all at
        the next save that is due.
        """
        self._interrupt_requested = True

    def set_params(self, params: Any) -> None:
        super().set_params(params)
        # Keras calls this for one callback after the other, so those with
        # these `params` already come earlier in the list.
        self._earlier = [c for c in self._stateful() if c.params is params]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._check_order()
        self._fingerprint = self._describe()
        self._interrupted = False
        self._unmute()
        self._is_alone = process_count() == 1
        # Keras puts `History` last, so at the end of an epoch its entry is
        # still missing. A save that is due waits for the next beginning.
        self._may_save = False
        self._is_due = False
        self._saved_step = -1
        self._finished = False
        # State not yet restored, and steps still to skip.
        self._state: dict[str, Any] | None = None
        self._steps_to_skip = 0
        if self.dataset is not None:
            self.dataset.sampler.start_at(0)
        if self.filepath.exists():
            self._resume()
        steps = gather_from_processes(self._saved_step)
        if len(set(steps)) > 1:
            raise ValueError(
                f"{self.filepath}: expected the same file in all processes, on "
                f"a file system that they share. Received: steps {steps}, -1 "
                "where there is no file."
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        # Keras would start the model's next `fit` in this epoch too.
        set_initial_epoch(self.model, None)
        if self._state is not None:
            self._restore_after_begin(self._state)
        elif self._is_due:
            self._may_save = True
            self._run_on_interval(self._steps_before_epoch)
        self._may_save = self.dataset is not None

    def on_train_batch_begin(
        self, batch: int, logs: Logs | None = None
    ) -> None:
        if self._steps_to_skip:
            return
        # Given callbacks saw this step begin before the state was saved.
        self._unmute()
        super().on_train_batch_begin(batch, logs)
        step = self._steps_before_epoch + batch
        if self._interrupt_requested and self._is_alone:
            self._interrupted = True
            # Before the first step there is nothing to save.
            if step and step != self._saved_step:
                self._run_on_interval(step)
        if self._interrupted:
            self._interrupt_requested = False
            raise KeyboardInterrupt(f"interrupted after {step} steps")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._may_save = False
        super().on_epoch_end(epoch, logs)
        self._is_due |= self._interrupt_requested and self._is_alone

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._interrupt_requested = False
        set_initial_epoch(self.model, None)
        if self._state is not None:
            # The run was finished, so no epoch began.
            self._restore_after_begin(self._state)
        elif not self._finished:
            self._finished = self._may_save = True
            self._epoch += 1
            self._run_on_interval(self._steps_before_epoch)

    def on_interval(self, step: int, epoch: int) -> None:
        self._is_due = not self._may_save
        if self._is_due:
            return
        if not self._is_alone:
            # All processes must end together: those left would wait forever.
            self._interrupted = any(
                gather_from_processes(self._interrupt_requested)
            )
        if not is_main_process():
            return
        model = self.model
        arrays = {
            f"{group}/{index}": run_state.to_storable(value)
            for group, variables in run_state.variable_groups(model).items()
            for index, value in enumerate(get_values(variables))
        }
        for name, value in arrays.items():
            if not np.isfinite(value).all():
                raise FloatingPointError(
                    f"after {step} steps {name} is not finite, so "
                    f"{self.filepath} is left unchanged"
                )
        history = model.history
        facts = {
            **self.get_state(),
            "fingerprint": self._fingerprint,
            "step": step,
            "epoch": epoch,
            "finished": self._finished,
            "stopped": bool(model.stop_training),
            "random": run_state.get_random_state(),
            "history": {"history": history.history, "epoch": history.epoch},
            "callbacks": [
                run_state.get_callback_state(callback)
                for callback in self._earlier
            ],
        }
        write_arrays(self.filepath, arrays, run_state.pack(facts, arrays))
        self._saved_step = step

    def _stateful(self) -> list[keras.callbacks.Callback]:
        """Returns the other callbacks whose state belongs to the run."""
        ours = [
            callback
            for callback in StatefulCallback.of_fit(self.params)
            if callback is not self
        ]
        return [*ours, *(c for c in self.callbacks if c not in ours)]

    def _check_order(self) -> None:
        names = [type(c).__name__ for c in self._stateful()]
        earlier = [type(c).__name__ for c in self._earlier]
        if names != earlier:
            raise ValueError(
                "`ResumableTraining` must be the last in the list of callbacks "
                f"given to `fit`, here after {names}. Received: only {earlier} "
                "before it."
            )

    def _describe(self) -> dict[str, Any]:
        return describe_run(
            self.model, self.params["steps"], self._earlier, self.dataset
        )

    def _resume(self) -> None:
        arrays, facts = read_arrays(self.filepath)
        now = self._fingerprint
        try:
            state = run_state.unpack(facts, arrays)
            saved = state["fingerprint"]
            # A value may be `None`: the `freq` of a callback that has none.
            both = {
                name: (saved.get(name, _MISSING), now.get(name, _MISSING))
                for name in {**saved, **now}
            }
            differences = {
                name: values
                for name, values in both.items()
                # Classes may move to another module.
                if values[0] != values[1] and not name.endswith(".module")
            }
            if differences:
                raise OtherRunError(self.filepath, differences)
            self._restore(state, arrays)
        except (IndexError, KeyError, TypeError) as error:
            raise FileFormatError(
                self.filepath,
                "the state of a run",
                "written by ResumableTraining",
                f"something else ({error!r})",
            ) from error

    def _restore(self, state: dict[str, Any], arrays: dict[str, Array]) -> None:
        model = self.model
        step, epoch = state["step"], state["epoch"]
        to_skip = step - state["steps_before_epoch"]
        if to_skip % model.steps_per_execution:
            raise ValueError(
                f"{self.filepath}: expected a `steps_per_execution` that "
                f"divides {to_skip}, the number of steps made in the epoch. "
                f"Received: steps_per_execution={model.steps_per_execution}."
            )
        _build(model, self.dataset)
        # The epoch's first step creates the metrics' variables, so
        # `_skip_steps` restores them.
        state["metrics"] = _values_of_group(arrays, "metrics")
        groups = run_state.variable_groups(model)
        del groups["metrics"]
        values = {group: _values_of_group(arrays, group) for group in groups}
        for group, variables in groups.items():
            expected = [tuple(variable.shape) for variable in variables]
            received = [value.shape for value in values[group]]
            if expected != received:
                raise FileFormatError(
                    self.filepath,
                    f"{group} variables",
                    f"of shapes {expected}",
                    received,
                )
        for group, variables in groups.items():
            set_values(variables, values[group])
        super().set_state(state)
        # `freq` may differ from that of the interrupted run.
        self._schedule_after(step)
        for callback, saved in zip(
            self._earlier, state["callbacks"], strict=True
        ):
            run_state.set_callback_state(callback, saved)
        if self.dataset is not None:
            self.dataset.sampler.start_at(state["steps_before_epoch"])
        self._state = state
        self._saved_step = step
        epochs = self.params["epochs"]
        done = epoch >= epochs or (state["finished"] and state["stopped"])
        self._steps_to_skip = 0 if done else to_skip
        set_initial_epoch(model, max(epoch, epochs) if done else epoch)
        if self.verbose and is_main_process():
            what = "finished" if done else f"resuming in epoch {epoch + 1}"
            print(f"{self.filepath}: {what}, after {step} steps.")

    def _restore_after_begin(self, state: dict[str, Any]) -> None:
        """Restores what callbacks reset in `on_train_begin`."""
        self._state = None
        history = self.model.history
        history.history = state["history"]["history"]
        history.epoch = state["history"]["epoch"]
        if self._steps_to_skip:
            self._skip_steps(state)
        else:
            run_state.set_random_state(state["random"])

    def _skip_steps(self, state: dict[str, Any]) -> None:
        """Replaces the training function until all steps are skipped."""
        model = self.model
        logs = metrics_results(model, state["metrics"])
        self._mute()
        train_function = model.train_function

        def skip(*arguments: Any) -> Any:
            # JAX passes a state before the iterator.
            *jax_state, batches = arguments
            skipped = itertools.islice(batches, model.steps_per_execution)
            self._steps_to_skip -= sum(1 for _ in skipped)
            if self._steps_to_skip <= 0:
                model.train_function = train_function
                run_state.set_random_state(state["random"])
            return (logs, *jax_state) if jax_state else logs

        model.train_function = skip

    def _mute(self) -> None:
        """Keeps skipped steps from `callbacks`, which saw them before."""
        for callback in self.callbacks:
            attributes = vars(callback)
            # `LambdaCallback` has hooks of its own.
            own = {h: attributes[h] for h in _BATCH_HOOKS if h in attributes}
            self._muted.append((callback, own))
            attributes.update(dict.fromkeys(_BATCH_HOOKS, _ignore_batch))

    def _unmute(self) -> None:
        while self._muted:
            callback, own = self._muted.pop()
            for hook in _BATCH_HOOKS:
                del vars(callback)[hook]
            vars(callback).update(own)


def _ignore_batch(batch: int, logs: Logs | None = None) -> None:
    pass


def is_finished(filepath: str | os.PathLike[str]) -> bool:
    """Returns whether a file of `ResumableTraining` holds a finished run.

    Args:
        filepath: Path of the file.

    Raises:
        FileFormatError: If it is damaged, or another kind of file.
    """
    filepath = Path(filepath)
    _, facts = read_arrays(filepath)
    with parsing(filepath, "the state of a run"):
        return bool(facts["finished"])


def _build(model: Any, dataset: Any) -> None:
    """Creates the variables that TensorFlow creates in the first step."""
    if dataset is not None:
        size = dataset.sampler.batch_size
        batch = keras.tree.map_structure(
            lambda spec: np.zeros(
                (size, *spec.shape[1:]), spec.dtype.as_numpy_dtype
            ),
            dataset.element_spec,
        )
        build_symbolically(model, batch)
    if not model.built:
        raise ValueError(
            "`ResumableTraining` without `dataset` can only resume a built "
            "model. Received: a model without weights. Call it on a batch of "
            "images before `fit`."
        )
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _values_of_group(arrays: dict[str, Array], group: str) -> list[Array]:
    count = sum(name.startswith(f"{group}/") for name in arrays)
    return [arrays[f"{group}/{index}"] for index in range(count)]
