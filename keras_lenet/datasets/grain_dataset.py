"""Batches of arrays as a Grain dataset."""

from typing import Any

import grain

from keras_lenet.datasets.sampler import Augment, EpochSampler, gather
from keras_lenet.types import Array


class BatchDataset(grain.IterDataset):
    """Yields the batches that `sampler` selects from `arrays`."""

    def __init__(
        self,
        arrays: tuple[Array, ...],
        sampler: EpochSampler,
        augment: Augment | None,
    ) -> None:
        super().__init__()
        self._arguments = arrays, sampler, augment

    def __iter__(self) -> "_BatchIterator":
        return _BatchIterator(*self._arguments)


class _BatchIterator(grain.DatasetIterator):
    """Yields one epoch, which counts as in `image_dataset_from_array`."""

    def __init__(
        self,
        arrays: tuple[Array, ...],
        sampler: EpochSampler,
        augment: Augment | None,
    ) -> None:
        super().__init__()
        self._arrays = arrays
        self._sampler = sampler
        self._augment = augment
        self.set_state({"first": sampler.next_batch, "taken": 0})

    def __next__(self) -> tuple[Array, ...]:
        batch = self._first + self._taken
        if self._taken == self._sampler.num_batches:
            raise StopIteration
        if self._taken >= self._sampler.counting_batch:
            self._sampler.count_epoch(self._first)
        start, end = self._offsets[self._taken : self._taken + 2]
        self._taken += 1
        return gather(
            self._arrays,
            self._indices[start:end],
            self._sampler.seed,
            batch,
            self._augment,
        )

    def get_state(self) -> dict[str, Any]:
        return {"first": self._first, "taken": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        self._first, self._taken = int(state["first"]), state["taken"]
        _, self._indices, self._offsets = self._sampler.epoch_from(self._first)
