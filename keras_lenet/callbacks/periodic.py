"""The base class of callbacks that run every few steps."""

import itertools
import logging
import math
import warnings
import weakref
from collections import deque
from typing import Any, ClassVar

import keras

from keras_lenet.callbacks.isolation import get_values
from keras_lenet.types import Logs
from keras_lenet.validation.arguments import is_positive_integer

_numbers = itertools.count()


class PeriodicCallback(keras.callbacks.Callback):
    """Calls `look` every `freq` training steps or at the end of every epoch.

    A due step is noticed before the step that follows it, with integer
    arithmetic alone, because any use of the model makes JAX put its state
    back into the model. With `steps_per_execution` above 1, a look comes at
    the first chance at or after a multiple of `freq`.
    """

    # Reading the logs at the end of every batch would make the accelerator
    # wait, so Keras stops running ahead for callbacks that do more there than
    # nothing. This one only counts.
    async_safe = True
    # So several steps may be made in one execution, if they divide `freq`.
    acts_only_at_freq = True
    # All there are, by the order in which they were made. Among them
    # `ResumableTraining` finds those of its `fit`.
    instances: ClassVar[weakref.WeakValueDictionary[int, Any]] = (
        weakref.WeakValueDictionary()
    )

    def __init__(self, freq: int | str, strict: bool = False) -> None:
        super().__init__()
        if freq != "epoch" and not is_positive_integer(freq):
            raise ValueError(
                "`freq` must be a positive number of training steps, or "
                f"'epoch'. Received: freq={freq!r}"
            )
        self.freq = freq if isinstance(freq, str) else int(freq)
        self.strict = strict
        self.instances[next(_numbers)] = self

    @classmethod
    def of_fit(cls, params: Any) -> list[Any]:
        """Returns the callbacks of this class in the `fit` of `params`.

        Keras gives one object of parameters to all callbacks of a `fit`.
        """
        if params is None:
            return []
        return [
            callback
            for _, callback in sorted(cls.instances.items())
            if isinstance(callback, cls) and callback.params is params
        ]

    def on_interval(self, step: int, epoch: int) -> None:
        """Looks at `self.model` after `step` steps, in epoch `epoch`."""
        raise NotImplementedError

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._steps_before_epoch = 0
        self._updates_before = _count_updates(self.model)
        self._next_step: float = math.inf
        if isinstance(self.freq, int):
            self._next_step = self.freq
        self._epoch = 0
        self._warned = False

    def get_state(self) -> dict[str, Any]:
        """Returns what goes on when an interrupted training is resumed."""
        return {
            "steps_before_epoch": self._steps_before_epoch,
            "updates_before": self._updates_before,
            "next_step": self._next_step,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes over what `get_state` returned, after `on_train_begin`."""
        self._steps_before_epoch = state["steps_before_epoch"]
        self._updates_before = state["updates_before"]
        self._next_step = state["next_step"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch
        # Keras may call `on_train_batch_end` from several threads, and to
        # append to this is one atomic operation. In an odd order, though, and
        # after an interrupted training with batches of that.
        self._ended: deque[int] = deque([-1], maxlen=100)

    def on_train_batch_begin(
        self, batch: int, logs: Logs | None = None
    ) -> None:
        self._run_if_due(self._steps_before_epoch + batch)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._ended.append(batch)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        model = self.model
        if model.steps_per_execution == 1:
            self._steps_before_epoch += max(self._ended) + 1
        else:
            # The last execution of an epoch may have had fewer steps than the
            # others, which only the optimizer has counted.
            updates = _count_updates(model) - self._updates_before
            per_update = model.optimizer.gradient_accumulation_steps or 1
            self._steps_before_epoch = updates * per_update
        if self.freq == "epoch":
            self._run_on_interval(self._steps_before_epoch)
        else:
            self._run_if_due(self._steps_before_epoch)

    def _run_if_due(self, step: int) -> None:
        # Batches move by `steps_per_execution` and can jump over a multiple
        # of `freq`, so compare with a threshold, not a remainder.
        if step >= self._next_step:
            self._next_step = math.inf
            if isinstance(self.freq, int):
                self._next_step = (step // self.freq + 1) * self.freq
            self._run_on_interval(step)

    def _run_on_interval(self, step: int) -> None:
        """Looks, and does not let an error end the training."""
        try:
            self.on_interval(step, self._epoch)
        except Exception as error:
            if self.strict:
                if _ends_data(error):
                    # Keras would take it for the end of the epoch.
                    raise RuntimeError(f"at step {step}: {error!r}") from error
                raise
            if not self._warned:
                self._warned = True
                warn_of_failure(
                    f"{type(self).__name__} failed at step {step}", error
                )


def warn_of_failure(what: str, error: Exception) -> None:
    """Says, and logs with its traceback, an error that ends no training."""
    logging.getLogger(__name__).exception(what)
    warnings.warn(
        f"{what}: {error!r}. Training goes on, and it is tried again when due; "
        "this is said only once. `strict=True` raises the error.",
        RuntimeWarning,
        stacklevel=3,
    )


def _ends_data(error: Exception) -> bool:
    # TensorFlow's error is known by name, where TensorFlow may be missing.
    return (
        isinstance(error, StopIteration)
        or type(error).__name__ == "OutOfRangeError"
    )


def _count_updates(model: Any) -> int:
    # With a distribution strategy of TensorFlow there is no `int` of it.
    return int(get_values([model.optimizer.iterations])[0])
