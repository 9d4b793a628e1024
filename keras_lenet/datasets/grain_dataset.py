"""Batches of arrays as a Grain dataset."""

from typing import Any

import grain

from keras_lenet.datasets.sampler import Augment, EpochSampler, gather
from keras_lenet.types import Array


class BatchDataset(grain.IterDataset):
    """Yields tuples of batches of what is in the arrays.

    Args:
        arrays: Tuple of arrays of the same length.
        sampler: A `EpochSampler`, which decides the batches.
        augment: Callable, as for `image_dataset_from_array`, called with the
            batches of the first array.
    """

    def __init__(
        self,
        arrays: tuple[Array, ...],
        sampler: EpochSampler,
        augment: Augment | None,
    ) -> None:
        super().__init__()
        self._arrays = arrays
        self._order = sampler
        self._augment = augment

    def __iter__(self) -> "_BatchIterator":
        return _BatchIterator(self._arrays, self._order, self._augment)


class _BatchIterator(grain.DatasetIterator):
    """Yields the batches of one epoch.

    An epoch counts once it has run to its end, since Keras looks at the first
    batches before it trains.
    """

    def __init__(
        self,
        arrays: tuple[Array, ...],
        order: EpochSampler,
        augment: Augment | None,
    ) -> None:
        super().__init__()
        self._arrays = arrays
        self._order = order
        self._augment = augment
        self._start_epoch(order.next_batch)

    def _start_epoch(self, first: int) -> None:
        self._first, self._indices, self._bounds = self._order.epoch_from(first)
        self._taken = 0

    def __next__(self) -> tuple[Array, ...]:
        number = int(self._first) + self._taken
        if self._taken == self._order.num_batches:
            self._order.start_at(max(self._order.next_batch, number))
            raise StopIteration
        start, end = self._bounds[self._taken : self._taken + 2]
        self._taken += 1
        return gather(
            self._arrays,
            self._indices[start:end],
            self._order.seed,
            number,
            self._augment,
        )

    def get_state(self) -> dict[str, Any]:
        return {"first": int(self._first), "taken": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        self._start_epoch(state["first"])
        self._taken = state["taken"]
