import hashlib
import json

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, LeNet5, OriginalLeNet5
from keras_lenet.original import (
    TABLE,
    DistanceLoss,
    EuclideanRBF,
    TableConv2D,
    TrainableSubsampling2D,
    UniformByFanIn,
    codes,
    scaled_tanh,
)
from keras_lenet.saving import adapt, load_model
from tests.helpers import BACKEND, once


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def squash(a):
    return 1.7159 * np.tanh(2 / 3 * a)


def with_random_weights(layer, shape, generator):
    layer.build((None, *shape))
    layer.set_weights(
        [generator.normal(size=weight.shape) for weight in layer.weights]
    )
    return layer


def test_a_full_table_equals_keras_conv2d(generator):
    images = generator.normal(size=(2, 9, 8, 3)).astype("float32")
    layer = with_random_weights(
        TableConv2D(4, activation="tanh"), images.shape[1:], generator
    )
    other = keras.layers.Conv2D(
        4, 5, activation="tanh", data_format="channels_last"
    )
    other.build(images.shape)
    other.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        to_numpy(layer(images)), to_numpy(other(images)), atol=1e-5
    )


def test_a_map_sees_only_the_maps_in_the_table(generator):
    table = [[2], [0, 1], [3, 0, 2]]
    images = generator.normal(size=(2, 6, 7, 4)).astype("float32")
    layer = with_random_weights(
        TableConv2D(table, kernel_size=3), (6, 7, 4), generator
    )
    kernel, bias = layer.get_weights()
    assert kernel.shape == (3, 3, 6) and layer.count_params() == 6 * 9 + 3
    expected = np.zeros((2, 4, 5, 3)) + bias
    pairs = [(m, s) for m, sources in enumerate(table) for s in sources]
    for index, (number, source) in enumerate(pairs):
        for row, column in np.ndindex(4, 5):
            seen = images[:, row : row + 3, column : column + 3, source]
            weighed = (seen * kernel[..., index]).sum(axis=(1, 2))
            expected[:, row, column, number] += weighed
    np.testing.assert_allclose(to_numpy(layer(images)), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_subsampling_scales_the_sum_of_four_pixels(size, generator):
    images = generator.normal(size=(2, *size, 3)).astype("float32")
    layer = with_random_weights(
        TrainableSubsampling2D(scaled_tanh), (*size, 3), generator
    )
    coefficient, bias = layer.get_weights()
    sums = 4 * to_numpy(
        keras.layers.AveragePooling2D(2, data_format="channels_last")(images)
    )
    np.testing.assert_allclose(
        to_numpy(layer(images)), squash(coefficient * sums + bias), atol=1e-5
    )


def test_rbf_returns_squared_distances_and_has_no_weights(generator):
    x, centres = generator.normal(size=(5, 7)), generator.normal(size=(3, 7))
    layer = EuclideanRBF(centres)
    expected = [[((a - c) ** 2).sum() for c in centres] for a in x]
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5)
    assert layer.weights == []


@pytest.mark.parametrize(
    "layer",
    [
        TableConv2D(2, kernel_size=3, activation="tanh"),
        TableConv2D(
            [[0], [1, 0]], kernel_initializer=UniformByFanIn([3, 2, 2])
        ),
        TrainableSubsampling2D(activation=scaled_tanh),
        EuclideanRBF([[1.0, 0.5]]),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_survive_serialization(layer, generator):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    images = generator.normal(size=(1, 6, 6, 2)).astype("float32")
    outputs = layer(images)
    again.build(images.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(to_numpy(again(images)), to_numpy(outputs))
    assert layer.compute_output_shape(images.shape) == tuple(outputs.shape)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: TableConv2D(0), "`table` must be a positive integer"),
        (lambda: TableConv2D([[0], []]), "each once"),
        (lambda: TableConv2D([[1, 1]]), "each once"),
        (lambda: TableConv2D(2, kernel_size=0), "`kernel_size` must be"),
        (
            lambda: TableConv2D([[3]])(np.ones((1, 9, 9, 3))),
            "`table` must have indices from 0 to 2",
        ),
        (lambda: TableConv2D(2)(np.ones((1, 9, 4, 1))), "at least 5x5"),
        (lambda: TableConv2D(2)(np.ones((9, 9, 1))), "expects images of shape"),
        (
            lambda: TableConv2D(2)(keras.Input((9, 9, None))),
            "expects images of shape",
        ),
        (lambda: EuclideanRBF([1.0, 2.0]), "`codes` must be finite"),
        (
            lambda: EuclideanRBF([[1.0]])(np.ones((2, 3))),
            "the size of the codes",
        ),
        (lambda: OriginalLeNet5(11), "`num_classes` must be from 1 to 10"),
        (lambda: OriginalLeNet5(0), "`num_classes` must be from 1 to 10"),
        (lambda: OriginalLeNet5(input_shape=28), "`input_shape` must"),
        (lambda: OriginalLeNet5(input_shape=(28, 28)), "`input_shape` must"),
        (lambda: OriginalLeNet5(input_shape=(28, 28, 0)), "`input_shape` must"),
        (lambda: OriginalLeNet5(input_shape=(28, 40, 1)), "`input_shape` must"),
        (
            lambda: OriginalLeNet5(
                input_shape=(28, 28, 1), include_preprocessing=False
            ),
            "`input_shape` must",
        ),
        (lambda: DistanceLoss(rubbish=0), "`rubbish` must be a number above 0"),
    ],
)
def test_invalid_arguments_and_inputs_raise(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_weights_and_connections_match_the_papers_counts():
    model = OriginalLeNet5()
    assert model.count_params() == 60_000
    found = {}
    for layer in model.layers:
        shape = layer.output.shape
        if layer.name == "rbf":
            found["rbf"] = (0, layer.codes.size)
        elif layer.weights:
            weights = layer.count_params()
            # A subsampling coefficient connects four pixels, plus a bias.
            per_place = 5 * shape[-1] if layer.name in ("s2", "s4") else weights
            found[layer.name] = (weights, shape[1] * shape[2] * per_place)
    assert found == {
        "c1": (156, 122_304),
        "s2": (12, 5_880),
        "c3": (1_516, 151_600),
        "s4": (32, 2_000),
        "c5": (48_120, 48_120),
        "f6": (10_164, 10_164),
        "rbf": (0, 840),
    }
    assert sum(connections for _, connections in found.values()) == 340_908


@once
def test_codes_and_table_match_the_paper():
    bits = codes().reshape(10, 12, 7)
    drawn = "\n".join(
        "".join("#" if pixel > 0 else "." for pixel in row)
        for digit in bits
        for row in digit
    )
    assert hashlib.sha256(drawn.encode()).hexdigest() == (
        "657773aa7a78dd3fa682a9c772995c53948bca1691e6410f2ba9b26f3663051e"
    )
    # Table I: six rows of three neighbours, six of four, three of two pairs,
    # and one of all maps.
    rings = [
        tuple(sorted((first + step) % 6 for step in range(count)))
        for count in (3, 4)
        for first in range(6)
    ]
    pairs = [
        tuple(sorted({k, k + 1, (k + 3) % 6, (k + 4) % 6})) for k in (0, 1, 2)
    ]
    assert sorted(TABLE[:12]) == sorted(rings)
    assert sorted(TABLE[12:15]) == sorted(pairs)
    assert TABLE[15] == tuple(range(6))


def test_the_network_equals_a_numpy_version_of_the_paper(generator):
    model = OriginalLeNet5()
    for layer in model.layers:
        layer.set_weights(
            [
                generator.uniform(-0.3, 0.3, weight.shape)
                for weight in layer.weights
            ]
        )
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    image = generator.integers(0, 256, (28, 28))
    field = np.full((32, 32), -0.1)
    field[2:30, 2:30] = -0.1 + 1.275 * image / 255
    maps = [field]

    def convolve(maps, table, kernels, biases):
        size = maps[0].shape[0] - 4
        index = iter(range(len(kernels)))
        convolved = []
        for sources, bias in zip(table, biases, strict=True):
            total = np.full((size, size), bias, "float64")
            for source in sources:
                kernel = kernels[next(index)]
                for row, column in np.ndindex(size, size):
                    window = maps[source][row : row + 5, column : column + 5]
                    total[row, column] += (window * kernel).sum()
            convolved.append(squash(total))
        return convolved

    def subsample(maps, coefficients, biases):
        return [
            squash(
                c * (m[::2, ::2] + m[1::2, ::2] + m[::2, 1::2] + m[1::2, 1::2])
                + b
            )
            for m, c, b in zip(maps, coefficients, biases, strict=True)
        ]

    kernel, bias = weights["c1"]
    maps = convolve(maps, [[0]] * 6, np.moveaxis(kernel[:, :, 0], -1, 0), bias)
    maps = subsample(maps, *weights["s2"])
    kernel, bias = weights["c3"]
    maps = convolve(maps, TABLE, np.moveaxis(kernel, -1, 0), bias)
    maps = subsample(maps, *weights["s4"])
    kernel, bias = weights["c5"]
    c5 = squash(np.einsum("ijco,cij->o", kernel, np.stack(maps)) + bias)
    kernel, bias = weights["f6"]
    f6 = squash(c5 @ kernel + bias)
    distances = ((f6 - codes()) ** 2).sum(axis=1)
    found = model.predict(image[np.newaxis, ..., np.newaxis], verbose=0)
    np.testing.assert_allclose(-found[0], distances, rtol=1e-4)


def test_the_smallest_distance_wins(generator):
    images = generator.integers(0, 256, (30, 28, 28, 1)).astype("uint8")
    model = OriginalLeNet5()
    scores = model.predict(images, verbose=0)
    assert scores.max() < 0
    model.compile(loss=DistanceLoss(), metrics=["accuracy"])
    labels = scores.argmax(axis=1)
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert accuracy == 1
    np.testing.assert_allclose(loss, -scores.max(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize("rubbish", [None, 0.5, 30.0])
def test_the_loss_equals_the_equations(rubbish, generator):
    distances = generator.uniform(0, 40, (8, 10))
    labels = generator.integers(0, 10, 8)
    right = distances[range(8), labels]
    expected = right
    if rubbish:
        competing = np.exp(-rubbish) + np.exp(-distances).sum(axis=1)
        expected = right + np.log(competing)
    loss = DistanceLoss(rubbish)
    np.testing.assert_allclose(
        to_numpy(loss(labels, -distances)), expected.mean(), rtol=1e-4
    )
    assert DistanceLoss.from_config(loss.get_config()).rubbish == rubbish


@pytest.mark.parametrize("rubbish", [None, 30.0])
@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 1), (4, 6)])
def test_the_loss_of_an_output_map_equals_that_of_its_positions(
    shape, rubbish, generator
):
    places = shape[:3]
    labels = generator.integers(0, 10, shape)
    scores = -generator.uniform(0, 40, (*places, 10))
    weights = generator.uniform(size=places)
    loss = DistanceLoss(rubbish)
    np.testing.assert_allclose(
        to_numpy(loss(labels, scores, weights)),
        to_numpy(loss(labels.ravel(), scores.reshape(-1, 10), weights.ravel())),
        rtol=1e-5,
    )
    losses = DistanceLoss(rubbish, reduction="none")(labels, scores)
    assert tuple(losses.shape) == places


def test_a_network_for_wide_images_takes_a_label_for_each_window(
    generator,
):
    model = OriginalLeNet5(input_shape=(32, 40, 1), include_preprocessing=False)
    model.compile("sgd", DistanceLoss(), metrics=["accuracy"])
    images = generator.normal(size=(5, 32, 40, 1)).astype("float32")
    scores = model.predict(images, verbose=0)
    labels = scores.argmax(axis=-1)
    assert labels.shape == (5, 1, 3)
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert accuracy == 1
    np.testing.assert_allclose(loss, -scores.max(axis=-1).mean(), rtol=1e-5)


@pytest.mark.parametrize("fan_in", [0, -1, 2.5, [3, 0], [[1]], True, "9", None])
def test_an_invalid_fan_in_raises(fan_in):
    with pytest.raises(ValueError, match=r"`fan_in` must .*Received: fan_in="):
        UniformByFanIn(fan_in)


@pytest.mark.parametrize("fan_in", [9, [9, 4], (9, 4), np.array([9, 4])])
def test_initial_weights_fill_the_range_of_the_fan_in(fan_in):
    initializer = UniformByFanIn(fan_in, seed=3)
    weights = to_numpy(initializer((500, 2)))
    assert weights.dtype == "float32"
    largest = np.abs(weights).max(axis=0) * np.sqrt(fan_in)
    assert (largest < 1).all() and (largest > 0.95).all()
    again = keras.initializers.deserialize(
        json.loads(json.dumps(keras.initializers.serialize(initializer)))
    )
    np.testing.assert_array_equal(to_numpy(again((500, 2))), weights)


def test_large_distances_do_not_overflow_the_loss():
    distances = np.full((1, 10), 600.0, "float32")
    loss = to_numpy(DistanceLoss(rubbish=500.0)(np.array([3]), -distances))
    np.testing.assert_allclose(loss, 600 - 500, rtol=1e-5)


@pytest.mark.parametrize("rubbish", [None, 20.0])
def test_second_derivatives_of_the_loss_equal_finite_differences(
    rubbish, generator
):
    features = generator.uniform(-1.5, 1.5, (4, 84)).astype("float64")
    # Place one sample near two codes.
    features[0] = codes()[6] * 0.6 + codes()[8] * 0.4
    labels = np.array([6, 1, 2, 3])

    def value(x, label):
        distances = ((x - codes()) ** 2).sum(axis=1)
        if rubbish is None:
            return distances[label]
        least = min(distances.min(), rubbish)
        total = np.exp(least - rubbish) + np.exp(least - distances).sum()
        return distances[label] + np.log(total) - least

    found = to_numpy(
        DistanceLoss(rubbish).second_derivatives(
            labels, features.astype("float32"), codes()
        )
    )
    step = 1e-3
    for sample, unit in [(0, 8), (0, 40), (1, 3), (2, 60), (3, 83)]:
        moved = np.zeros(84)
        moved[unit] = step
        x, label = features[sample], labels[sample]
        expected = (
            value(x + moved, label)
            - 2 * value(x, label)
            + value(x - moved, label)
        ) / step**2
        np.testing.assert_allclose(found[sample, unit], expected, atol=2e-3)


def test_a_wider_image_returns_the_output_of_every_window(generator):
    model = OriginalLeNet5(input_shape=(32, 32, 1), include_preprocessing=False)
    wide = adapt(model, input_shape=(36, 64, 1))
    assert wide.output_shape == (None, 2, 9, 10)
    image = generator.normal(size=(1, 36, 64, 1)).astype("float32")
    found = wide.predict(image, verbose=0)
    for row, column in np.ndindex(2, 9):
        window = image[:, 4 * row :][:, :32, 4 * column :][:, :, :32]
        np.testing.assert_allclose(
            found[:, row, column],
            model.predict(window, verbose=0),
            rtol=1e-4,
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_classes": 3, "input_shape": (20, 30, 3)},
        {"input_shape": (32, 40, 1), "include_preprocessing": False},
        {"dtype": "mixed_bfloat16", "name": "mine", "trainable": False},
    ],
)
def test_a_loaded_model_predicts_the_same(arguments, tmp_path, generator):
    model = OriginalLeNet5(**arguments)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    shape = (2, *model.input_shape[1:])
    images = generator.integers(0, 256, shape).astype("float32")
    if not model.include_preprocessing:
        images = images / 200 - 0.1
    expected = model.predict(images, verbose=0)
    for again in (
        keras.saving.load_model(tmp_path / "model.keras"),
        load_model(tmp_path / "model.keras"),
        OriginalLeNet5.from_preset(tmp_path / "preset"),
    ):
        assert type(again) is OriginalLeNet5
        assert again.get_config() == model.get_config()
        np.testing.assert_array_equal(
            again.predict(images, verbose=0), expected
        )


def test_a_preset_of_another_class_raises(tmp_path):
    OriginalLeNet5().save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="must be one of a LeNet5"):
        LeNet5.from_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="must be one of a OriginalLeNet5"):
        OriginalLeNet5.from_preset("digits")


def test_the_model_learns_with_held_out_evaluation(digits):
    (x_train, y_train), (x_test, y_test) = digits
    keras.utils.set_random_seed(1)
    model = OriginalLeNet5(input_shape=x_train.shape[1:])
    model.compile("adam", DistanceLoss(rubbish=30.0), metrics=["accuracy"])
    held_out = HeldOutEvaluation((x_test, y_test), freq=10)
    model.fit(
        x_train,
        y_train,
        batch_size=50,
        epochs=4,
        verbose=0,
        callbacks=[held_out],
    )
    assert held_out.history["accuracy"][-1] > 0.9


class StepByStep(OriginalLeNet5):
    # Keras' own loop runs the steps of a subclass.
    def train_step(self, *arguments):
        return super().train_step(*arguments)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras' own steps run there")
def test_compiled_steps_equal_keras_steps(generator):
    images = generator.integers(0, 256, (12, 28, 28, 1)).astype("uint8")
    labels = generator.integers(0, 10, 12)
    weights = []
    for make in (OriginalLeNet5, StepByStep):
        keras.utils.set_random_seed(3)
        model = make()
        model.compile(keras.optimizers.SGD(1e-3), DistanceLoss())
        assert model.trains_compiled() is (make is OriginalLeNet5)
        model.fit(images, labels, batch_size=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
