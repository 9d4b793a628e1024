"""Telling ink from paper."""

import numpy as np
import pytest
from scipy import ndimage

from keras_lenet.pictures.paper import grain, measure_ink, rises
from tests.helpers import once

pytestmark = once


def test_ink_rises_in_a_shadow_as_far_as_in_the_light():
    picture = np.full((60, 90, 1), 200.0)
    picture[10:50, [20, 70]] = 80
    picture[:, 45:] *= 0.4
    (rise,) = rises(picture, (-1,), 0.0)
    expected = np.zeros((60, 90))
    expected[10:50, [20, 70]] = 120
    np.testing.assert_allclose(rise, expected, atol=1e-9)


@pytest.mark.parametrize("deviation", [4, 8])
def test_grain_in_a_shadow_is_no_ink(deviation, generator):
    picture = np.full((200, 300, 1), 200.0)
    picture[:, 150:] = 50
    picture[80:120, 60:64] -= 120
    picture += generator.normal(0, deviation, picture.shape)
    noise = grain(picture)
    (rise,) = rises(picture, (-1,), noise)
    ink, full = measure_ink(rise, noise)
    assert full > 100
    assert (ink[80:120, 60:64] > 0.5).mean() > 0.9
    ink[80:120, 60:64] = 0
    assert (ink > 0.5).mean() < 0.001


def test_bright_ink_and_a_dark_table_rise_as_they_are():
    picture = np.full((60, 90, 1), 10.0)
    picture[20:40, 20] = 110
    # Four times the contrast, rather than twenty times.
    picture[:, 45:] = 200
    picture[20:40, 10] = 4
    dark, bright = rises(picture, (-1, 1), 0.0)
    assert bright[30, 20] == 100
    assert dark[30, 10] == 24


@pytest.mark.parametrize("order", ["C", "F"])
def test_paper_is_the_highest_minimum_over_all_paths(order, generator):
    # Between ridges, paths wind.
    ridges = abs(ndimage.gaussian_filter(generator.normal(0, 1, (50, 70)), 1))
    picture = np.pad(100 * ridges, 5, constant_values=100)
    paper = np.pad(np.zeros((58, 78)), 1, constant_values=100)
    before = None
    while not np.array_equal(paper, before):
        before = paper
        paper = np.minimum(ndimage.maximum_filter(paper, 3), picture)
    (rise,) = rises(
        np.asarray(picture[..., np.newaxis], order=order), (1,), 0.0
    )
    np.testing.assert_array_equal(rise, picture - paper)
    assert np.unique(paper).size > 10
