import random

import keras
import numpy as np
import pytest

from keras_lenet import RandomDistortion
from keras_lenet.datasets.distortion import _interpolate_arrays, _sources
from tests.helpers import needs_tensorflow, once, run_python

NONE = dict.fromkeys(("rotation", "scale", "shear", "shift", "elastic"), 0)
SIZE = 41


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def images_of(generator, shape=(6, 28, 20, 3), dtype="float32"):
    return generator.integers(0, 256, shape).astype(dtype)


def moved(generator, y, x, **maximum):
    """Returns where 400 distortions move a blob `(y, x)` from the middle."""
    axis = np.arange(SIZE) - SIZE // 2
    squares = (axis[:, np.newaxis] - y) ** 2 + (axis - x) ** 2
    blob = np.exp(-squares / 8)[np.newaxis, :, :, np.newaxis]
    images = np.repeat(blob, 400, axis=0).astype("float32")
    distorted = RandomDistortion(**NONE | maximum)(images, generator)
    mass = distorted[..., 0].astype("float64")
    whole = mass.sum(axis=(1, 2))
    return np.array(
        [
            (mass.sum(axis=2) * axis).sum(axis=1) / whole,
            (mass.sum(axis=1) * axis).sum(axis=1) / whole,
        ]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_interpolation_equals_that_of_keras(channels, generator):
    images = generator.integers(0, 256, (3, 9, 7, channels)).astype("float32")
    places = generator.uniform(-4, 13, (2, 3, 9, 7)).astype("float32")
    distorted = _interpolate_arrays(images, *places.copy())
    for index, channel in np.ndindex(3, channels):
        # Keras cuts off at the centres of border pixels; here they fade to 0.
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
def test_zero_distortion_leaves_images_unchanged(dtype, generator):
    images = generator.integers(0, 256, (5, 28, 20, 3)).astype(dtype)
    distorted = RandomDistortion(**NONE)(images, generator)
    assert distorted.dtype == dtype
    np.testing.assert_array_equal(distorted, images)


def test_shifts_reach_the_maximum_along_each_axis(generator):
    for shifts in moved(generator, 0, 0, shift=3):
        assert -3.01 < shifts.min() < -2.7 and 2.7 < shifts.max() < 3.01


def test_rotations_reach_the_maximum_angle_about_the_middle(generator):
    y, x = moved(generator, 0, 12, rotation=30)
    angles = np.degrees(np.arctan2(y, x))
    np.testing.assert_allclose(np.hypot(y, x), 12, atol=0.1)
    assert -30.1 < angles.min() < -27 and 27 < angles.max() < 30.1


def test_height_and_width_are_scaled_separately(generator):
    y, x = np.log(moved(generator, 10, 10, scale=0.2) / 10)
    for logarithms in (y, x, y - x):
        assert logarithms.min() < -0.17 and logarithms.max() > 0.17
    assert max(abs(y).max(), abs(x).max()) < 0.21


def test_shears_make_vertical_strokes_lean(generator):
    y, x = moved(generator, 12, 0, shear=0.3)
    np.testing.assert_allclose(y, 12, atol=0.01)
    tangents = x / 12
    assert -0.301 < tangents.min() < -0.27 and 0.27 < tangents.max() < 0.301
    # Horizontal strokes do not move vertically.
    np.testing.assert_allclose(
        moved(generator, 0, 12, shear=0.3)[0], 0, atol=0.01
    )


def test_elastic_displacements_have_the_standard_deviation_given(generator):
    # On a slope of 1 per pixel, values change by the displacement.
    slope = np.tile(np.arange(100, 128, dtype="float32"), (500, 28, 1))
    distort = RandomDistortion(**NONE | {"elastic": 0.7})
    slid = distort(slope[..., np.newaxis], generator)[..., 0] - slope
    inside = slid[:, 6:-6, 6:-6]
    assert inside.std() == pytest.approx(0.7, rel=0.1)
    # Neighbours move by nearly the same amount.
    assert np.diff(inside).std() < 0.25


def test_every_image_is_distorted_in_its_own_way(generator):
    image = generator.integers(0, 256, (1, 28, 28, 1)).astype("uint8")
    distorted = RandomDistortion()(np.repeat(image, 20, axis=0), generator)
    assert len({one.tobytes() for one in distorted}) == 20


def test_the_generator_determines_the_distortions(generator):
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
def test_bad_arguments_are_rejected(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        RandomDistortion(**{name: value})


def test_distortions_of_arrays_have_not_changed():
    images = np.random.default_rng(5).integers(0, 256, (2, 28, 28, 1))
    distorted = RandomDistortion()(
        images.astype("uint8"), np.random.default_rng(6)
    )
    rows = distorted[0, 14, 8:20, 0], distorted[1, 3, 8:20, 0]
    expected = [
        [124, 120, 103, 179, 167, 184, 116, 77, 151, 91, 77, 200],
        [139, 43, 136, 92, 76, 117, 131, 120, 63, 188, 153, 105],
    ]
    # Rounding may differ between machines.
    np.testing.assert_allclose(rows, expected, atol=1)
    assert distorted.mean() == pytest.approx(111.36097, abs=0.01)


def test_distorting_arrays_does_not_advance_pythons_generator(generator):
    before = random.getstate()
    RandomDistortion()(images_of(generator), generator)
    assert random.getstate() == before


def test_set_random_seed_determines_an_unset_seed(generator):
    images = images_of(generator)
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        found.append(to_numpy(RandomDistortion()(images)))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("elastic", [0, 0.8])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_layer_and_the_numpy_path_interpolate_alike(
    dtype, data_format, elastic, generator
):
    images = images_of(generator, dtype=dtype)
    layer = RandomDistortion(
        elastic=elastic, seed=5, dtype=dtype, data_format=data_format
    )
    layer.build(images.shape)
    transformation = layer.get_random_transformation(images)
    drawn = {name: to_numpy(one) for name, one in transformation.items()}
    expected = _interpolate_arrays(images, *_sources(drawn, 28, 20, np))
    first = data_format == "channels_first"
    distorted = to_numpy(
        layer.transform_images(
            np.moveaxis(images, -1, 1) if first else images, transformation
        )
    )
    assert distorted.dtype == dtype
    np.testing.assert_allclose(
        np.moveaxis(distorted, 1, -1) if first else distorted,
        expected,
        # Positions are float32: if neighbours differ by 255, values are off by
        # a thousandth.
        atol=2e-3 if dtype == "float32" else 1,
    )
    # Only values halfway between two bytes may be rounded differently.
    if dtype == "uint8":
        last = np.moveaxis(distorted, 1, -1) if first else distorted
        assert (last != expected).mean() < 0.01
    assert abs(expected.astype("float32") - images).mean() > 10


@pytest.mark.parametrize(
    ("name", "maximum"),
    [
        ("angle", np.radians(20)),
        ("slant", 0.3),
        ("tall", 0.2),
        ("wide", 0.2),
        ("down", 3),
        ("right", 3),
    ],
)
def test_the_layer_draws_uniformly_up_to_the_maximum(name, maximum):
    layer = RandomDistortion(20, 0.2, 0.3, 3, seed=1)
    layer.build((2000, 28, 28, 1))
    drawn = to_numpy(
        layer.get_random_transformation(np.zeros((2000, 28, 28, 1)))[name]
    )
    assert drawn.shape == (2000,)
    assert -maximum <= drawn.min() < -0.98 * maximum
    assert 0.98 * maximum < drawn.max() <= maximum
    assert drawn.std() == pytest.approx(maximum / np.sqrt(3), rel=0.1)


def test_the_layer_draws_each_amount_independently():
    layer = RandomDistortion(elastic=0.7, seed=1)
    layer.build((500, 28, 28, 1))
    drawn = layer.get_random_transformation(np.zeros((500, 28, 28, 1)))
    points = to_numpy(drawn.pop("points"))
    assert points.std() == pytest.approx(0.7, rel=0.05)
    correlations = np.corrcoef([to_numpy(one) for one in drawn.values()])
    np.testing.assert_allclose(correlations, np.eye(6), atol=0.25)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])
def test_output_dtypes_equal_those_of_keras_layers(dtype, generator):
    images = images_of(generator, dtype=dtype)
    for policy in ("float32", "mixed_bfloat16"):
        layer = RandomDistortion(dtype=policy)
        like = keras.layers.RandomRotation(0.1, dtype=policy)
        for training in (True, False):
            assert (
                layer(images, training=training).dtype
                == like(images, training=training).dtype
            )


def test_the_layer_distorts_in_training_only(generator):
    images = images_of(generator)
    layer = RandomDistortion(seed=1)
    np.testing.assert_array_equal(
        to_numpy(layer(images, training=False)), images
    )
    # Without training, the layer has not advanced its seed.
    np.testing.assert_array_equal(
        to_numpy(layer(images)), to_numpy(RandomDistortion(seed=1)(images))
    )
    for options in ({}, {"training": True}):
        distorted = to_numpy(layer(images, **options))
        assert distorted.shape == images.shape
        assert abs(distorted - images).mean() > 10


def test_a_model_distorts_images_in_fit_only(generator):
    images = images_of(generator)
    model = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            RandomDistortion(seed=1),
            keras.layers.Rescaling(1.0),
            keras.layers.Dense(3, kernel_initializer="identity"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), "mae")
    losses = model.fit(
        images, images, batch_size=2, epochs=2, verbose=0
    ).history["loss"]
    assert min(losses) > 10 and losses[0] != losses[1]
    assert model.evaluate(images, images, verbose=0) < 1e-3
    np.testing.assert_allclose(
        model.predict(images, verbose=0), images, atol=1e-3
    )


def test_the_seed_determines_what_the_layer_draws(generator):
    image = images_of(generator, (1, 28, 28, 1))
    images = np.repeat(image, 20, axis=0)

    def batches(seed):
        layer = RandomDistortion(seed=seed)
        return np.stack([to_numpy(layer(images)) for _ in range(2)])

    one, same, other = batches(1), batches(1), batches(2)
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).mean() > 10
    assert len({image.tobytes() for image in np.concatenate(one)}) == 40


def test_the_layer_takes_a_single_image(generator):
    image = images_of(generator, (28, 20, 3))
    distorted = RandomDistortion(seed=1)(image)
    np.testing.assert_allclose(
        to_numpy(distorted),
        to_numpy(RandomDistortion(seed=1)(image[np.newaxis]))[0],
        atol=1e-4,
    )


def test_masks_are_distorted_like_their_images_and_labels_are_kept(generator):
    masks = generator.integers(0, 3, (4, 28, 20, 1)).astype("uint8") * 100
    found = RandomDistortion(seed=1)(
        {
            "images": np.repeat(masks, 3, axis=-1).astype("float32"),
            "labels": np.arange(4),
            "segmentation_masks": masks,
        }
    )
    found = {name: to_numpy(value) for name, value in found.items()}
    np.testing.assert_array_equal(found["labels"], np.arange(4))
    assert set(np.unique(found["segmentation_masks"])) == {0, 100, 200}
    # Nearest neighbours are at most half a pixel from the interpolated place.
    apart = abs(found["images"] - found["segmentation_masks"])
    assert 10 < apart.mean() < abs(found["images"] - masks).mean()


def test_a_saved_model_restores_the_layer(tmp_path, generator):
    layer = RandomDistortion(1, 0.2, 0.3, 4, 0.5, seed=6, name="distortion")
    inputs = keras.Input((28, 20, 3))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.get_layer("distortion")
    assert type(again) is RandomDistortion
    assert again.get_config() == layer.get_config()
    images = images_of(generator)
    np.testing.assert_array_equal(
        to_numpy(again(images)), to_numpy(layer(images))
    )


@once
def test_a_process_that_imports_the_package_can_load_the_layer(tmp_path):
    inputs = keras.Input((28, 20, 3))
    model = keras.Model(inputs, RandomDistortion()(inputs))
    model.save(tmp_path / "model.keras")
    code = (
        "import sys, keras, keras_lenet\n"
        "print(keras.saving.load_model(sys.argv[1]).layers[1].elastic)"
    )
    assert run_python(code, tmp_path / "model.keras") == "0.8\n"


@pytest.mark.parametrize("shape", [(None, 28, 1), (28, None, 1)])
def test_images_of_unknown_size_are_rejected(shape):
    with pytest.raises(ValueError, match="needs to know the height and width"):
        RandomDistortion()(keras.Input(shape))


@needs_tensorflow
@pytest.mark.parametrize("batch_size", [None, 4])
def test_it_works_inside_tf_data_on_every_backend(batch_size, generator):
    import tensorflow as tf

    images = images_of(generator, dtype="uint8")

    def mapped(seed):
        dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(6)))
        if batch_size:
            dataset = dataset.batch(batch_size)
        layer = RandomDistortion(seed=seed)
        dataset = dataset.map(lambda x, y: (layer(x), y))
        size = (None,) if batch_size else ()
        assert dataset.element_spec[0].shape == (*size, 28, 20, 3)
        found = list(dataset.as_numpy_iterator())
        join = np.concatenate if batch_size else np.stack
        labels = join([y for _, y in found])
        np.testing.assert_array_equal(labels, np.arange(6))
        return join([x for x, _ in found]), dataset, layer

    one, same, other = (mapped(seed)[0] for seed in (1, 1, 2))
    assert one.dtype == "float32"
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).mean() > 10 and abs(one - images).mean() > 10
    # A second epoch differs, and the layer also works outside the dataset.
    _, dataset, layer = mapped(1)
    again = [x.reshape(-1, 28, 20, 3) for x, _ in dataset.as_numpy_iterator()]
    again = np.concatenate(again)
    assert abs(one - again).mean() > 10
    assert layer(images).shape == images.shape


@needs_tensorflow
def test_images_of_unknown_size_are_rejected_inside_tf_data():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_generator(
        lambda: iter([np.ones((28, 28, 1))]),
        output_signature=tf.TensorSpec([None, None, 1]),
    )
    with pytest.raises(ValueError, match="needs to know the height and width"):
        dataset.map(RandomDistortion())
