import keras
import numpy as np
import pytest
from scipy.signal import correlate

from keras_lenet import LeNet5
from keras_lenet.models import Ensemble
from keras_lenet.original import OriginalLeNet5, TableConv2D, codes
from keras_lenet.plots import plot_feature_maps, plot_kernels
from tests.helpers import since_keras


def tiles(array, columns, size):
    """Cuts the pictures of `size` out of a drawn array, with its gaps."""
    array = np.ma.filled(array, np.nan)
    height, width = size
    gap = (
        0
        if columns == 1
        else (array.shape[1] - columns * width) // (columns - 1)
    )
    rows = (array.shape[0] + gap) // (height + gap)
    return np.array(
        [
            array[top : top + height, left : left + width]
            for top in np.arange(rows) * (height + gap)
            for left in np.arange(columns) * (width + gap)
        ]
    )


def drawn(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def rows_of(figure):
    """Returns the axes of each layer by its name."""
    labelled = [axes for axes in figure.axes if axes.get_ylabel()]
    return {axes.get_ylabel().split("\n")[0]: axes for axes in labelled}


def image(generator, shape=(28, 28, 1)):
    return generator.integers(0, 256, shape).astype("uint8")


def outputs_of(model, x):
    """Returns the output of each layer, called one after the other."""
    outputs = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            x = layer(x)
            outputs[layer.name] = keras.ops.convert_to_numpy(x)[0]
    return outputs


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["c1", "c3"])
def test_plot_kernels_draws_input_maps_by_output_maps(channels, name):
    model = LeNet5(input_shape=(28, 28, channels))
    axes, bar = plot_kernels(model, name).axes
    kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
    shown = tiles(drawn(axes), kernel.shape[-1], (5, 5))
    expected = kernel.transpose(2, 3, 0, 1).reshape(-1, 5, 5)
    np.testing.assert_array_equal(shown, expected)
    assert len(axes.get_yticks()) == kernel.shape[2]
    low, high = axes.images[0].get_clim()
    assert -low == high == pytest.approx(np.abs(kernel).max())
    assert bar.get_ylabel() == "Weight"
    assert axes.get_title() == f"{name}: {len(expected)} kernels of 5x5"


def test_plot_kernels_draws_the_kernels_that_a_table_convolution_applies(
    generator,
):
    # The table is not sorted, and no output map sees input map 1.
    layer = TableConv2D([[2], [2, 0]], (3, 2), use_bias=False, name="c1")
    model = keras.Sequential([keras.Input((6, 5, 3)), layer])
    axes = plot_kernels(model).axes[0]
    kernels = tiles(drawn(axes), 2, (3, 2)).reshape(3, 2, 3, 2)
    missing = [[True, False], [True, True], [False, False]]
    np.testing.assert_array_equal(np.isnan(kernels).all(axis=(2, 3)), missing)
    np.testing.assert_array_equal(np.isnan(kernels).any(axis=(2, 3)), missing)
    assert axes.get_title() == "c1: 3 kernels of 3x2"

    x = generator.random((6, 5, 3))
    maps = keras.ops.convert_to_numpy(layer(x[np.newaxis]))[0]
    for output in range(2):
        expected = sum(
            correlate(x[..., source], kernels[source, output], mode="valid")
            for source in range(3)
            if not missing[source][output]
        )
        np.testing.assert_allclose(maps[..., output], expected, rtol=1e-4)


def test_plot_kernels_of_zero_weights_keeps_a_scale():
    model = LeNet5()
    model.get_layer("c1").kernel.assign(np.zeros((5, 5, 1, 6)))
    axes = plot_kernels(model).axes[0]
    assert axes.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("name", ["f6", "s2", "flatten"])
@pytest.mark.parametrize("model", [LeNet5, OriginalLeNet5])
def test_plot_kernels_rejects_layers_without_pictures(model, name):
    with pytest.raises(ValueError, match=f"TableConv2D.*layer_name='{name}'"):
        plot_kernels(model(), name)


@pytest.mark.parametrize(
    "plot",
    [
        lambda model: plot_kernels(model, "c2"),
        lambda model: plot_feature_maps(model, np.ones((28, 28)), ["c1", "c2"]),
    ],
)
def test_an_unknown_layer_raises_an_error_that_lists_the_names(plot):
    with pytest.raises(
        ValueError, match=r"`layer_names?` must.*'c1', 's2'.*Received: 'c2'"
    ):
        plot(LeNet5())


@pytest.mark.parametrize("channels", [1, 3])
def test_plot_feature_maps_draws_what_each_layer_computes(channels, generator):
    model = LeNet5(input_shape=(20, 28, channels))
    x = image(generator, (20, 28, channels))
    figure = plot_feature_maps(model, x)
    rows = rows_of(figure)
    expected = outputs_of(model, x[np.newaxis].astype("float32"))
    # `flatten` has the numbers of `s4`.
    layers = ["pad_to_32", "rescaling", "c1", "s2", "c3", "s4", "c5", "f6"]
    assert list(rows) == ["image", *layers, "output"]
    np.testing.assert_array_equal(
        drawn(rows["image"]).reshape(x.shape), x.reshape(x.shape)
    )
    for name in layers:
        value = expected[name]
        shown = drawn(rows[name])
        if value.ndim == 3:
            count = value.shape[-1]
            shown = tiles(shown, count, value.shape[:2]).transpose(1, 2, 0)
        np.testing.assert_allclose(shown.reshape(value.shape), value, atol=1e-5)
    probabilities = model.predict(x[np.newaxis], verbose=0)[0]
    heights = [bar.get_height() for bar in rows["output"].patches]
    np.testing.assert_allclose(heights, probabilities, atol=1e-5)
    answer = probabilities.argmax()
    assert figure.get_suptitle() == (
        f"lenet5 answers {answer} ({probabilities[answer]:.1%})"
    )
    assert rows["c3"].get_ylabel() == "c3\n16 of 10x10"


def test_plot_feature_maps_draws_f6_beside_the_code_of_the_answer(generator):
    model = OriginalLeNet5.from_preset("original")
    x = image(generator)
    figure = plot_feature_maps(model, x)
    rows = rows_of(figure)
    answer = model.predict(x[np.newaxis], verbose=0)[0].argmax()
    units, code = tiles(drawn(rows["f6"]), 2, (12, 7))
    expected = outputs_of(model, x[np.newaxis])["f6"]
    np.testing.assert_allclose(units.ravel(), expected.ravel(), atol=1e-4)
    np.testing.assert_array_equal(code.ravel(), codes()[answer])
    assert rows["f6"].texts[0].get_text().endswith(f"of {answer}")
    # Values of both signs have a symmetric scale.
    low, high = rows["c1"].images[0].get_clim()
    assert -low == high > 0


def test_plot_feature_maps_draws_the_layers_asked_for_with_class_names(
    generator,
):
    names = ["$a$", "b", "c"]
    model = LeNet5(3, classifier_activation=None)
    x = image(generator)
    figure = plot_feature_maps(model, x[..., 0], ["output", "flatten"], names)
    rows = rows_of(figure)
    assert list(rows) == ["image", "output", "flatten"]
    assert drawn(rows["flatten"]).shape == (1, 400)
    labels = [label.get_text() for label in rows["output"].get_xticklabels()]
    assert labels == [r"\$a\$", "b", "c"]
    logits = model.predict(x[np.newaxis], verbose=0)[0]
    heights = [bar.get_height() for bar in rows["output"].patches]
    np.testing.assert_allclose(heights, logits, atol=1e-5)
    share = np.exp(logits.max()) / np.exp(logits).sum()
    name = labels[logits.argmax()]
    assert figure.get_suptitle() == f"lenet5 answers {name} ({share:.1%})"


@pytest.mark.parametrize("low", [0, -0.1])
def test_plot_feature_maps_draws_scaled_images(low, generator):
    model = OriginalLeNet5(include_preprocessing=False)
    x = generator.uniform(low, 1, (32, 32, 1))
    shown = rows_of(plot_feature_maps(model, x))["image"].images[0]
    values = np.asarray(shown.get_array())
    # Brighter pixels stay brighter, and none is cut off.
    order = np.argsort(x.ravel())
    assert (np.diff(values.ravel()[order]) >= 0).all()
    assert 0 <= values.min() < values.max() <= 1 == shown.get_clim()[1]


def test_a_sequential_twin_has_the_same_plot(generator):
    model = LeNet5(input_shape=(8, 8, 1))
    twin = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(
                type(layer).from_config(layer.get_config())
                for layer in model.layers[1:]
            ),
        ]
    )
    twin.set_weights(model.get_weights())
    x = image(generator, (8, 8, 1))
    rows, others = (rows_of(plot_feature_maps(m, x)) for m in (model, twin))
    assert list(rows) == list(others)
    for name in list(rows)[:-1]:
        np.testing.assert_allclose(
            drawn(rows[name]), drawn(others[name]), atol=1e-6
        )


def test_plot_feature_maps_wraps_many_maps():
    layer = keras.layers.Conv2D(35, 3, kernel_initializer="ones", name="c1")
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    axes = rows_of(plot_feature_maps(model, np.ones((5, 5)), ["c1"]))["c1"]
    shown = tiles(drawn(axes), 16, (3, 3))
    np.testing.assert_array_equal(shown[:35], np.full((35, 3, 3), 9))
    assert np.isnan(shown[35:]).all() and len(shown) == 48


@pytest.mark.parametrize(
    "wrong", [np.ones((1, 28, 28, 1)), np.ones((27, 28)), np.ones((28, 28, 3))]
)
def test_plot_feature_maps_rejects_images_of_another_shape(wrong):
    with pytest.raises(
        ValueError, match=r"`image` must have the shape \(28, 28, 1\)"
    ):
        plot_feature_maps(LeNet5(), wrong)


def test_plot_feature_maps_rejects_numbers_that_are_not_finite():
    wrong = np.full((28, 28), 9.0)
    wrong[3, 4] = np.nan
    with pytest.raises(ValueError, match="`image` must be finite"):
        plot_feature_maps(LeNet5(), wrong)


def test_plot_feature_maps_rejects_the_scale_that_predict_rejects():
    with pytest.raises(ValueError, match=r"raw pixels in \[0, 255\]"):
        plot_feature_maps(LeNet5(), np.full((28, 28), 0.5))


class Subclass(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Subclass(), "functional model"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "functional model"),
        (lambda: OriginalLeNet5(input_shape=(32, 64, 1)), "number per class"),
        (lambda: LeNet5(num_classes=1), "at least 2 classes"),
    ],
)
def test_plot_feature_maps_rejects_models_without_classes(model, message):
    with pytest.raises(ValueError, match=f"`model` must.*{message}"):
        plot_feature_maps(model(), np.ones((28, 28)))


@since_keras((3, 12), "it raises a KeyError of its own")
def test_plot_feature_maps_rejects_models_of_models():
    ensemble = Ensemble([LeNet5(), LeNet5()])
    with pytest.raises(ValueError, match=r"model.get_layer\('ensemble_0'\)"):
        plot_feature_maps(ensemble, np.full((28, 28), 9))
    plot_feature_maps(ensemble.get_layer("ensemble_0"), np.full((28, 28), 9))


@since_keras((3, 12), "it raises a KeyError of its own")
def test_plot_feature_maps_rejects_layers_shared_with_an_earlier_model():
    layers = LeNet5().layers[1:]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    with pytest.raises(ValueError, match="clone_model"):
        plot_feature_maps(model, np.full((28, 28), 9))
