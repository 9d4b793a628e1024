import keras
import numpy as np
import pytest

from keras_lenet import CurvatureEstimation, OriginalLeNet5
from keras_lenet.original import (
    DistanceLoss,
    EuclideanRBF,
    LevenbergMarquardt,
    diagonal_curvature,
    scaled_tanh,
)
from keras_lenet.saving import adapt
from tests.helpers import on_default_backend


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def a_chain(codes, *layers):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            *layers,
            EuclideanRBF(codes),
            keras.layers.Rescaling(-1.0),
        ]
    )
    model.compile("sgd", DistanceLoss())
    return model


def test_the_curvature_of_two_layers_equals_the_equations(generator):
    codes = generator.normal(size=(2, 4))
    model = a_chain(
        codes,
        keras.layers.Dense(5, activation=scaled_tanh),
        keras.layers.Dense(4, activation=scaled_tanh),
    )
    x = generator.normal(size=(6, 3)).astype("float32")
    w1, b1, w2, b2 = model.get_weights()
    found = diagonal_curvature(model, x, np.zeros(6, int))
    # Sum over samples and units, as in appendix C.
    expected = [np.zeros_like(w) for w in (w1, b1, w2, b2)]

    def slope(a):
        return 1.7159 * 2 / 3 / np.cosh(2 / 3 * a) ** 2

    for sample in x:
        a1 = sample @ w1 + b1
        x1 = 1.7159 * np.tanh(2 / 3 * a1)
        h2 = slope(x1 @ w2 + b2) ** 2 * 2
        h1 = slope(a1) ** 2 * (w2**2 @ h2)
        expected[2] += np.outer(x1**2, h2) / 6
        expected[3] += h2 / 6
        expected[0] += np.outer(sample**2, h1) / 6
        expected[1] += h1 / 6
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(one), other, rtol=1e-3)


def test_shared_weights_sum_the_curvature_of_their_connections(generator):
    images = generator.integers(0, 256, (4, 28, 28, 1)).astype("uint8")
    model = OriginalLeNet5()
    model.compile("sgd", DistanceLoss(rubbish=20.0))
    found = dict(
        zip(
            [v.path for v in model.trainable_variables],
            map(to_numpy, diagonal_curvature(model, images, np.arange(4))),
            strict=True,
        )
    )
    for variable in model.trainable_variables:
        curvature = found[variable.path]
        assert curvature.shape == tuple(variable.shape)
        assert np.isfinite(curvature).all() and (curvature > 0).all()
    # A bias is the weight of an input of 1. Where all inputs are -0.1, the
    # curvature of the weights is 0.1 ** 2 times that of the bias.
    paper = np.zeros((4, 28, 28, 1), "uint8")
    c1 = diagonal_curvature(model, paper, np.arange(4))[:2]
    kernel, bias = map(to_numpy, c1)
    np.testing.assert_allclose(
        kernel, np.broadcast_to(bias * 0.01, kernel.shape), rtol=1e-4
    )


def test_layers_without_bias_have_the_same_curvature_as_with_a_bias_of_0(
    generator,
):
    codes = generator.normal(size=(2, 4))
    x = generator.normal(size=(6, 3)).astype("float32")
    models = [
        a_chain(
            codes,
            keras.layers.Dense(5, activation="tanh", use_bias=use_bias),
            keras.layers.Dense(4, use_bias=use_bias),
        )
        for use_bias in (True, False)
    ]
    kernels = models[0].get_weights()[::2]
    models[1].set_weights(kernels)
    expected, found = (
        diagonal_curvature(model, x, np.zeros(6, int)) for model in models
    )
    for one, other in zip(found, expected[::2], strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=1e-5)


def test_l2_penalties_add_to_the_curvature(generator):
    codes = generator.normal(size=(2, 4))
    x = generator.normal(size=(6, 3)).astype("float32")

    def curvatures(**options):
        model = a_chain(codes, keras.layers.Dense(4, **options))
        model.set_weights([np.full((3, 4), 0.5), np.full(4, 0.2)])
        return map(to_numpy, diagonal_curvature(model, x, np.zeros(6, int)))

    kernel, bias = curvatures()
    regularizers = {
        "kernel_regularizer": keras.regularizers.L1L2(0.3, 0.1),
        "bias_regularizer": keras.regularizers.L1(0.7),
    }
    penalized = curvatures(**regularizers)
    for one, other in zip(penalized, (kernel + 0.2, bias), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_frozen_layers_are_left_out(generator):
    codes = generator.normal(size=(2, 4))
    x = generator.normal(size=(6, 3)).astype("float32")
    first = keras.layers.Dense(5, activation="tanh")
    model = a_chain(codes, first, keras.layers.Dense(4))
    expected = diagonal_curvature(model, x, np.zeros(6, int))[2:]
    first.trainable = False
    found = diagonal_curvature(model, x, np.zeros(6, int))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])
def test_curvature_does_not_depend_on_the_input_dtype(dtype, generator):
    x = generator.integers(0, 256, (6, 3))
    model = a_chain(generator.normal(size=(2, 4)), keras.layers.Dense(4))
    for one, other in zip(
        diagonal_curvature(model, x.astype(dtype), np.zeros(6, int)),
        diagonal_curvature(model, x.astype("float32"), np.zeros(6, int)),
        strict=True,
    ):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=1e-5)


@pytest.mark.parametrize("rubbish", [None, 20.0])
def test_the_curvature_of_an_output_map_is_the_mean_over_its_positions(
    rubbish, generator
):
    model = OriginalLeNet5(input_shape=(32, 32, 1), include_preprocessing=False)
    wide = adapt(model, input_shape=(32, 40, 1))
    images = generator.normal(size=(3, 32, 40, 1)).astype("float32")
    windows = np.concatenate(
        [images[:, :, start : start + 32] for start in (0, 4, 8)]
    )
    found = []
    for one, x in ((model, windows), (wide, images)):
        one.compile("sgd", DistanceLoss(rubbish))
        found.append(diagonal_curvature(one, x, np.zeros(len(x), int))[-2:])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=1e-3)


def a_residual_network(codes):
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3)(inputs)
    x = keras.layers.Dense(3)(x) + x
    x = keras.layers.Rescaling(-1.0)(EuclideanRBF(codes)(x))
    return keras.Model(inputs, x)


def a_network_of_probabilities(codes):
    x = inputs = keras.Input((3,))
    x = EuclideanRBF(codes)(keras.layers.Dense(3)(x))
    return keras.Model(inputs, keras.layers.Softmax()(-x))


def with_lora(codes):
    layer = keras.layers.Dense(3, lora_rank=1)
    return a_chain(codes, layer)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (a_residual_network, "one after the other"),
        (a_network_of_probabilities, "one after the other"),
        (with_lora, "neither quantized nor with LoRA"),
        (
            lambda codes: a_chain(
                codes, keras.layers.Dense(3, activation="softmax")
            ),
            "elementwise activations.*activation='softmax'",
        ),
        (
            lambda codes: a_chain(
                codes, keras.layers.Dense(3, activity_regularizer="l2")
            ),
            "no regularizers but L1 and L2 on weights",
        ),
        (
            lambda codes: a_chain(
                codes,
                keras.layers.Dense(
                    3, kernel_regularizer="orthogonal_regularizer"
                ),
            ),
            "no regularizers but L1 and L2 on weights",
        ),
    ],
)
def test_unsupported_networks_raise(make, match, generator):
    model = make(generator.normal(size=(2, 3)))
    model.compile("sgd", DistanceLoss())
    x = generator.normal(size=(4, 3)).astype("float32")
    with pytest.raises(ValueError, match=match):
        diagonal_curvature(model, x, np.zeros(4, int))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_is_not_a_mean_raises(reduction, generator):
    model = a_chain(generator.normal(size=(2, 3)), keras.layers.Dense(3))
    model.compile("sgd", DistanceLoss(reduction=reduction))
    with pytest.raises(
        ValueError, match=f"the mean of a `DistanceLoss`.*'{reduction}'"
    ):
        diagonal_curvature(model, np.ones((4, 3)), np.zeros(4, int))


def test_a_step_divides_the_gradient_by_the_curvature(generator):
    weight = keras.Variable(generator.normal(size=3).astype("float32"))
    before = to_numpy(weight)
    optimizer = LevenbergMarquardt(0.1, mu=0.5)
    optimizer.build([weight])
    curvature = np.array([0.5, 1.5, 9.5], "float32")
    optimizer.curvatures[0].assign(curvature)
    gradient = generator.normal(size=3).astype("float32")
    optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    np.testing.assert_allclose(
        to_numpy(weight),
        before - 0.1 * gradient / (curvature + 0.5),
        rtol=1e-5,
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.mu == 0.5 and type(again) is LevenbergMarquardt


@on_default_backend
def test_curvature_is_estimated_before_each_epoch(generator):
    images = generator.integers(0, 256, (20, 28, 28, 1)).astype("uint8")
    labels = generator.integers(0, 10, 20)
    steps = []

    class Noted(CurvatureEstimation):
        def on_interval(self, step, epoch):
            super().on_interval(step, epoch)
            steps.append(step)
            found = diagonal_curvature(self.model, images, labels)
            for curvature, expected in zip(
                self.model.optimizer.curvatures, found, strict=True
            ):
                np.testing.assert_allclose(
                    to_numpy(curvature), to_numpy(expected), rtol=1e-3
                )

    keras.utils.set_random_seed(1)
    model = OriginalLeNet5()
    model.compile(LevenbergMarquardt(1e-5), DistanceLoss())
    model.fit(
        images,
        labels,
        batch_size=4,
        epochs=3,
        verbose=0,
        callbacks=[Noted(images, labels, sample_size=20)],
    )
    assert steps == [0, 5, 10, 15]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sample_size": 4}, "`sample_size` must be from 1"),
        ({"sample_size": 0}, "`sample_size` must be from 1"),
        ({"sample_size": 2, "y": np.arange(2)}, "have the same length"),
        ({"sample_size": 2, "freq": 0}, "`freq` must be a positive"),
    ],
)
def test_invalid_arguments_raise(arguments, match):
    data = {"x": np.zeros((3, 28, 28, 1), "uint8"), "y": np.arange(3)}
    with pytest.raises(ValueError, match=match):
        CurvatureEstimation(**{**data, **arguments})


def test_a_wrong_optimizer_loss_or_layer_raises(generator):
    images, labels = np.zeros((3, 28, 28, 1), "uint8"), np.arange(3)
    callback = CurvatureEstimation(images, labels, sample_size=3)
    model = OriginalLeNet5()
    model.compile("sgd", DistanceLoss())
    with pytest.raises(ValueError, match="compiled with `LevenbergMarquardt`"):
        model.fit(images, labels, verbose=0, callbacks=[callback])
    model.compile(LevenbergMarquardt(), "mse")
    with pytest.raises(
        ValueError, match="compiled with the mean of a `DistanceLoss`"
    ):
        diagonal_curvature(model, images, labels)
    codes = generator.normal(size=(2, 3))
    other = a_chain(codes, keras.layers.BatchNormalization())
    with pytest.raises(ValueError, match="must be a chain of layers"):
        diagonal_curvature(other, np.zeros((3, 3), "float32"), labels)
    with pytest.raises(ValueError, match="`mu` must be a number above 0"):
        LevenbergMarquardt(mu=0)


@on_default_backend
def test_the_learning_rates_of_the_first_epoch_match_the_paper(mnist_dir):
    from keras_lenet.datasets import load_data

    (images, labels), _ = load_data(mnist_dir / "mnist")
    model = OriginalLeNet5()
    model.compile(LevenbergMarquardt(), DistanceLoss())
    found = diagonal_curvature(model, images[:500], labels[:500])
    curvatures = np.concatenate([to_numpy(one).ravel() for one in found])
    rates = 0.0005 / (0.02 + curvatures)
    assert len(rates) == 60_000
    # Allow a few outliers, which depend on the initial weights.
    assert np.mean((rates > 7e-5) & (rates < 0.016)) > 0.995
    assert rates.min() > 5e-5 and rates.max() < 0.022
