import keras
import numpy as np
import pytest

from keras_lenet import RandomDistortion
from keras_lenet.distortions import _interpolate

NONE = dict.fromkeys(("rotation", "scale", "shear", "shift", "elastic"), 0)
SIZE = 41


def moved(generator, y, x, **largest):
    """Where a blob that lay `(y, x)` from the middle is in 400 distortions."""
    axis = np.arange(SIZE) - SIZE // 2
    squares = (axis[:, np.newaxis] - y) ** 2 + (axis - x) ** 2
    blob = np.exp(-squares / 8)[np.newaxis, :, :, np.newaxis]
    images = np.repeat(blob, 400, axis=0).astype("float32")
    distorted = RandomDistortion(**NONE | largest)(images, generator)
    mass = distorted[..., 0].astype("float64")
    whole = mass.sum(axis=(1, 2))
    return np.array(
        [
            (mass.sum(axis=2) * axis).sum(axis=1) / whole,
            (mass.sum(axis=1) * axis).sum(axis=1) / whole,
        ]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_it_interpolates_as_keras_does(channels, generator):
    images = generator.integers(0, 256, (3, 9, 7, channels)).astype("float32")
    places = generator.uniform(-4, 13, (2, 3, 9, 7)).astype("float32")
    distorted = _interpolate(images, *places.copy())
    for index, channel in np.ndindex(3, channels):
        # Keras lets pixels end at their centres; here they fade to 0.
        padded = np.pad(images[index, ..., channel], 1)
        expected = keras.ops.image.map_coordinates(
            padded, places[:, index] + 1, order=1, fill_mode="constant"
        )
        np.testing.assert_allclose(
            distorted[index, ..., channel],
            keras.ops.convert_to_numpy(expected),
            atol=1e-2,
        )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_without_distortions_images_stay_as_they_are(dtype, generator):
    images = generator.integers(0, 256, (5, 28, 20, 3)).astype(dtype)
    distorted = RandomDistortion(**NONE)(images, generator)
    assert distorted.dtype == dtype
    np.testing.assert_array_equal(distorted, images)


def test_shifts_are_up_to_the_largest_along_each_axis(generator):
    for shifts in moved(generator, 0, 0, shift=3):
        assert -3.01 < shifts.min() < -2.7 and 2.7 < shifts.max() < 3.01


def test_rotations_are_up_to_the_largest_angle_about_the_middle(generator):
    y, x = moved(generator, 0, 12, rotation=30)
    angles = np.degrees(np.arctan2(y, x))
    np.testing.assert_allclose(np.hypot(y, x), 12, atol=0.1)
    assert -30.1 < angles.min() < -27 and 27 < angles.max() < 30.1


def test_height_and_width_are_scaled_apart(generator):
    y, x = np.log(moved(generator, 10, 10, scale=0.2) / 10)
    for logarithms in (y, x, y - x):
        assert logarithms.min() < -0.17 and logarithms.max() > 0.17
    assert max(abs(y).max(), abs(x).max()) < 0.21


def test_shears_let_what_stands_upright_lean(generator):
    y, x = moved(generator, 12, 0, shear=0.3)
    np.testing.assert_allclose(y, 12, atol=0.01)
    tangents = x / 12
    assert -0.301 < tangents.min() < -0.27 and 0.27 < tangents.max() < 0.301
    # What lies stays.
    np.testing.assert_allclose(
        moved(generator, 0, 12, shear=0.3)[0], 0, atol=0.01
    )


def test_elastic_displacements_have_the_standard_deviation_given(generator):
    # On a slope displacements can be read off.
    slope = np.tile(np.arange(100, 128, dtype="float32"), (500, 28, 1))
    distort = RandomDistortion(**NONE | {"elastic": 0.7})
    slid = distort(slope[..., np.newaxis], generator)[..., 0] - slope
    inside = slid[:, 6:-6, 6:-6]
    assert inside.std() == pytest.approx(0.7, rel=0.1)
    # Neighbours go nearly together.
    assert np.diff(inside).std() < 0.25


def test_every_image_is_distorted_in_its_own_way(generator):
    image = generator.integers(0, 256, (1, 28, 28, 1)).astype("uint8")
    distorted = RandomDistortion()(np.repeat(image, 20, axis=0), generator)
    assert len({one.tobytes() for one in distorted}) == 20


def test_the_generator_decides(generator):
    images = generator.integers(0, 256, (4, 28, 28, 1)).astype("uint8")
    before = images.copy()
    runs = [
        RandomDistortion()(images, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "1"])
def test_bad_arguments_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        RandomDistortion(**{name: value})
