import random

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from keras_lenet.original import OriginalLeNet5
from keras_lenet.plots import (
    plot_embedding,
    plot_feature_maps,
    plot_kernels,
    plot_occlusion,
    plot_saliency,
)
from tests.helpers import BACKEND, since_keras

COUNT = 7
SHAPE = (8, 8, 1)


@pytest.fixture
def model():
    return LeNet5(input_shape=SHAPE)


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (COUNT, *SHAPE)).astype("uint8")


def maps(figure):
    """Returns the arrays that are drawn beside the images."""
    panels = [axes for axes in figure.axes if axes.images]
    return np.array([axes.images[0].get_array() for axes in panels[1::2]])


def titles(figure):
    panels = [axes for axes in figure.axes if axes.images]
    return [axes.get_title(loc="left") for axes in panels[::2]]


def linear(channels, *last):
    """Returns a model that multiplies the pixels with weights, and these."""
    weights = keras.layers.Dense(3, name="f6")
    model = keras.Sequential(
        [
            keras.Input((4, 5, channels)),
            keras.layers.Flatten(),
            weights,
            *last,
        ]
    )
    kernel = keras.ops.convert_to_numpy(weights.kernel)
    return model, kernel.reshape(4, 5, channels, 3)


def points(figure):
    """Returns the points of each class."""
    return [np.array(c.get_offsets()) for c in figure.axes[0].collections]


def test_plot_embedding_draws_the_principal_components(model, images):
    labels = [0, 1, 0, 4, 4, 4, 1]
    figure = plot_embedding(model, images, labels, layer_name="c3")
    zeros, ones, fours = points(figure)
    drawn = np.empty((COUNT, 2))
    drawn[[0, 2]], drawn[[1, 6]], drawn[[3, 4, 5]] = zeros, ones, fours

    x = images.astype("float32")
    for layer in model.layers[1:6]:
        x = layer(x)
        if layer.name == "c3":
            break
    outputs = keras.ops.convert_to_numpy(x).reshape(COUNT, -1)
    centred = outputs - outputs.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    # A direction may be reversed.
    np.testing.assert_allclose(
        abs(drawn), abs(expected), atol=1e-3 * sizes[0], rtol=1e-3
    )
    shares = sizes**2 / (sizes**2).sum()
    (axes,) = figure.axes
    assert axes.get_xlabel() == f"Component 1 ({shares[0]:.1%} of the variance)"
    assert axes.get_ylabel() == f"Component 2 ({shares[1]:.1%} of the variance)"
    count = outputs.shape[1]
    assert axes.get_title() == f"c3 of lenet5: {count:,} outputs for 7 images"


def test_plot_embedding_computes_many_images_in_batches(model, generator):
    images = generator.integers(0, 256, (600, *SHAPE)).astype("uint8")
    images[300:] = images[:300]
    (drawn,) = points(plot_embedding(model, images, [0] * 600))
    np.testing.assert_allclose(drawn[300:], drawn[:300], atol=1e-5)
    assert len(np.unique(drawn[:300].round(6), axis=0)) == 300


def test_each_class_has_its_own_color_number_and_name(model, generator):
    images = generator.integers(0, 256, (20, *SHAPE)).astype("uint8")
    labels = np.repeat(np.arange(10), 2)
    names = [f"${label}" for label in labels[::2]]
    figure = plot_embedding(model, images, labels, class_names=names)
    (axes,) = figure.axes
    colors = {tuple(c.get_facecolor()[0]) for c in axes.collections}
    markers = {c.get_paths()[0].vertices.tobytes() for c in axes.collections}
    assert len(colors) == len(markers) == 10
    for label, (of_class, text) in enumerate(
        zip(points(figure), axes.texts, strict=True)
    ):
        assert text.get_text() == f"\\${label}"
        np.testing.assert_allclose(text.get_position(), of_class.mean(axis=0))


def test_tsne_draws_the_same_points_whatever_the_global_seed(model, images):
    labels = np.zeros(COUNT, int)
    drawn = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        figure = plot_embedding(model, images, labels, method="tsne")
        drawn.append(points(figure)[0])
    np.testing.assert_array_equal(*drawn)
    assert figure.axes[0].get_xlabel() == "t-SNE 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "umap"}, "`method` must be 'pca' or 'tsne'"),
        ({"layer_name": "f7"}, r"`layer_name` must.*'f6'.*Received: 'f7'"),
        ({"labels": [0, 1]}, "`labels` must be one class per image"),
        ({"labels": [0, 1, -1]}, "`labels` must be not negative"),
        ({"images": np.ones((2, 8, 8)), "labels": [0, 1]}, "at least 3"),
        ({"images": np.ones((3, 9, 8))}, r"shape \(n, 8, 8, 1\)"),
    ],
)
def test_plot_embedding_rejects_wrong_arguments(changes, message, model):
    arguments = {"images": np.full((3, 8, 8), 9), "labels": [0, 1, 2]}
    with pytest.raises(ValueError, match=message):
        plot_embedding(model, **{**arguments, **changes})


def test_plot_embedding_rejects_a_layer_with_one_output():
    model = LeNet5(num_classes=1, input_shape=SHAPE)
    with pytest.raises(ValueError, match="at least 2 outputs"):
        plot_embedding(model, np.full((3, 8, 8), 9), [0, 0, 0], "output")


def test_saliency_is_the_finite_difference_of_the_score(generator):
    model = OriginalLeNet5(include_preprocessing=False)
    images = generator.uniform(-0.1, 1.1, (2, 32, 32, 1)).astype("float32")
    labels = [3, 8]
    drawn = maps(plot_saliency(model, images, labels))
    places = generator.integers(0, 32, (10, 2))
    step = 0.01
    for index, label in enumerate(labels):
        for sign in (1, -1):
            moved = np.repeat(images[index][np.newaxis], len(places), axis=0)
            moved[np.arange(len(places)), *places.T] += sign * step
            scores = model.predict(moved, verbose=0)[:, label]
            if sign == 1:
                higher = scores
        expected = np.abs(higher - scores) / (2 * step)
        np.testing.assert_allclose(
            drawn[index][*places.T],
            expected,
            rtol=0.02,
            atol=0.02 * drawn[index].max(),
        )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "last",
    [
        lambda: [],
        lambda: [keras.layers.Softmax()],
        lambda: [keras.layers.Activation("softmax")],
    ],
)
def test_saliency_of_a_linear_score_is_its_largest_weight(
    channels, last, generator
):
    model, kernel = linear(channels, *last())
    images = generator.normal(0, 1, (3, 4, 5, channels))
    drawn = maps(plot_saliency(model, images, [2, 0, 1]))
    expected = np.abs(kernel).max(axis=2)[..., [2, 0, 1]].transpose(2, 0, 1)
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)


def test_saliency_of_a_softmax_layer_without_bias_is_its_weight(generator):
    last = keras.layers.Dense(3, activation="softmax", use_bias=False)
    model = keras.Sequential(
        [keras.Input((4, 5, 1)), keras.layers.Flatten(), last]
    )
    kernel = keras.ops.convert_to_numpy(last.kernel).reshape(4, 5, 3)
    drawn = maps(plot_saliency(model, generator.random((1, 4, 5)), [1]))
    np.testing.assert_allclose(drawn[0], abs(kernel[..., 1]), rtol=1e-5)


def test_saliency_of_a_softmax_layer_is_that_of_its_logits(images, generator):
    model = LeNet5(input_shape=SHAPE)
    logits = LeNet5(input_shape=SHAPE, classifier_activation=None)
    weights = model.get_weights()
    weights[-1] = generator.normal(0, 1, 10)
    # The float32 gradient of such probabilities would vanish.
    weights[-2] *= 1000
    model.set_weights(weights)
    logits.set_weights(weights)
    labels = np.arange(COUNT)
    drawn = maps(plot_saliency(model, images, labels))
    expected = maps(plot_saliency(logits, images, labels))
    np.testing.assert_allclose(drawn, expected, rtol=1e-4)
    assert (drawn.max(axis=(1, 2)) > 0).all()


def test_saliency_without_logits_is_that_of_the_log_probability(generator):
    softmax = keras.Sequential([keras.Input((3,)), keras.layers.Softmax()])
    model, kernel = linear(1, softmax)
    images = generator.random((2, 4, 5))
    labels = np.array([1, 2])
    drawn = maps(plot_saliency(model, images, labels))
    shares = model.predict(images[..., np.newaxis], verbose=0)
    # d log p[c] = d z[c] - sum of p[j] * d z[j]
    expected = [
        np.abs(kernel[:, :, 0, label] - kernel[:, :, 0] @ share)
        for label, share in zip(labels, shares, strict=True)
    ]
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-6)


def test_saliency_of_a_quantized_layer_is_that_of_the_log_probability(
    generator,
):
    # The kernel of such a layer is not in the scale of its outputs.
    last = keras.layers.Dense(3, activation="softmax")
    model = keras.Sequential(
        [keras.Input((4, 5, 1)), keras.layers.Flatten(), last]
    )
    kernel = keras.ops.convert_to_numpy(last.kernel).reshape(4, 5, 3)
    last.quantize("int8")
    images = generator.random((2, 4, 5))
    drawn = maps(plot_saliency(model, images, [1, 1]))
    shares = model.predict(images[..., np.newaxis], verbose=0)
    expected = [np.abs(kernel[..., 1] - kernel @ share) for share in shares]
    np.testing.assert_allclose(drawn, expected, atol=0.02)


def test_sigmoids_are_probabilities_without_softmax(generator):
    model, kernel = linear(1, keras.layers.Activation("sigmoid"))
    images = generator.random((2, 4, 5))
    figure = plot_saliency(model, images, [0, 1])
    shares = model.predict(images[..., np.newaxis], verbose=0)
    for index, title in enumerate(titles(figure)):
        assert title.startswith(f"{index} ({shares[index, index]:.1%})")
    # d log sigmoid(z) = (1 - sigmoid(z)) dz
    expected = [
        np.abs(kernel[:, :, 0, index]) * (1 - shares[index, index])
        for index in range(2)
    ]
    np.testing.assert_allclose(maps(figure), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plot", [plot_saliency, plot_occlusion])
def test_titles_say_the_class_its_probability_and_another_answer(
    plot, model, images
):
    shares = model.predict(images, verbose=0)
    answers = shares.argmax(axis=1)
    assert titles(plot(model, images)) == [
        f"{answer} ({share.max():.1%})"
        for answer, share in zip(answers, shares, strict=True)
    ]
    others = (answers + 1) % 10
    assert titles(plot(model, images[..., 0], others)) == [
        f"{other} ({share[other]:.1%}), answer {answer}"
        for other, share, answer in zip(others, shares, answers, strict=True)
    ]


@pytest.mark.parametrize("size", [1, 3, 4, 20])
def test_occlusion_is_the_drop_that_predict_sees(size, images):
    model = LeNet5(input_shape=SHAPE, classifier_activation=None)
    images, labels = images[:2], [5, 0]
    drawn = maps(plot_occlusion(model, images, labels, size))

    def probability(image, label):
        logits = model.predict(image[np.newaxis], verbose=0)[0]
        return np.exp(logits[label]) / np.exp(logits).sum()

    for image, label, drops in zip(images, labels, drawn, strict=True):
        border = [*image[0], *image[-1], *image[1:-1, 0], *image[1:-1, -1]]
        background = sorted(int(value[0]) for value in border)[13]
        before = probability(image, label)
        for row, column in [(0, 0), (3, 4), (7, 7), (7, 2)]:
            covered = image.copy()
            for y in range(row - size // 2, row - size // 2 + size):
                for x in range(column - size // 2, column - size // 2 + size):
                    if 0 <= y < 8 and 0 <= x < 8:
                        covered[y, x] = background
            expected = before - probability(covered, label)
            assert drops[row, column] == pytest.approx(expected, abs=1e-5)


def test_covering_background_with_its_colour_changes_nothing(generator):
    model = LeNet5(input_shape=(8, 9, 3))
    images = np.tile(np.array([200, 30, 90], "uint8"), (2, 8, 9, 1))
    images[:, 3:5, 4:6] = generator.integers(0, 256, (2, 2, 2, 3))
    drawn = maps(plot_occlusion(model, images, size=3))
    changed = np.zeros((8, 9), bool)
    changed[2:6, 3:7] = True
    assert drawn.shape == (2, 8, 9)
    np.testing.assert_allclose(drawn[:, ~changed], 0, atol=1e-6)
    assert np.abs(drawn[:, changed]).max() > 1e-5


@pytest.mark.parametrize("size", [0, 2.5, True, "5"])
def test_plot_occlusion_rejects_other_sizes(size, model, images):
    with pytest.raises(ValueError, match=r"`size` must be.*Received: size="):
        plot_occlusion(model, images, size=size)


@pytest.mark.parametrize("plot", [plot_saliency, plot_occlusion])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0] * (COUNT - 1), "one class per image.*for 7 images"),
        ([10] * COUNT, "from 0 to 9.*Received: 10"),
        ([0.5] * COUNT, "be integers"),
    ],
)
def test_labels_that_are_no_classes_raise(plot, labels, message, model, images):
    with pytest.raises(ValueError, match=f"`labels` must.*{message}"):
        plot(model, images, labels)


@pytest.mark.parametrize("plot", [plot_saliency, plot_occlusion])
def test_no_images_and_images_of_two_channels_raise(plot, model):
    with pytest.raises(ValueError, match=r"shape \(n, 8, 8, 1\)"):
        plot(model, np.ones((0, 8, 8)))
    model = LeNet5(input_shape=(8, 8, 2))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        plot(model, np.full((1, 8, 8, 2), 9))


@pytest.mark.parametrize("plot", [plot_saliency, plot_occlusion])
def test_models_without_classes_raise(plot):
    model = OriginalLeNet5(input_shape=(32, 64, 1))
    with pytest.raises(ValueError, match="one number per class"):
        plot(model, np.ones((1, 32, 64)))


@pytest.mark.parametrize("plot", [plot_saliency, plot_occlusion])
def test_a_sequential_twin_has_the_same_explanations(plot, images, model):
    twin = keras.Sequential(
        [
            keras.Input(SHAPE),
            *(
                type(layer).from_config(layer.get_config())
                for layer in model.layers[1:]
            ),
        ]
    )
    twin.set_weights(model.get_weights())
    figure, other = plot(model, images[:2]), plot(twin, images[:2])
    np.testing.assert_allclose(maps(figure), maps(other), atol=1e-6)
    assert titles(figure) == titles(other)


def state(model):
    """Returns what plots must not change, in lists that can be compared."""
    generator, modes, gradients = [], [], []
    if BACKEND == "torch":
        import torch

        generator = torch.get_rng_state().tolist()
        modes = [module.training for module in model.modules()]
        gradients = [v.value.grad is None for v in model.trainable_variables]
    variables = [*model.variables, *model.optimizer.variables]
    return {
        "variables": [
            keras.ops.convert_to_numpy(v).copy().tolist() for v in variables
        ],
        "torch": generator,
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "trainable": [v.trainable for v in model.variables],
        "layers": [layer.trainable for layer in model.layers],
        "modes": modes,
        "gradients": gradients,
        "compiled": str(model.get_compile_config()),
        "config": str(model.get_config()),
        "policy": keras.config.dtype_policy().name,
    }


def test_plots_change_neither_the_model_nor_the_random_state(images, generator):
    keras.utils.set_random_seed(int(generator.integers(1000)))
    model = LeNet5(input_shape=SHAPE)
    model.get_layer("c3").trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    labels = np.arange(COUNT)
    model.train_on_batch(images, labels)
    model.get_layer("c1").activation = keras.activations.tanh
    x = images.copy()
    before = state(model)
    plot_kernels(model)
    plot_feature_maps(model, x[0])
    plot_embedding(model, x, labels)
    plot_embedding(model, x, labels, method="tsne")
    plot_saliency(model, x)
    plot_occlusion(model, x[:1])
    assert state(model) == before
    np.testing.assert_array_equal(x, images)


@since_keras((3, 12), "its `predict` draws a seed")
def test_plots_leave_the_unseeded_random_numbers_as_they_were(model, images):
    drawn = []
    for plots in (False, True):
        keras.utils.set_random_seed(3)
        if plots:
            plot_feature_maps(model, images[0])
            plot_embedding(model, images, [0] * COUNT, method="tsne")
            plot_saliency(model, images)
            plot_occlusion(model, images[:1])
        dense = keras.layers.Dense(4)
        dense.build((None, 3))
        drawn.append(
            [
                keras.ops.convert_to_numpy(dense.kernel).tolist(),
                keras.ops.convert_to_numpy(keras.random.normal((3,))).tolist(),
            ]
        )
    assert drawn[0] == drawn[1]


def test_models_made_after_a_plot_have_the_same_names(model, images):
    def names():
        functional = keras.Model(model.inputs, model.outputs)
        return keras.layers.Dense(1).name, functional.name

    first = names()
    plot_feature_maps(model, images[0])
    plot_saliency(model, images)
    for before, after in zip(first, names(), strict=True):
        stem, _, number = before.rpartition("_")
        if not number.isdigit():
            stem, number = before, "0"
        assert after == f"{stem}_{int(number) + 1}"
