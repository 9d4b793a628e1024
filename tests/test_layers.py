import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, OriginalLeNet5, PadTo32
from keras_lenet.layers import spread_channels
from keras_lenet.original import (
    EuclideanRBF,
    TableConv2D,
    TrainableSubsampling2D,
    scaled_tanh,
)
from tests.helpers import BACKEND, needs_tensorflow

CODES = [[0.5, -0.25], [1.75, 0.0], [0.1, 0.2]]
MAKERS = {
    "pad_to_32": PadTo32,
    "table_conv": lambda **kwargs: TableConv2D(3, 3, **kwargs),
    "table_conv_with_table": lambda **kwargs: TableConv2D(
        [[1], [0, 1]], 3, **kwargs
    ),
    "subsampling": TrainableSubsampling2D,
    "rbf": lambda **kwargs: EuclideanRBF(CODES, **kwargs),
}
DTYPES = (
    "bool uint8 int8 uint16 int16 uint32 int32 int64 float16 float32 float64"
).split()


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def as_float32(tensor):
    return to_numpy(keras.ops.cast(tensor, "float32"))


def test_pad_to_32_pads_mnist_as_zero_padding_2d_does(generator):
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
def test_pad_to_32_adds_odd_rows_and_columns_at_the_bottom_and_right(
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
def test_pad_to_32_rejects_empty_and_larger_images(shape):
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
def test_pad_to_32_rejects_a_fill_value_that_is_not_finite(fill_value):
    with pytest.raises(ValueError, match=r"finite number.*Received"):
        PadTo32(fill_value=fill_value)


@pytest.mark.parametrize("fill_value", [-1, 256, 0.5])
def test_pad_to_32_rejects_a_fill_value_outside_its_dtype(fill_value):
    with pytest.raises(ValueError, match="must be a value of uint8"):
        PadTo32(fill_value=fill_value, dtype="uint8")


def test_pad_to_32_is_restored_from_a_saved_model(tmp_path, generator):
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


def get_values(dtype, generator, shape=(3, 6, 5, 2)):
    """Returns random values so large that sums of bytes overflow."""
    largest = 1
    if dtype != "bool":
        kind = np.finfo if dtype.startswith("float") else np.iinfo
        largest = int(min(kind(dtype).max, 255))
    values = generator.integers(0, largest, shape, endpoint=True)
    return values.astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "policy"),
    [
        ("bool", "float32"),
        ("uint8", "float32"),
        ("int64", "float32"),
        ("float64", "float32"),
        ("uint8", "mixed_bfloat16"),
        ("float32", "mixed_bfloat16"),
        pytest.param(
            "uint8",
            "float64",
            marks=pytest.mark.skipif(BACKEND == "jax", reason="has no float64"),
        ),
    ],
)
@pytest.mark.parametrize("name", MAKERS)
def test_layers_cast_inputs_of_any_dtype_as_dense_does(
    name, dtype, policy, generator
):
    values = get_values(dtype, generator)
    layer = MAKERS[name](dtype=policy)
    expected = as_float32(layer(values.astype("float32")))
    like = keras.layers.Dense(1, dtype=policy)(values)
    for inputs in (values, keras.ops.convert_to_tensor(values)):
        outputs = layer(inputs)
        assert outputs.dtype == like.dtype
        np.testing.assert_allclose(as_float32(outputs), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_cast_inputs_of_any_dtype_in_a_graph(dtype, generator):
    if BACKEND == "jax" and dtype.endswith("64"):
        pytest.skip("JAX converts 64 bits to 32, with a warning")
    values = get_values(dtype, generator)
    inputs = keras.Input(values.shape[1:], dtype=dtype)
    layers = [make() for make in MAKERS.values()]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    for layer, outputs in zip(
        layers, model.predict(values, verbose=0), strict=True
    ):
        expected = to_numpy(layer(values.astype("float32")))
        assert outputs.dtype == "float32"
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaled_tanh_accepts_any_dtype_as_keras_tanh_does(dtype, generator):
    values = keras.ops.convert_to_tensor(get_values(dtype, generator))
    squashed = scaled_tanh(values)
    assert squashed.dtype == keras.activations.tanh(values).dtype
    np.testing.assert_allclose(
        to_numpy(squashed),
        1.7159 * np.tanh(2 / 3 * to_numpy(values)),
        rtol=2e-3,
    )


def test_euclidean_rbf_rejects_an_integer_dtype():
    with pytest.raises(ValueError, match=r"`dtype` must .*dtype='int32'"):
        EuclideanRBF(CODES, dtype="int32")


WEIGHING = {
    "table_conv": lambda **kwargs: TableConv2D([[1], [0, 1]], 3, **kwargs),
    "subsampling": TrainableSubsampling2D,
}
OPTIONS = {
    "activation": "tanh",
    "bias_initializer": keras.initializers.Constant(0.5),
    "kernel_regularizer": keras.regularizers.L2(0.1),
    "bias_regularizer": keras.regularizers.L1(0.2),
    "activity_regularizer": keras.regularizers.L2(0.3),
    "kernel_constraint": keras.constraints.NonNeg(),
    "bias_constraint": keras.constraints.UnitNorm(),
    "kernel_initializer": keras.initializers.RandomUniform(-1, 1, seed=3),
}


@pytest.mark.parametrize("name", WEIGHING)
def test_regularizers_add_losses(name, generator):
    layer = WEIGHING[name](**OPTIONS)
    inputs = keras.Input((6, 5, 2))
    model = keras.Model(inputs, layer(inputs))
    images = generator.normal(size=(3, 6, 5, 2)).astype("float32")
    outputs = to_numpy(model(images))
    kernel, bias = layer.get_weights()
    np.testing.assert_array_equal(bias, 0.5)
    found = sorted(to_numpy(loss) for loss in model.losses)
    activity = keras.layers.ActivityRegularization(l2=0.3)
    activity(outputs)
    expected = sorted(
        [
            0.1 * (kernel**2).sum(),
            0.2 * abs(bias).sum(),
            *map(to_numpy, activity.losses),
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("name", WEIGHING)
def test_constraints_hold_after_a_training_step(name, generator):
    layer = WEIGHING[name](**OPTIONS)
    inputs = keras.Input((6, 5, 2))
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse")
    assert (layer.get_weights()[0] < 0).any()
    images = generator.normal(size=(3, 6, 5, 2)).astype("float32")
    targets = generator.normal(size=(3, *layer.output.shape[1:]))
    model.fit(images, targets, verbose=0)
    kernel, bias = layer.get_weights()
    assert (kernel >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(bias), 1, rtol=1e-4)


@pytest.mark.parametrize("name", WEIGHING)
def test_use_bias_false_creates_no_bias(name, generator):
    images = generator.normal(size=(3, 6, 5, 2)).astype("float32")
    layer, other = WEIGHING[name](use_bias=False), WEIGHING[name]()
    outputs = layer(images)
    assert layer.bias is None and len(layer.weights) == 1
    other.build(images.shape)
    other.set_weights([*layer.get_weights(), np.zeros(2)])
    np.testing.assert_array_equal(to_numpy(outputs), to_numpy(other(images)))


@pytest.mark.parametrize("name", WEIGHING)
def test_every_option_is_restored_from_a_saved_model(name, tmp_path, generator):
    layer = WEIGHING[name](**OPTIONS, use_bias=True, name="tested")
    model = keras.Sequential([keras.Input((6, 5, 2)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("tested").get_config() == layer.get_config()
    images = generator.normal(size=(3, 6, 5, 2)).astype("float32")
    np.testing.assert_array_equal(
        to_numpy(loaded(images)), to_numpy(model(images))
    )
    np.testing.assert_array_equal(
        [to_numpy(loss) for loss in loaded.losses],
        [to_numpy(loss) for loss in model.losses],
    )
    assert set(OPTIONS) | {"use_bias"} <= set(layer.get_config())


@pytest.mark.parametrize(
    ("layer_class", "config"),
    [
        (TableConv2D, {"table": [[0], [1, 0]], "kernel_size": 3}),
        (TableConv2D, {"table": 4, "kernel_size": 5}),
        (TrainableSubsampling2D, {}),
    ],
)
def test_configurations_without_the_newer_options_still_load(
    layer_class, config
):
    layer = layer_class.from_config(
        {
            "name": "c3",
            "trainable": True,
            "dtype": "float32",
            "activation": "tanh",
            "kernel_initializer": "glorot_uniform",
            **config,
        }
    )
    layer.build((None, 6, 6, 2))
    assert layer.use_bias and len(layer.weights) == 2


@pytest.mark.parametrize("kernel_size", [(2, 4), [3, 1], np.array([4, 2])])
def test_kernels_may_be_rectangular(kernel_size, generator):
    images = generator.normal(size=(2, 6, 7, 3)).astype("float32")
    layer = TableConv2D(4, kernel_size, use_bias=False)
    outputs = layer(images)
    other = keras.layers.Conv2D(
        4, tuple(kernel_size), use_bias=False, data_format="channels_last"
    )
    other.build(images.shape)
    other.set_weights(layer.get_weights())
    assert tuple(outputs.shape) == layer.compute_output_shape(images.shape)
    np.testing.assert_allclose(
        to_numpy(outputs), to_numpy(other(images)), atol=1e-5
    )


@pytest.mark.parametrize(
    "kernel_size", [0, (5,), (5, 0), (1, 2, 3), 2.5, "5", (), None]
)
def test_invalid_kernel_sizes_are_rejected(kernel_size):
    with pytest.raises(ValueError, match=r"`kernel_size` .*Received"):
        TableConv2D(2, kernel_size)


@pytest.mark.parametrize(
    "table",
    [
        np.array([[1, 0], [2, 1]]),
        [np.array([1, 0]), np.array([2, 1], "uint8")],
        ((np.int64(1), 0), range(2, 0, -1)),
    ],
)
def test_a_table_may_consist_of_arrays(table):
    layer = TableConv2D(table)
    assert layer.get_config()["table"] == [[1, 0], [2, 1]]
    assert type(layer.get_config()["table"][0][0]) is int


@pytest.mark.parametrize(
    "table",
    [
        np.array([[1.0, 0.0]]),
        np.array([0, 1]),
        np.zeros((0, 2), int),
        np.array(3.0),
        np.zeros((1, 1, 1), int),
        # A boolean table is ambiguous: it could be a connection matrix.
        [[True, False], [False, True]],
        np.array([[True, False], [False, True]]),
        [[-1]],
        "01",
        [],
        True,
        None,
    ],
)
def test_invalid_tables_are_rejected(table):
    with pytest.raises(ValueError, match=r"`table` must be .*Received: table"):
        TableConv2D(table)


@pytest.mark.parametrize("name", ["table_conv", "subsampling", "rbf"])
def test_a_built_layer_rejects_another_number_of_channels(name, generator):
    layer = MAKERS[name]()
    layer(generator.normal(size=(2, 6, 5, 2)))
    # A single channel would broadcast silently.
    for channels in (1, 3):
        with pytest.raises(ValueError, match="axis -1 of input shape"):
            layer(generator.normal(size=(2, 6, 5, channels)))


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("table_conv", (2, 2, 5, 2), "at least 3x3"),
        ("table_conv", (2, 5, 1, 2), "at least 3x3"),
        ("subsampling", (2, 1, 5, 2), "at least 2x2"),
        ("subsampling", (2, 5, 1, 2), "at least 2x2"),
    ],
)
@pytest.mark.parametrize("built", [True, False])
def test_images_smaller_than_the_kernel_are_rejected(
    name, shape, match, built, generator
):
    layer = MAKERS[name]()
    if built:
        layer(generator.normal(size=(2, 6, 5, 2)))
    with pytest.raises(ValueError, match=match):
        layer(generator.normal(size=shape))


def test_subsampling_accepts_images_of_unknown_size_as_pooling_does(generator):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, TrainableSubsampling2D()(inputs))
    pooling = keras.layers.AveragePooling2D(2, data_format="channels_last")
    for size in [(7, 4), (2, 3)]:
        images = generator.normal(size=(3, *size, 2)).astype("float32")
        np.testing.assert_allclose(
            model.predict(images, verbose=0),
            to_numpy(pooling(images)),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    "make",
    [
        lambda: TableConv2D(4, (3, 2)),
        lambda: keras.layers.Conv2D(4, 3, data_format="channels_last"),
    ],
)
def test_a_spread_kernel_gives_the_same_output_for_a_grey_image(
    make, generator
):
    grey = generator.normal(size=(2, 7, 6, 1)).astype("float32")
    colour = np.repeat(grey, 3, axis=-1)
    one, three = make(), make()
    expected = to_numpy(one(grey))
    three.build(colour.shape)
    kernel, bias = one.get_weights()
    spread = spread_channels(kernel, 3)
    assert spread.dtype == kernel.dtype
    three.set_weights([spread, bias])
    np.testing.assert_allclose(to_numpy(three(colour)), expected, atol=1e-5)
    np.testing.assert_allclose(spread_channels(spread, 1), kernel, rtol=1e-6)


def test_a_summed_kernel_gives_the_same_output_for_a_grey_image(generator):
    grey = generator.normal(size=(2, 7, 6, 1)).astype("float32")
    colour = np.repeat(grey, 3, axis=-1)
    one, three = TableConv2D(4, 3), TableConv2D(4, 3)
    expected = to_numpy(three(colour))
    one.build(grey.shape)
    kernel, bias = three.get_weights()
    one.set_weights([spread_channels(kernel, 1), bias])
    np.testing.assert_allclose(to_numpy(one(grey)), expected, atol=1e-5)


@pytest.mark.parametrize("model_class", [LeNet5, OriginalLeNet5])
def test_a_model_with_a_spread_kernel_gives_the_same_predictions(
    model_class, generator
):
    one = model_class(input_shape=(28, 28, 1))
    three = model_class(input_shape=(28, 28, 3))
    for layer in three.layers:
        weights = one.get_layer(layer.name).get_weights()
        if layer.name == "c1":
            weights[0] = spread_channels(weights[0], 3)
        layer.set_weights(weights)
    grey = generator.integers(0, 256, (4, 28, 28, 1)).astype("uint8")
    np.testing.assert_allclose(
        three.predict(np.repeat(grey, 3, axis=-1), verbose=0),
        one.predict(grey, verbose=0),
        rtol=1e-4,
    )


def test_a_kernel_with_the_right_number_of_channels_is_unchanged(generator):
    kernel = generator.normal(size=(5, 5, 3, 2))
    np.testing.assert_array_equal(spread_channels(kernel, 3), kernel)


@pytest.mark.parametrize(
    ("shape", "channels", "match"),
    [
        ((5, 5, 3, 6), 4, r"`channels` must be 1, or .*channels=4"),
        ((5, 5, 1, 6), 0, "`channels` must be a positive integer"),
        ((5, 5, 10), 3, r"`kernel` must have the shape.*\(5, 5, 10\)"),
    ],
)
def test_conversions_between_unknown_channels_are_rejected(
    shape, channels, match
):
    with pytest.raises(ValueError, match=match):
        spread_channels(np.ones(shape), channels)
