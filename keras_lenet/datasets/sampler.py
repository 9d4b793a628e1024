"""Which examples are in which batch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lenet.types import Array

Augment = Callable[[Array, np.random.Generator], Array]


def gather(
    arrays: tuple[Array, ...],
    indices: Array,
    seed: int,
    number: int,
    augment: Augment | None,
) -> tuple[Array, ...]:
    """Returns one batch.

    Args:
        arrays: Tuple of arrays.
        indices: Array of integers. Which examples are in the batch.
        seed: Integer, which decides what `augment` draws.
        number: Integer. The number of the batch, from the first epoch on.
        augment: Callable, as for `image_dataset_from_array`, or `None`.

    Returns:
        Tuple of arrays.
    """
    first, *others = (array[indices] for array in arrays)
    if augment is not None:
        first = _augmented(augment, first, seed, number)
    return first, *others


class EpochSampler:
    """Which examples are in which batch, pass by pass, on and on.

    Args:
        count: Integer. How many examples there are.
        batch_size: Integer.
        seed: Integer, which decides the orders.
        shuffle: Boolean. Whether there are orders, or only that of the
            examples.
        drop_remainder: Boolean. Whether to leave out what does not fill a
            batch, which differs from pass to pass.
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
        self.num_batches = len(self._sizes)
        # Counted from the first epoch.
        self.next_batch = 0

    def start_at(self, batch: int) -> None:
        """Lets the next pass begin with a batch, counted from the first pass.

        In the middle of a pass, as many batches as a pass has are taken from
        this and the next.
        """
        self.next_batch = batch

    def next_pass(self) -> tuple[Any, Array, Array]:
        """Returns what batches the next pass has.

        Returns:
            The number of its first batch, counted from the first pass, the
            indices of its examples, and where in them each batch begins.
        """
        found = self.epoch_from(self.next_batch)
        self.next_batch += self.num_batches
        return found

    def epoch_from(self, first: int) -> tuple[Any, Array, Array]:
        """Returns what `next_pass` does, for a pass that begins at a batch."""
        number, batch = divmod(first, self.num_batches)
        sizes = self._sizes[batch:] + self._sizes[:batch]
        bounds = np.cumsum([0, *sizes], dtype="int64")
        indices = self._examples(number)[: sum(self._sizes)]
        if batch:
            at = batch * self.batch_size
            after = self._examples(number + 1)[:at]
            indices = np.concatenate([indices[at:], after])
        return np.int64(first), indices, bounds

    def _examples(self, number: int) -> Array:
        if not self.shuffle:
            return np.arange(self.count)
        return _permutation(self.count, self.seed, number)


def _permutation(count: int, seed: int, epoch: int) -> Array:
    # Philox is a function of a key, so an epoch's order can be had without
    # those before it. NumPy promises to keep the bits of its bit generators,
    # but not what `Generator.permutation` makes of them.
    key = np.array([seed, epoch], "uint64")
    return np.argsort(
        np.random.Philox(key=key).random_raw(count), kind="stable"
    )


def _augmented(
    augment: Augment, images: Array, seed: int, number: int
) -> Array:
    # A stream of the key of `_permutation` that is far from its beginning.
    key = np.array([seed, number], "uint64")
    stream = np.random.Philox(key=key, counter=[0, 0, 0, 1])
    augmented = np.asarray(augment(images, np.random.Generator(stream)))
    if (augmented.shape, augmented.dtype) != (images.shape, images.dtype):
        raise ValueError(
            "`augment` must return images of the shape and dtype that it "
            f"got, {images.shape} and {images.dtype}. "
            f"Received: {augmented.shape} and {augmented.dtype}."
        )
    return augmented
