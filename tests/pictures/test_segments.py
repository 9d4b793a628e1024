"""Finding what may be a digit in a picture of several."""

import numpy as np
import pytest
from strings import as_picture, place_digits

from keras_lenet.pictures.segments import count_parts, find_candidates
from tests.helpers import once

pytestmark = once


@pytest.fixture
def row(digits, generator):
    """Returns a picture of four digits that overlap, and the ink of each."""
    _, (images, _) = digits
    chosen = generator.integers(0, len(images), 4)
    layers = place_digits(images[chosen], -2).repeat(2, 1).repeat(2, 2)
    picture = as_picture(layers, 0, generator)[..., np.newaxis]
    return picture.astype("float32"), layers > 115


def test_a_candidate_has_nearly_the_ink_of_each_touching_digit(row):
    picture, inks = row
    (candidates,) = find_candidates(picture)
    for ink in inks:
        shared = []
        for candidate in candidates:
            inside = ink[candidate.box] & (candidate.ink > 0.5)
            both = ink.sum() + (candidate.ink > 0.5).sum() - inside.sum()
            shared.append(inside.sum() / both)
        assert max(shared) > 0.6


def test_the_single_pieces_of_a_row_have_all_its_ink_once(row):
    picture, inks = row
    (candidates,) = find_candidates(picture)
    covered = np.zeros(inks.shape[1:], int)
    for candidate in candidates:
        if candidate.stop == candidate.start + 1:
            covered[candidate.box] += candidate.ink > 0.5
    assert covered.max() == 1
    assert covered[inks.any(axis=0)].mean() > 0.97


def test_candidates_lead_from_the_first_piece_to_the_last(row):
    (candidates,) = find_candidates(row[0])
    reached = {0}
    for candidate in sorted(candidates, key=lambda c: c[:2]):
        if candidate.start in reached:
            reached.add(candidate.stop)
    last = max(candidate.stop for candidate in candidates)
    assert reached == set(range(last + 1))


def test_parts_that_do_not_touch_are_joined_only_as_a_whole(digits):
    _, (images, _) = digits
    layers = place_digits(images[:2], 3).repeat(2, 1).repeat(2, 2)
    picture = as_picture(layers, 0, np.random.default_rng(0))
    (candidates,) = find_candidates(picture[..., np.newaxis].astype("float32"))
    apart = [candidate for candidate in candidates if candidate.is_apart]
    ends = (0, max(candidate.stop for candidate in candidates))
    assert {(c.start, c.stop) for c in apart} <= {ends}


def test_parts_of_similar_height_are_counted(digits):
    _, (images, _) = digits
    layers = place_digits(images[:3], 12)
    picture = as_picture(layers, 0, np.random.default_rng(0))
    assert count_parts(picture[..., np.newaxis].astype("float32")) == 3
    assert count_parts(np.full((40, 90, 1), 250, "float32")) == 0
