import numpy as np
import pytest
from environment import once
from photographs import photograph
from PIL import Image

from keras_lenet import LeNet5, datasets
from keras_lenet.pictures import fit_colour, load_picture, prepare_character

# Pictures are read without Keras.
pytestmark = once


def bar(height=200, width=300, ink=30, paper=220):
    """A picture of a standing bar, off the middle."""
    picture = np.full((height, width), paper, "uint8")
    picture[40:140, 200:212] = ink
    return picture


def seen(picture):
    image = prepare_character(picture)
    assert image.shape == (28, 28, 1) and image.dtype == np.uint8
    return image[..., 0].astype("float64")


# A 20 pixels high bar in the middle.
def check_bar(image):
    rows = np.flatnonzero(image.max(axis=1) > 127)
    columns = np.flatnonzero(image.max(axis=0) > 127)
    assert (rows[0], rows[-1]) == (4, 23)
    assert 2 <= len(columns) <= 3 and 12 <= columns[0] <= columns[-1] <= 15
    assert image.max() == 255 and image[:, :10].max() == 0


@pytest.mark.parametrize(("ink", "paper"), [(30, 220), (220, 30), (110, 150)])
def test_a_character_fills_20_pixels_about_its_centre_of_mass(ink, paper):
    check_bar(seen(bar(ink=ink, paper=paper)))


@pytest.mark.parametrize("factor", [1, 2, 7])
def test_size_makes_no_difference(factor):
    check_bar(seen(np.kron(bar(), np.ones((factor, factor), "uint8"))))


def test_ink_may_be_as_bright_as_the_paper_but_of_another_colour():
    written = bar(ink=1, paper=0).astype(bool)[..., np.newaxis]
    # Red on green, both (299 r + 587 g + 114 b) / 1000 = 90.
    picture = np.where(written, [255, 0, 121], [40, 133, 0]).astype("uint8")
    check_bar(seen(picture))


def test_light_may_be_uneven():
    light = np.linspace(1, 0.4, 300) * np.linspace(0.8, 1, 200)[:, np.newaxis]
    # At one side paper is darker than ink at the other.
    picture = bar(ink=120) * light
    check_bar(seen(picture.astype("uint8")))


def test_noise_specks_and_the_edge_of_the_table_are_no_ink(generator):
    picture = bar().astype("float64")
    picture[:, :12] = 20
    picture[170:173, 60:63] = 30
    picture += generator.normal(0, 8, picture.shape)
    check_bar(seen(np.clip(picture, 0, 255).astype("uint8")))


def lined(picture):
    picture[20::30] = np.minimum(picture[20::30], 160)
    return picture


def shaded(picture):
    rows, columns = np.indices(picture.shape)
    return np.where(rows > 0.5 * columns, picture // 2, picture)


def on_a_table(picture, colour):
    return np.pad(picture, ((9, 20), (30, 15)), constant_values=colour)


@pytest.mark.parametrize(
    "picture",
    [
        lined(bar()),
        shaded(bar()),
        on_a_table(bar(), 90),
        on_a_table(bar(), 255),
        on_a_table(bar(ink=220, paper=30), 90),
        on_a_table(bar(height=160, width=240), 90)[:, 30:],
        bar()[40:140, 150:],
        bar()[38:142, 198:214],
    ],
    ids=lambda picture: "x".join(map(str, picture.shape)),
)
def test_lines_shadows_tables_and_close_crops_make_no_difference(picture):
    check_bar(seen(picture))


def test_what_is_within_a_zero_is_paper():
    y, x = np.indices((200, 160)) - np.reshape([100, 80], (2, 1, 1))
    far = np.hypot(y / 1.3, x)
    picture = np.where((40 < far) & (far < 60), 30, 220).astype("uint8")
    image = seen(picture)
    assert image[14, 14] == 0 and image[14].max() == 255


def test_parts_that_are_apart_stay_together():
    picture = bar()
    picture[40:140, 230:242] = 30
    columns = np.flatnonzero(seen(picture).max(axis=0) > 127)
    assert columns[-1] - columns[0] >= 7


def test_thin_strokes_become_as_wide_as_those_of_mnist():
    picture = np.full((400, 400), 255, "uint8")
    picture[50:350, 100:102] = 0
    picture[348:350, 100:300] = 0
    image = seen(picture)
    # Across both strokes there is at least one whole pixel.
    assert np.median(image[6:20].max(axis=1)) > 200
    assert np.median(image[6:20].sum(axis=1)) > 1.2 * 255


@pytest.mark.parametrize("dark", [True, False])
def test_a_picture_of_the_size_stays_as_it_is(dark, generator):
    digit = np.zeros((28, 28), "uint8")
    digit[5:20, 9:14] = generator.integers(1, 256, (15, 5))
    picture = 255 - digit if dark else digit
    np.testing.assert_array_equal(prepare_character(picture)[..., 0], digit)


@pytest.mark.parametrize("size", [(300, 400), (28, 28), (1, 1), (1, 900)])
def test_blank_paper_has_no_ink(size, generator):
    assert prepare_character(np.full(size, 200, "uint8")) is None
    light = np.linspace(0.6, 1, size[1]) if size[0] > 28 else 1
    noise = generator.normal(200, 1.5, (*size, 3)) * np.reshape(light, (-1, 1))
    assert prepare_character(noise.astype("uint8")) is None


def test_any_picture_at_all_has_an_answer(generator):
    for _ in range(100):
        size = generator.integers(1, 60, 2)
        picture = generator.integers(0, 256, (*size, 3)).astype("uint8")
        image = prepare_character(picture)
        assert image is None or image.shape == (28, 28, 1)


def test_models_that_are_not_square_get_characters_that_fit():
    rows, columns = np.nonzero(prepare_character(bar(), (28, 16))[..., 0])
    assert rows.max() - rows.min() < 20 * 16 / 28 + 1
    assert 0 < columns.min() and columns.max() < 15


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((0, 4), "uint8"),
        np.zeros(4, "uint8"),
        np.zeros((9, 9), "float32"),
    ],
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(ValueError, match="`picture` must be uint8 of shape"):
        prepare_character(picture)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_pictures_of_all_modes_are_read(mode, tmp_path):
    if mode == "I;16":
        image = Image.fromarray(bar().astype("uint16") * 257)
    else:
        image = Image.fromarray(bar()).convert(mode)
    image.save(tmp_path / "picture.png")
    picture = load_picture(tmp_path / "picture.png")
    assert picture.shape == (200, 300, 3)
    expected = bar()
    if mode == "1":
        expected = np.where(expected > 127, 255, 0)
    if mode in ("1", "P"):
        # What has fewer colours is dithered.
        assert abs(picture[..., 0] - expected.astype(int)).mean() < 40
    else:
        np.testing.assert_array_equal(picture[..., 0], expected)


def test_what_is_transparent_is_on_white(tmp_path):
    written = bar(ink=255, paper=0)
    pixels = np.dstack([0 * written, 0 * written, 0 * written, written])
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    picture = load_picture(tmp_path / "picture.png")
    np.testing.assert_array_equal(picture[..., 0], 255 - written)


def test_photographs_are_turned_as_the_camera_says(tmp_path):
    image = Image.fromarray(bar())
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees.
    image.save(tmp_path / "picture.png", exif=exif)
    assert load_picture(tmp_path / "picture.png").shape == (300, 200, 3)


def test_colour_pictures_lose_what_has_other_proportions(generator):
    picture = generator.integers(0, 256, (40, 80, 3)).astype("uint8")
    fitted = fit_colour(picture, (40, 40))
    np.testing.assert_array_equal(fitted, picture[:, 20:60])


def right_on_photographs(preset, images, labels, generator):
    """The share of digits that are told on photographs of them."""
    seen = [
        prepare_character(photograph(image[..., 0], generator))
        for image in images
    ]
    # What is taken for blank paper is wrong.
    found = [
        image if image is not None else np.zeros((28, 28, 1), "uint8")
        for image in seen
    ]
    predicted = LeNet5.from_preset(preset).predict(np.stack(found), verbose=0)
    missed = np.array([image is None for image in seen])
    return np.mean((predicted.argmax(axis=1) == labels) & ~missed)


def test_digits_are_told_on_photographs(mnist_dir, full):
    count = 10_000 if full else 100
    _, (x_test, y_test) = datasets.load_data(mnist_dir / "mnist")
    # From all of the test set, whose halves are not alike.
    chosen = np.random.default_rng(98).permutation(10_000)[:count]
    generator = np.random.default_rng(5)
    share = right_on_photographs(
        "mnist", x_test[chosen], y_test[chosen], generator
    )
    print(f"{share:.2%} of {count} photographs right")
    assert share >= 0.97


def test_digits_of_the_package_are_told_on_photographs():
    _, (x_test, y_test) = datasets.load_data("digits")
    generator = np.random.default_rng(5)
    share = right_on_photographs("digits", x_test[:60], y_test[:60], generator)
    assert share >= 0.9
