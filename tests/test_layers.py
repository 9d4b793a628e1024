import keras
import numpy as np
import pytest
from environment import needs_tensorflow

from keras_lenet import PadTo32


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_pad_to_32_pads_mnist_as_keras_own_layer_does(generator):
    images = generator.random((3, 28, 28, 2), "float32")
    expected = keras.layers.ZeroPadding2D(2, data_format="channels_last")(
        images
    )
    np.testing.assert_array_equal(
        to_numpy(PadTo32()(images)), to_numpy(expected)
    )


@pytest.mark.parametrize(
    "shape", [(4, 31, 27, 3), (1, 32, 31, 1), (2, 1, 2, 5)]
)
def test_pad_to_32_puts_odd_rows_and_columns_at_bottom_and_right(
    shape, generator
):
    images = generator.random(shape, "float32")
    _, height, width, _ = shape
    padded = to_numpy(PadTo32(fill_value=-1)(images))
    top, left = (32 - height) // 2, (32 - width) // 2
    inside = padded[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(inside, images)
    assert (padded == -1).sum() == padded.size - images.size


def test_pad_to_32_passes_32x32_unchanged(generator):
    images = generator.random((2, 32, 32, 3), "float32")
    np.testing.assert_array_equal(to_numpy(PadTo32()(images)), images)


def test_pad_to_32_takes_a_single_image(generator):
    image = generator.random((28, 20, 1), "float32")
    np.testing.assert_array_equal(
        to_numpy(PadTo32()(image)), to_numpy(PadTo32()(image[np.newaxis]))[0]
    )


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_pad_to_32_casts_bytes_to_its_dtype(dtype, generator):
    images = generator.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    padded = to_numpy(PadTo32(fill_value=7, dtype=dtype)(images))
    assert padded.dtype == dtype
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], images)
    assert (padded[:, :2] == 7).all()


@pytest.mark.parametrize(
    "shape",
    [(1, 33, 32, 1), (1, 28, 64, 1), (1, 0, 28, 1), (2, 28, 28, 100, 1)],
)
def test_pad_to_32_rejects_images_it_would_have_to_shrink(shape):
    message = (
        r"at least 1x1 and at most 32x32 .*Received.*keras.layers.Resizing"
    )
    with pytest.raises(ValueError, match=message):
        PadTo32()(np.ones(shape, "float32"))
    with pytest.raises(ValueError, match=message):
        PadTo32()(keras.Input(shape[1:]))


def test_pad_to_32_rejects_unknown_sizes_when_a_model_is_built():
    with pytest.raises(ValueError, match=r"height and width.*keras.Input"):
        PadTo32()(keras.Input((None, 28, 1)))


def test_pad_to_32_rejects_images_without_channels():
    with pytest.raises(ValueError, match=r"height, width, channels.*newaxis"):
        PadTo32()(np.ones((28, 28), "float32"))


@pytest.mark.parametrize("fill_value", [float("nan"), float("inf"), "0", None])
def test_pad_to_32_rejects_what_is_not_a_finite_number(fill_value):
    with pytest.raises(ValueError, match=r"finite number.*Received"):
        PadTo32(fill_value=fill_value)


@pytest.mark.parametrize("fill_value", [-1, 256, 0.5])
def test_pad_to_32_rejects_what_its_dtype_cannot_hold(fill_value):
    with pytest.raises(ValueError, match="must be a value of uint8"):
        PadTo32(fill_value=fill_value, dtype="uint8")


def test_pad_to_32_comes_back_from_its_config_and_from_a_saved_model(
    tmp_path, generator
):
    inputs = keras.Input((30, 28, 1))
    model = keras.Model(inputs, PadTo32(fill_value=0.5, name="pad")(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = generator.random((2, 30, 28, 1), "float32")
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), loaded.predict(images, verbose=0)
    )
    assert loaded.get_layer("pad").fill_value == 0.5


@needs_tensorflow
@pytest.mark.parametrize("batched", [True, False])
def test_pad_to_32_works_inside_tf_data_on_every_backend(batched, generator):
    import tensorflow as tf

    images = generator.integers(0, 256, (5, 28, 28, 1)).astype("uint8")
    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.batch(2) if batched else dataset
    dataset = dataset.map(PadTo32(fill_value=3))
    padded = list(dataset.as_numpy_iterator())
    padded = np.concatenate(padded) if batched else np.stack(padded)
    np.testing.assert_array_equal(
        padded, to_numpy(PadTo32(fill_value=3)(images))
    )


@needs_tensorflow
def test_pad_to_32_rejects_unknown_sizes_and_ranks_inside_tf_data():
    import tensorflow as tf

    for shape in (None, [None, None, 1]):
        dataset = tf.data.Dataset.from_generator(
            lambda: iter([np.ones((28, 28, 1))]),
            output_signature=tf.TensorSpec(shape),
        )
        with pytest.raises(ValueError, match="PadTo32"):
            dataset.map(PadTo32())
