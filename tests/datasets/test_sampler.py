import itertools

import pytest

from keras_lenet.datasets.sampler import EpochSampler


def test_the_order_has_not_changed_since_it_was_published():
    sampler = EpochSampler(8, 8, seed=98, shuffle=True)
    assert sampler.next_epoch()[1].tolist() == [5, 3, 2, 0, 7, 4, 1, 6]
    sampler.count_epoch(0)
    assert sampler.next_epoch()[1].tolist() == [1, 6, 5, 4, 0, 3, 7, 2]


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_an_epoch_may_start_in_the_middle_of_another(drop_remainder):
    def batches(first, count):
        found = []
        sampler = EpochSampler(23, 5, 7, True, drop_remainder)
        sampler.start_at(first)
        for _ in range(count):
            number, indices, offsets = sampler.next_epoch()
            sampler.count_epoch(number)
            assert number == first + len(found)
            found += [
                indices[start:end].tolist()
                for start, end in itertools.pairwise(offsets)
            ]
        return found

    several = batches(0, 3)
    count = len(several) // 3
    assert batches(2, 2) == several[2 : 2 + 2 * count]
