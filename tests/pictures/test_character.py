import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from keras_lenet import LeNet5, datasets
from keras_lenet.files import FileFormatError
from keras_lenet.pictures import (
    fit_colour,
    load_picture,
    prepare_character,
    reading,
)
from tests.helpers import once, photograph

# Reading pictures does not depend on the backend.
pytestmark = once


def bar(height=200, width=300, ink=30, paper=220):
    """Draws a vertical bar that is off the middle."""
    picture = np.full((height, width), paper, "uint8")
    picture[40:140, 200:212] = ink
    return picture


def seen(picture):
    image = prepare_character(picture)
    assert image.shape == (28, 28, 1) and image.dtype == np.uint8
    return image[..., 0].astype("float64")


def check_bar(image):
    """Checks that an image shows a bar of 20 pixels in the middle."""
    rows = np.flatnonzero(image.max(axis=1) > 127)
    columns = np.flatnonzero(image.max(axis=0) > 127)
    assert (rows[0], rows[-1]) == (4, 23)
    assert 2 <= len(columns) <= 3 and 12 <= columns[0] <= columns[-1] <= 15
    assert image.max() == 255 and image[:, :10].max() == 0


@pytest.mark.parametrize(("ink", "paper"), [(30, 220), (220, 30), (110, 150)])
def test_a_character_fills_20_pixels_about_its_centre_of_mass(ink, paper):
    check_bar(seen(bar(ink=ink, paper=paper)))


@pytest.mark.parametrize("factor", [1, 2, 7])
def test_the_size_of_the_picture_makes_no_difference(factor):
    check_bar(seen(np.kron(bar(), np.ones((factor, factor), "uint8"))))


def test_ink_may_differ_from_the_paper_in_colour_only():
    written = bar(ink=1, paper=0).astype(bool)[..., np.newaxis]
    # Red on green, both (299 r + 587 g + 114 b) / 1000 = 90.
    picture = np.where(written, [255, 0, 121], [40, 133, 0]).astype("uint8")
    check_bar(seen(picture))


def test_the_light_may_be_uneven():
    light = np.linspace(1, 0.4, 300) * np.linspace(0.8, 1, 200)[:, np.newaxis]
    # Paper on one side is darker than ink on the other.
    picture = bar(ink=120) * light
    check_bar(seen(picture.astype("uint8")))


def test_noise_specks_and_the_edge_of_the_table_are_not_ink(generator):
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


def test_the_inside_of_a_zero_is_paper():
    y, x = np.indices((200, 160)) - np.reshape([100, 80], (2, 1, 1))
    far = np.hypot(y / 1.3, x)
    picture = np.where((40 < far) & (far < 60), 30, 220).astype("uint8")
    image = seen(picture)
    assert image[14, 14] == 0 and image[14].max() == 255


def test_separate_parts_of_a_character_stay_together():
    picture = bar()
    picture[40:140, 230:242] = 30
    columns = np.flatnonzero(seen(picture).max(axis=0) > 127)
    assert columns[-1] - columns[0] >= 7


def test_thin_strokes_become_as_wide_as_those_of_mnist():
    picture = np.full((400, 400), 255, "uint8")
    picture[50:350, 100:102] = 0
    picture[348:350, 100:300] = 0
    image = seen(picture)
    # Both strokes are at least one pixel wide.
    assert np.median(image[6:20].max(axis=1)) > 200
    assert np.median(image[6:20].sum(axis=1)) > 1.2 * 255


@pytest.mark.parametrize("dark", [True, False])
def test_a_picture_in_the_form_of_mnist_is_not_changed(dark, generator):
    digit = np.zeros((28, 28), "uint8")
    digit[4:24, 8:20] = generator.integers(100, 256, (20, 12))
    picture = 255 - digit if dark else digit
    np.testing.assert_array_equal(prepare_character(picture)[..., 0], digit)


@pytest.mark.parametrize("size", [(300, 400), (28, 28), (1, 1), (1, 900)])
def test_blank_paper_has_no_ink(size, generator):
    assert prepare_character(np.full(size, 200, "uint8")) is None
    light = np.linspace(0.6, 1, size[1]) if size[0] > 28 else 1
    noise = generator.normal(200, 1.5, (*size, 3)) * np.reshape(light, (-1, 1))
    assert prepare_character(noise.astype("uint8")) is None


def test_no_random_picture_raises_an_error(generator):
    for _ in range(100):
        size = generator.integers(1, 60, 2)
        picture = generator.integers(0, 256, (*size, 3)).astype("uint8")
        image = prepare_character(picture)
        assert image is None or image.shape == (28, 28, 1)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_a_large_picture_may_have_any_number_of_channels(channels):
    large = np.kron(bar(), np.ones((4, 4), "uint8"))
    picture = np.repeat(large[..., np.newaxis], channels, axis=-1)
    np.testing.assert_allclose(
        prepare_character(picture).astype(int),
        prepare_character(large).astype(int),
        atol=2,
    )


def test_characters_fit_into_sizes_that_are_not_square():
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
def test_an_array_that_is_not_a_picture_is_rejected(picture):
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
        # Pillow dithers pictures with fewer colours.
        assert abs(picture[..., 0] - expected.astype(int)).mean() < 40
    else:
        np.testing.assert_array_equal(picture[..., 0], expected)


def test_a_transparent_picture_is_placed_on_white(tmp_path):
    written = bar(ink=255, paper=0)
    pixels = np.dstack([0 * written, 0 * written, 0 * written, written])
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    picture = load_picture(tmp_path / "picture.png")
    np.testing.assert_array_equal(picture[..., 0], 255 - written)


def test_transparent_white_ink_with_soft_edges_is_placed_on_black(tmp_path):
    opaque = ndimage.gaussian_filter(bar(ink=255, paper=0), 1)
    colour = np.repeat(opaque[..., np.newaxis], 3, axis=2)
    Image.fromarray(np.dstack([colour, opaque])).save(tmp_path / "ink.png")
    picture = load_picture(tmp_path / "ink.png")
    on_black = np.rint(opaque.astype("float64") ** 2 / 255)
    np.testing.assert_allclose(picture[..., 1], on_black, atol=1)


def test_white_ink_in_a_transparent_palette_is_placed_on_black(tmp_path):
    image = Image.fromarray(bar(ink=1, paper=0))
    # Attaching a palette turns the values into indices.
    image.putpalette([255, 255, 255, 255, 255, 255])
    image.save(tmp_path / "ink.png", transparency=0)
    check_bar(seen(load_picture(tmp_path / "ink.png")))


@pytest.mark.parametrize(
    ("ink", "opaque"),
    [((0, 0, 0), 90), ((255, 255, 0), 255), ((150, 150, 150), 255)],
)
def test_ink_that_shows_on_white_is_placed_on_white(ink, opaque, tmp_path):
    alpha = bar(ink=opaque, paper=0)
    colour = np.broadcast_to(np.array(ink, "uint8"), (*alpha.shape, 3))
    Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "ink.png")
    picture = load_picture(tmp_path / "ink.png")
    assert (picture[0, 0] == 255).all()
    check_bar(seen(picture))


def test_dark_ink_on_cut_out_paper_is_placed_on_white(tmp_path):
    paper = np.repeat(bar(ink=140, paper=250)[..., np.newaxis], 3, axis=2)
    opaque = np.full((200, 300), 255, "uint8")
    opaque[:30] = opaque[:, :150] = 0
    Image.fromarray(np.dstack([paper, opaque])).save(tmp_path / "cut.png")
    picture = load_picture(tmp_path / "cut.png")
    assert (picture[0, 0] == 255).all()
    check_bar(seen(picture))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda shown: shown),
        (2, np.fliplr),
        (3, lambda shown: np.rot90(shown, 2)),
        (4, np.flipud),
        (5, lambda shown: shown.swapaxes(0, 1)),
        (6, lambda shown: np.rot90(shown, -1)),
        (7, lambda shown: np.rot90(shown, 2).swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_photographs_are_rotated_as_their_exif_orientation_says(
    mode, orientation, turned, suffix, tmp_path, generator
):
    pixels = generator.integers(0, 256, (5, 7, 3)).astype("uint8")
    image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"picture.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    image.save(path, exif=exif, **options)
    expected = turned(np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(load_picture(path), expected)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(256) / 255,
        # Some of these values are slightly below multiples of 1 / 255.
        1 - np.arange(255, -1, -1, "float32") / np.float32(255),
        np.arange(256) * 1.0,
        np.arange(256) * 257.0,
        np.linspace(-3, 252, 256),
        np.arange(256),
        np.arange(256) * 257,
        np.arange(256, dtype="uint32") * 0x01010101,
        np.arange(-128, 128) * 2**23,
    ],
)
def test_floats_and_32_bits_are_scaled_to_bytes(values, tmp_path):
    path = tmp_path / "picture.tiff"
    if values.dtype.kind == "f":
        Image.fromarray(values[np.newaxis].astype("float32")).save(path)
    else:
        bits = values[np.newaxis].astype("uint32").view("int32")
        Image.fromarray(bits).save(path)
    if values.dtype == "uint32":
        # Pillow marks them as signed: value 2 in tag 339.
        tag = b"\x53\x01\x03\x00\x01\x00\x00\x00"
        content = path.read_bytes()
        assert content.count(tag + b"\x02") == 1
        path.write_bytes(content.replace(tag + b"\x02", tag + b"\x01"))
    np.testing.assert_array_equal(load_picture(path)[0, :, 1], np.arange(256))


def test_values_that_are_not_finite_are_rejected(tmp_path):
    values = np.ones((4, 4), "float32")
    values[2, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "picture.tiff")
    with pytest.raises(FileFormatError, match="pixels that are finite"):
        load_picture(tmp_path / "picture.tiff")


@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [
        ("png", "1", {}),
        ("png", "RGB", {}),
        ("tiff", "1", {"compression": "group4"}),
        ("jpg", "L", {}),
        ("webp", "RGB", {"lossless": True, "method": 0}),
    ],
)
def test_a_character_is_found_on_a_scanned_page(
    suffix, mode, options, tmp_path
):
    # This is a white A4 page at 600 dpi with a bar.
    page = Image.new("L", (4960, 7016), 255)
    page.paste(0, (2000, 1200, 2060, 1700))
    page.convert(mode).save(tmp_path / f"page.{suffix}", **options)
    picture = load_picture(tmp_path / f"page.{suffix}")
    assert picture.shape == (7016, 4960, 3)
    check_bar(seen(picture))


@pytest.mark.parametrize(("suffix", "mode"), [("png", "1"), ("jpg", "L")])
def test_very_large_pictures_are_halved(suffix, mode, tmp_path, monkeypatch):
    # This is an A4 page at 1200 dpi, 139 megapixels.
    page = Image.new("L", (9921, 14031), 255)
    page.paste(0, (4000, 2400, 4120, 3400))
    page.convert(mode).save(tmp_path / f"page.{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    picture = load_picture(tmp_path / f"page.{suffix}")
    assert Image.MAX_IMAGE_PIXELS == 10**6
    assert picture.shape == (7016, 4961, 3)
    expected = np.full((7016, 4961), 255, "uint8")
    expected[1200:1700, 2000:2060] = 0
    np.testing.assert_allclose(picture[..., 2], expected, atol=3)


def test_the_height_of_strips_makes_no_difference(
    tmp_path, monkeypatch, generator
):
    pixels = generator.integers(0, 256, (61, 37, 4)).astype("uint8")
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    whole = load_picture(path)
    monkeypatch.setattr(reading, "_STRIP_PIXELS", 37 * 7)
    np.testing.assert_array_equal(load_picture(path), whole)
    monkeypatch.setattr(reading, "_MAX_UNREDUCED_PIXELS", 61 * 37 - 1)
    halved = load_picture(path)
    assert halved.shape == (31, 19, 3)
    blocks = whole[:60, :36].reshape(30, 2, 18, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(halved[:30, :18], blocks, atol=0.5)
    np.testing.assert_allclose(
        halved[30, :18], whole[60, :36].reshape(18, 2, 3).mean(axis=1), atol=0.5
    )


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"", "an empty file"),
        (b"\n<!-- a --><HTML lang=en>", "a web page. Download the file itself"),
        (b"\xef\xbb\xbf<!doctype html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"label,pixel0\n1,0\n", "text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "an HEIC picture. Save it as PNG"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF file. Save the page as PNG"),
        (b"PK\x03\x04", "a zip archive"),
    ],
)
def test_the_error_names_the_kind_of_a_file_that_is_not_a_picture(
    content, received, tmp_path
):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    message = f"picture.png: expected a PNG, .* or WebP picture. .*: {received}"
    with pytest.raises(FileFormatError, match=message):
        load_picture(path)


def test_a_missing_picture_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        load_picture(tmp_path / "gone.png")


def test_fit_colour_crops_to_the_proportions_of_the_size(generator):
    picture = generator.integers(0, 256, (40, 80, 3)).astype("uint8")
    fitted = fit_colour(picture, (40, 40))
    np.testing.assert_array_equal(fitted, picture[:, 20:60])


def accuracy_on_photographs(preset, images, labels, generator):
    """Returns the accuracy on photographs of digits."""
    seen = [
        prepare_character(photograph(image[..., 0], generator))
        for image in images
    ]
    # A digit that is mistaken for blank paper counts as wrong.
    found = [
        image if image is not None else np.zeros((28, 28, 1), "uint8")
        for image in seen
    ]
    predicted = LeNet5.from_preset(preset).predict(np.stack(found), verbose=0)
    missed = np.array([image is None for image in seen])
    return np.mean((predicted.argmax(axis=1) == labels) & ~missed)


def test_digits_are_recognised_on_photographs(mnist_dir, full):
    count = 10_000 if full else 500
    _, (x_test, y_test) = datasets.load_data(mnist_dir / "mnist")
    # Sample the whole test set, because its halves differ.
    chosen = np.random.default_rng(98).permutation(10_000)[:count]
    generator = np.random.default_rng(5)
    share = accuracy_on_photographs(
        "mnist", x_test[chosen], y_test[chosen], generator
    )
    print(f"{share:.2%} of {count} photographs right")
    assert share >= 0.975


def test_scikit_learn_digits_are_recognised_on_photographs():
    _, (x_test, y_test) = datasets.load_data("digits")
    generator = np.random.default_rng(5)
    share = accuracy_on_photographs(
        "digits", x_test[:60], y_test[:60], generator
    )
    assert share >= 0.9
