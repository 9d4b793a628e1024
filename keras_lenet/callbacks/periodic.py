"""The base classes of the callbacks."""

import itertools
import logging
import math
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import keras

from keras_lenet.callbacks.isolation import get_values
from keras_lenet.keras_internals import step_counter
from keras_lenet.types import Logs
from keras_lenet.validation.arguments import is_positive_integer

_numbers = itertools.count()


class TolerantCallback(keras.callbacks.Callback):
    """Warns of its first error in a run, or raises it if `strict` is true."""

    # All instances in the order of their creation. `of_fit` searches them.
    instances: ClassVar[weakref.WeakValueDictionary[int, Any]] = (
        weakref.WeakValueDictionary()
    )

    def __init__(self, strict: bool) -> None:
        super().__init__()
        self.strict = strict
        self.instances[next(_numbers)] = self

    @classmethod
    def of_fit(cls, params: Any) -> list[Any]:
        """Returns the callbacks of this class in the `fit` with `params`.

        Callbacks use it to find each other.
        """
        # Keras passes the same `params` object to all callbacks of a `fit`.
        return [
            callback
            for _, callback in sorted(cls.instances.items())
            if isinstance(callback, cls)
            and params is not None
            and callback.params is params
        ]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._warned = False

    def _attempt(
        self, when: str, action: Callable[..., None], *arguments: Any
    ) -> None:
        try:
            action(*arguments)
        except Exception as error:
            # A strict tracker may fail inside another callback's action.
            if self.strict or getattr(error, "ends_run", False):
                vars(error)["ends_run"] = True
                # Keras would take these errors for the end of the data.
                # TensorFlow may be missing, so compare its error's name.
                if (
                    isinstance(error, StopIteration)
                    or type(error).__name__ == "OutOfRangeError"
                ):
                    failure = RuntimeError(f"{when}: {error!r}")
                    vars(failure)["ends_run"] = True
                    raise failure from error
                raise
            if not self._warned:
                self._warned = True
                text = f"{type(self).__name__} failed {when}"
                logging.getLogger(__name__).exception(text)
                warnings.warn(
                    f"{text}: {error!r}. The run continues, and the "
                    "callback tries again when it is next due. Later failures "
                    "are not reported. Set `strict=True` to raise the error.",
                    RuntimeWarning,
                    stacklevel=3,
                )


class StatefulCallback(TolerantCallback):
    """A callback whose state belongs to the run, so that it can be resumed."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._updates_before = _read_step_counter(self.model)

    def get_state(self) -> dict[str, Any]:
        """Returns the state that a resumed run continues with."""
        return {"updates_before": self._updates_before}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, after `on_train_begin`."""
        self._updates_before = state["updates_before"]

    def _count_steps(self) -> int:
        """Returns the steps of the run so far, as the optimizer counts them."""
        return _read_step_counter(self.model) - self._updates_before


class PeriodicCallback(StatefulCallback):
    """Calls `on_interval` every `freq` training steps or after every epoch.

    It runs before the next step begins. It detects a due step with integer
    arithmetic alone, because any use of the model makes JAX put its state back
    into the model. With `steps_per_execution` above 1, it runs at the first
    opportunity at or after a multiple of `freq`.
    """

    # Keras runs ahead of the accelerator unless a callback overrides
    # `on_train_batch_end`. Counting batches there does not read the logs, so
    # it need not wait.
    async_safe = True
    # Lets `LeNet5.fit` make several steps in one execution if they divide
    # `freq`.
    acts_only_at_freq = True

    def __init__(self, freq: int | str, strict: bool = False) -> None:
        super().__init__(strict)
        if freq != "epoch" and not is_positive_integer(freq):
            raise ValueError(
                "`freq` must be a positive number of training steps, or "
                f"'epoch'. Received: freq={freq!r}"
            )
        self.freq: int | str = freq if isinstance(freq, str) else int(freq)

    def on_interval(self, step: int, epoch: int) -> None:
        """Acts on `self.model` after `step` steps, in epoch `epoch`."""
        raise NotImplementedError

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._steps_before_epoch = 0
        self._epoch = 0
        self._schedule_after(0)

    def get_state(self) -> dict[str, Any]:
        return {
            **super().get_state(),
            "steps_before_epoch": self._steps_before_epoch,
            "next_step": self._next_step,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._steps_before_epoch = state["steps_before_epoch"]
        self._next_step = state["next_step"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        # Keras may call `on_train_batch_end` from several threads; `append`
        # is atomic. Batches may arrive out of order, and may include
        # leftovers from an interrupted run.
        self._ended: deque[int] = deque([-1], maxlen=100)

    def on_train_batch_begin(
        self, batch: int, logs: Logs | None = None
    ) -> None:
        self._run_if_due(self._steps_before_epoch + batch)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._ended.append(batch)

    @property
    def made_steps(self) -> bool:
        """Whether the epoch has made a step."""
        return max(self._ended) >= 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        model = self.model
        if model.steps_per_execution == 1:
            self._steps_before_epoch += max(self._ended) + 1
        else:
            # An epoch's last execution may make fewer steps than the others.
            # Only the optimizer counts them.
            self._steps_before_epoch = self._count_steps()
        if self.freq == "epoch":
            self._run_on_interval(self._steps_before_epoch)
        else:
            self._run_if_due(self._steps_before_epoch)

    def _schedule_after(self, step: int) -> None:
        self._next_step = math.inf
        if isinstance(self.freq, int):
            self._next_step = (step // self.freq + 1) * self.freq

    def _run_if_due(self, step: int) -> None:
        # `batch` moves by `steps_per_execution` and can jump over a multiple
        # of `freq`, so compare with a threshold, not a remainder.
        if step >= self._next_step:
            self._schedule_after(step)
            self._run_on_interval(step)

    def _run_on_interval(self, step: int) -> None:
        self._attempt(f"at step {step}", self.on_interval, step, self._epoch)


def _read_step_counter(model: Any) -> int:
    # `int(variable)` fails inside a TensorFlow distribution strategy.
    return int(get_values([step_counter(model.optimizer)])[0])
