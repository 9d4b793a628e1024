"""Reading several digits in a picture."""

import numpy as np
import pytest
from strings import as_picture, place_digits

from keras_lenet import LeNet5
from keras_lenet.pictures import has_several_parts, read_digits
from tests.helpers import once

pytestmark = once


@pytest.fixture(scope="module")
def preset():
    return LeNet5.from_preset("handwritten")


def in_a_row(images, gap):
    """Returns dark digits with a gap of some pixels between their ink."""
    return as_picture(place_digits(images, gap), 0, np.random.default_rng(98))


def texts(rows):
    return ["".join(str(digit.label) for digit in row) for row in rows]


@pytest.mark.parametrize("gap", [12, 3, 0])
def test_rows_of_digits_are_read(gap, preset, digits):
    _, (images, labels) = digits
    right = 0
    for start in range(0, 100, 5):
        part = slice(start, start + 5)
        rows = read_digits(in_a_row(images[part], gap), preset)
        right += texts(rows) == ["".join(map(str, labels[part]))]
    assert right >= 17


def test_digits_in_a_shadow_are_read(preset, digits):
    _, (images, labels) = digits
    right = 0
    for start in range(0, 40, 4):
        # The edge of the shadow lies between the second and the third digit.
        part = slice(start, start + 4)
        layers = place_digits(images[part], 12)
        picture = as_picture(layers, 0, np.random.default_rng(98), light=0.4)
        rows = read_digits(picture, preset)
        assert [len(row) for row in rows] == [4]
        right += texts(rows) == ["".join(map(str, labels[part]))]
    assert right >= 7


def test_a_row_that_leans_is_read_and_boxed_where_it_is(preset, digits):
    _, (images, labels) = digits
    right = 0
    for start in range(0, 50, 5):
        part = slice(start, start + 5)
        layers = place_digits(images[part], 5, slant=0.4)
        picture = as_picture(layers, 0, np.random.default_rng(98))
        rows = read_digits(picture, preset)
        if texts(rows) != ["".join(map(str, labels[part]))]:
            continue
        right += 1
        for digit, layer in zip(rows[0], layers, strict=True):
            top, left, bottom, right_side = digit.box
            inside = layer[top:bottom, left:right_side]
            assert inside.sum() > 0.9 * layer.sum()
            assert right_side - left < 1.5 * np.ptp(np.nonzero(layer)[1])
    assert right >= 8


def test_rows_are_read_from_top_to_bottom(preset, digits):
    (images, labels), _ = digits
    first, second = in_a_row(images[:4], 10), in_a_row(images[4:8], 10)
    width = max(first.shape[1], second.shape[1])
    page = np.full((100, width), 255, "uint8")
    page[: first.shape[0], : first.shape[1]] = first
    page[56:100, : second.shape[1]] = second
    expected = ["".join(map(str, labels[a : a + 4])) for a in (0, 4)]
    assert texts(read_digits(page, preset)) == expected


def test_boxes_surround_the_ink_in_pixels_of_the_picture(preset, digits):
    (images, _), _ = digits
    row = in_a_row(images[:3], 14)
    large = np.kron(row, np.ones((3, 3), "uint8"))
    (found,) = read_digits(large, preset)
    assert len(found) == 3
    for digit in found:
        top, left, bottom, right = digit.box
        assert 0 <= digit.probability <= 1
        ink = large < 128
        inside = ink[top:bottom, left:right]
        assert inside.any(0)[2:-2].any() and inside.any(1)[2:-2].all()
    boxes = [digit.box for digit in found]
    covered = np.zeros_like(large, bool)
    for top, left, bottom, right in boxes:
        covered[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3] = 1
    assert covered[large < 100].all()
    assert boxes == sorted(boxes, key=lambda box: box[1])


def test_blank_paper_has_no_digits(preset):
    assert read_digits(np.full((40, 90, 3), 250, "uint8"), preset) == []


def test_a_row_has_several_parts_and_a_digit_has_one(digits):
    (images, _), _ = digits
    assert has_several_parts(in_a_row(images[:3], 8))
    assert not has_several_parts(np.full((40, 90), 255, "uint8"))


def test_no_random_picture_raises_an_error(generator, preset):
    for _ in range(20):
        size = generator.integers(1, 60, 2)
        picture = generator.integers(0, 256, (*size, 3)).astype("uint8")
        read_digits(picture, preset)


def test_an_array_that_is_not_a_picture_is_rejected(preset):
    with pytest.raises(ValueError, match="`picture` must be uint8"):
        read_digits(np.zeros((9, 9)), preset)
