"""The order of the examples in each epoch, and the batches they form."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lenet.types import Array

# Keras reads up to two batches to build a new model, before it trains.
_PEEKED_BATCHES = 2

Augment = Callable[[Array, np.random.Generator], Array]


class EpochSampler:
    """Assigns examples to batches, epoch after epoch.

    Args:
        count: Integer. The number of examples.
        batch_size: Integer.
        seed: Integer. Determines the order of each epoch.
        shuffle: Boolean. Whether to shuffle the examples.
        drop_remainder: Boolean. Whether to drop the last, smaller batch.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_remainder: bool = False,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_remainder = drop_remainder
        whole, rest = divmod(count, batch_size)
        self._sizes = [batch_size] * whole
        if rest and not drop_remainder:
            self._sizes.append(rest)
        self.num_batches: int = len(self._sizes)
        # The place in an epoch of the batch whose use counts the epoch.
        self.counting_batch = min(_PEEKED_BATCHES, self.num_batches - 1)
        # Batches are numbered across epochs: the second epoch begins with
        # batch `num_batches`.
        self.next_batch = 0

    def start_at(self, batch: int) -> None:
        """Sets the first batch of the next epoch.

        If `batch` is in the middle of an epoch, the next epoch consists of the
        rest of that epoch and the beginning of the one after it.
        """
        self.next_batch = batch

    def next_epoch(self) -> tuple[Any, Array, Array]:
        """Returns the next epoch, in the form of `epoch_from`."""
        return self.epoch_from(self.next_batch)

    def count_epoch(self, first: int) -> None:
        """Makes the next epoch the one after that which starts at `first`."""
        self.next_batch = max(self.next_batch, first + self.num_batches)

    def epoch_from(self, first: int) -> tuple[Any, Array, Array]:
        """Returns the epoch that starts at batch `first`.

        Returns:
            Tuple of the number of the first batch, the indices of the
            examples, and the offsets at which batches begin and end.
        """
        epoch, batch = divmod(first, self.num_batches)
        sizes = self._sizes[batch:] + self._sizes[:batch]
        offsets = np.cumsum([0, *sizes], dtype="int64")
        indices = self._order(epoch)[: sum(self._sizes)]
        if batch:
            start = batch * self.batch_size
            next_indices = self._order(epoch + 1)[:start]
            indices = np.concatenate([indices[start:], next_indices])
        return np.int64(first), indices, offsets

    def _order(self, epoch: int) -> Array:
        if not self.shuffle:
            return np.arange(self.count)
        # Philox is keyed, so an epoch's order does not depend on the epochs
        # before it. NumPy keeps the bits of its bit generators stable, but not
        # the result of `Generator.permutation`.
        key = np.array([self.seed, epoch], "uint64")
        bits = np.random.Philox(key=key).random_raw(self.count)
        return np.argsort(bits, kind="stable")


def gather(
    arrays: tuple[Array, ...],
    indices: Array,
    seed: int,
    batch: int,
    augment: Augment | None,
) -> tuple[Array, ...]:
    """Returns one batch, whose number decides how its images are augmented."""
    images, *others = (array[indices] for array in arrays)
    if augment is None:
        return images, *others
    # The counter keeps this stream away from the one that orders examples.
    key = np.array([seed, batch], "uint64")
    stream = np.random.Philox(key=key, counter=[0, 0, 0, 1])
    augmented = np.asarray(augment(images, np.random.Generator(stream)))
    if (augmented.shape, augmented.dtype) != (images.shape, images.dtype):
        raise ValueError(
            "`augment` must return images of the shape and dtype that it "
            f"receives, {images.shape} and {images.dtype}. "
            f"Received: {augmented.shape} and {augmented.dtype}."
        )
    return augmented, *others
