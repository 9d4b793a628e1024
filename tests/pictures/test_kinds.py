"""Kinds of pictures that people take, made from the embedded digits."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from keras_lenet import LeNet5
from keras_lenet.pictures import choose_image, prepare_character
from tests.helpers import once

pytestmark = once

COUNT = 50


@pytest.fixture(scope="module")
def preset():
    return LeNet5.from_preset("handwritten")


def on_paper(image, size=(220, 260), height=130):
    """Returns dark ink on white paper."""
    page = Image.new("L", size[::-1], 255)
    ink = Image.fromarray(255 - image[..., 0])
    ink = ink.resize((height, height), Image.Resampling.BICUBIC)
    page.paste(ink, ((size[1] - height) // 2, (size[0] - height) // 2))
    return page


def in_a_box(image):
    page = on_paper(image)
    ImageDraw.Draw(page).rectangle((14, 10, 245, 208), outline=40, width=5)
    return page


def in_a_box_with_margin(image):
    page = Image.new("L", (400, 340), 235)
    page.paste(in_a_box(image), (70, 60))
    return page


def on_a_line(image):
    page = on_paper(image, height=180)
    pen = ImageDraw.Draw(page)
    pen.line((0, 176, 260, 178), 40, 4)
    return page


def on_squared_paper(image):
    page = on_paper(image)
    pen = ImageDraw.Draw(page)
    for place in range(5, 260, 52):
        pen.line((place, 0, place, 220), 90, 2)
        pen.line((0, place, 260, place), 90, 2)
    return page


def tightly_cropped(image):
    rows, columns = np.nonzero(image[..., 0])
    crop = image[
        rows.min() : rows.max() + 1, columns.min() : columns.max() + 1, 0
    ]
    return Image.fromarray(255 - crop)


def in_few_pixels(image):
    page = Image.fromarray(255 - image[..., 0])
    return page.resize((18, 18), Image.Resampling.BOX)


def on_a_board(image):
    return Image.fromarray(255 - np.asarray(on_paper(image)) // 2)


def off_centre_in_28_pixels(image):
    field = np.zeros((28, 28), "uint8")
    small = Image.fromarray(image[..., 0]).resize((20, 20))
    field[:20, 8:] = np.asarray(small)
    return Image.fromarray(field)


def faint(image):
    return Image.fromarray(
        (230 - (255 - np.asarray(on_paper(image)).astype(int)) // 6).astype(
            "uint8"
        )
    )


@pytest.mark.parametrize(
    "picture",
    [
        on_paper,
        in_a_box,
        in_a_box_with_margin,
        on_a_line,
        on_squared_paper,
        tightly_cropped,
        in_few_pixels,
        on_a_board,
        off_centre_in_28_pixels,
        faint,
    ],
)
def test_digits_are_read_in_pictures_of_every_kind(picture, preset, digits):
    _, (images, labels) = digits
    seen = [
        choose_image(np.asarray(picture(image)), preset, threshold=0.8)
        for image in images[:COUNT]
    ]
    assert all(image is not None for image in seen)
    found = preset.predict(np.stack(seen), verbose=0).argmax(axis=1)
    assert np.mean(found == labels[:COUNT]) >= 0.8


def ring(width):
    page = Image.new("L", (200, 240), 245)
    ImageDraw.Draw(page).ellipse((50, 30, 150, 210), outline=60, width=width)
    return np.asarray(page)


@pytest.mark.parametrize("width", [2, 4, 8, 16, 24])
def test_the_paper_inside_a_ring_is_not_ink(width):
    image = prepare_character(ring(width))[..., 0]
    assert image[14, 14] == 0
    assert image[14].max() > 100


def test_a_printed_box_is_not_part_of_the_character(digits):
    (images, _), _ = digits
    for image in images[:20]:
        with_box = prepare_character(np.asarray(in_a_box(image)))
        without = prepare_character(np.asarray(on_paper(image)))
        difference = with_box.astype(int) - without
        assert abs(difference).mean() < 3


def test_preparing_a_prepared_character_changes_nothing(digits):
    (images, _), _ = digits
    prepared = [
        prepare_character(np.asarray(on_paper(image))) for image in images[:20]
    ]
    for image in prepared:
        np.testing.assert_array_equal(prepare_character(image[..., 0]), image)
        inverted = 255 - image[..., 0]
        np.testing.assert_array_equal(prepare_character(inverted), image)


def test_the_paper_inside_a_narrow_ring_is_not_ink():
    page = Image.new("L", (300, 300), 245)
    ImageDraw.Draw(page).ellipse((130, 90, 170, 210), outline=120, width=3)
    image = prepare_character(np.asarray(page))[..., 0]
    assert image[14, 14] == 0
    assert image[14].max() > 100


def test_a_card_on_a_dark_table_is_not_ink(digits):
    (images, _), _ = digits
    for image in images[:10]:
        card = np.asarray(on_paper(image, (150, 110), 140))
        table = np.full((300, 300), 40, "uint8")
        table[70:220, 90:200] = card
        difference = prepare_character(table).astype(int) - prepare_character(
            card
        )
        assert abs(difference).mean() < 25


# A 7 and a Z, whose strokes cover much of the border of a tight crop.
TIGHT = [
    [(0, 0), (40, 0), (12, 60)],
    [(0, 0), (40, 0), (0, 60), (40, 60)],
]


@pytest.mark.parametrize("strokes", TIGHT)
def test_a_margin_around_the_ink_makes_no_difference(strokes):
    page = Image.new("L", (100, 120), 250)
    path = [(x + 30, y + 30) for x, y in strokes]
    ImageDraw.Draw(page).line(path, 60, 6)
    small = page.resize((34, 40), Image.Resampling.BOX)
    pixels = np.asarray(small)
    rows, columns = np.nonzero(pixels < 170)
    tight = pixels[
        rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
    ]
    difference = prepare_character(tight).astype(int) - prepare_character(
        pixels
    )
    assert abs(difference).mean() < 30


def test_a_part_that_runs_out_of_the_picture_is_left_out(digits):
    (images, _), _ = digits
    for image in images[:10]:
        page = np.array(on_paper(image, (170, 200), 130))
        alone = prepare_character(page)
        page[60:110, 164:] = 40
        difference = prepare_character(page).astype(int) - alone
        assert abs(difference).mean() < 15
