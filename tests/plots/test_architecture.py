import io
import re

import keras
import numpy as np
import pytest
from matplotlib.patches import PathPatch, Polygon, Rectangle

from keras_lenet import LeNet5, OriginalLeNet5
from keras_lenet.plots import NotebookFigure, plot_architecture

LAYERS = keras.layers

TITLES = [
    "C1: feature maps\n6@28x28",
    "S2: f. maps\n6@14x14",
    "C3: f. maps\n16@10x10",
    "S4: f. maps\n16@5x5",
    "C5: layer\n120",
    "F6: layer\n84",
]

OPERATIONS = [
    "Convolutions",
    "Subsampling",
    "Convolutions",
    "Subsampling",
    "Full\nconnection",
    "Full\nconnection",
]


def texts(model):
    """Returns the texts above, those below from the left, and the total."""
    (axes,) = plot_architecture(model).axes
    rows = {}
    for text in axes.texts:
        x, y = text.get_position()
        rows.setdefault(y, []).append((x, text.get_text()))
    above, below, numbers = (
        [text for _, text in sorted(rows[y])] for y in sorted(rows)[::-1]
    )
    assert below[0] == "All weights"
    total, *counts = (int(text.replace(",", "")) for text in numbers)
    return above, below[1:], counts, total


def make_twin():
    """Returns a plain model with the layers of `LeNet5`."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            LAYERS.Conv2D(6, 5, activation="relu"),
            LAYERS.MaxPooling2D(),
            LAYERS.Conv2D(16, 5, activation="relu"),
            LAYERS.MaxPooling2D(),
            LAYERS.Flatten(),
            LAYERS.Dense(120, activation="relu"),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(84, activation="relu"),
            LAYERS.Dense(10),
            LAYERS.Softmax(),
        ]
    )


def test_lenet5_has_the_texts_of_the_paper_and_its_own_numbers():
    above, below, counts, total = texts(LeNet5())
    assert above == ["INPUT\n28x28 as 32x32", *TITLES, "OUTPUT\n10"]
    assert below == [*OPERATIONS, "Full\nconnection"]
    assert counts == [156, 0, 2416, 0, 48120, 10164, 850]
    assert total == sum(counts) == 61706


def test_original_lenet5_has_the_numbers_of_the_paper():
    above, below, counts, total = texts(OriginalLeNet5())
    assert above == ["INPUT\n28x28 as 32x32", *TITLES, "OUTPUT\n10"]
    assert below == [*OPERATIONS, "Gaussian\nconnections"]
    assert counts == [156, 12, 1516, 32, 48120, 10164, 0]
    assert total == sum(counts) == 60000


def test_the_channels_and_the_number_of_classes_are_those_of_the_model():
    model = LeNet5(num_classes=26, input_shape=(32, 20, 3))
    above, _, counts, total = texts(model)
    assert above[0] == "INPUT\n3@32x20 as 3@32x32"
    assert above[-1] == "OUTPUT\n26"
    assert (counts[0], counts[-1]) == (6 * (75 + 1), 26 * (84 + 1))
    assert total == sum(counts) == model.count_params()


def test_a_space_displacement_network_has_maps_of_outputs():
    above, below, _, _ = texts(OriginalLeNet5(input_shape=(32, 64, 1)))
    assert above[0] == "INPUT\n32x64"
    assert above[5:] == [
        "C5: f. maps\n120@1x9",
        "F6: f. maps\n84@1x9",
        "OUTPUT\n10@1x9",
    ]
    assert below[4] == "Convolutions"


def test_plain_models_have_the_same_texts():
    expected = texts(LeNet5(include_preprocessing=False))
    assert expected[0][0] == "INPUT\n32x32"
    twin = make_twin()
    assert texts(twin) == expected
    assert texts(keras.Model(twin.inputs, twin.outputs)) == expected
    # Keras calls each layer again, so it belongs to two models.
    assert texts(keras.Sequential([twin.inputs[0], *twin.layers])) == expected


def test_the_channels_may_come_first():
    model = keras.Sequential(
        [
            keras.Input((3, 9, 8)),
            LAYERS.ZeroPadding2D(1, data_format="channels_first"),
            LAYERS.DepthwiseConv2D(3, data_format="channels_first"),
            LAYERS.GlobalMaxPooling2D(data_format="channels_first"),
        ]
    )
    assert texts(model)[0] == [
        "INPUT\n3@9x8 as 3@11x10",
        "C1: feature maps\n3@9x8",
        "OUTPUT\n3",
    ]


def test_dense_layers_see_images_without_convolutions():
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            LAYERS.Flatten(),
            LAYERS.Dense(300),
            LAYERS.Dense(10),
        ]
    )
    above, below, counts, _ = texts(model)
    assert above == ["INPUT\n28x28", "F1: layer\n300", "OUTPUT\n10"]
    assert below == ["Full\nconnection"] * 2
    assert counts == [300 * 785, 3010]


def test_a_box_with_its_name_stands_for_any_other_layer():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            LAYERS.Conv2D(4, 3),
            LAYERS.BatchNormalization(),
            LAYERS.UpSampling2D(),
            LAYERS.Flatten(),
            LAYERS.Dense(2),
        ]
    )
    (axes,) = plot_architecture(model).axes
    found = [text.get_text() for text in axes.texts]
    for text in ("BatchNormalization", "UpSampling2D", "OUTPUT\n2"):
        assert found.count(text) == 1
    numbers = [int(t.replace(",", "")) for t in found if t[0].isdigit()]
    assert numbers == [model.count_params(), 40, 16, 0, 12 * 12 * 4 * 2 + 2]


def test_a_transposed_convolution_is_a_box():
    layers = [keras.Input((4, 4, 1)), LAYERS.Conv2DTranspose(2, 3)]
    (axes,) = plot_architecture(keras.Sequential(layers)).axes
    assert "Conv2DTranspose" in [text.get_text() for text in axes.texts]


def test_maps_shrink_and_the_patch_is_to_scale():
    (axes,) = plot_architecture(LeNet5()).axes
    squares = [p for p in axes.patches if isinstance(p, Rectangle)]
    maps = [p for p in squares if p.get_fill()]
    patch = next(p for p in squares if not p.get_fill())
    widths = [round(p.get_width(), 6) for p in maps]
    assert widths == sorted(widths, reverse=True)
    sizes = {width: widths.count(width) for width in widths}
    assert list(sizes.values()) == [1, 6, 6, 16, 16]
    assert patch.get_width() / maps[0].get_width() == pytest.approx(5 / 32)
    # The patch lies on the input.
    assert maps[0].get_x() < patch.get_x()
    assert patch.get_x() + patch.get_width() < maps[0].get_x() + widths[0]


def test_bars_are_as_many_as_layers_without_maps():
    (axes,) = plot_architecture(LeNet5()).axes
    bars = [p for p in axes.patches if type(p) is Polygon and p.get_linewidth()]
    heights = [np.ptp(p.get_xy()[:, 1]) for p in bars]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == 3
    assert sum(isinstance(p, PathPatch) for p in axes.patches) == 1


@pytest.mark.parametrize("make", [LeNet5, OriginalLeNet5, make_twin])
def test_no_text_overlaps_another_or_leaves_the_figure(make):
    figure = plot_architecture(make())
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for index, box in enumerate(boxes):
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width
        assert 0 <= box.y0 <= box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_an_svg_has_its_text_as_text_on_white():
    figure = plot_architecture(LeNet5())
    assert isinstance(figure, NotebookFigure)
    file = io.StringIO()
    figure.savefig(file, format="svg")
    found = re.findall(r">([^<>\n]+)</t(?:ext|span)>", file.getvalue())
    for text in ("C1: feature maps", "6@28x28", "61,706"):
        assert text in found
    assert figure.get_facecolor() == (1, 1, 1, 1)


def make_branches():
    inputs = keras.Input((8, 8, 1))
    x = LAYERS.Conv2D(1, 3, padding="same")(inputs)
    return keras.Model(inputs, LAYERS.Add()([inputs, x]))


def make_two_outputs():
    inputs = keras.Input((8,))
    return keras.Model(
        inputs, [LAYERS.Dense(1)(inputs), LAYERS.Dense(2)(inputs)]
    )


def make_two_outputs_of_a_chain():
    inputs = keras.Input((8,))
    x = LAYERS.Dense(1)(inputs)
    return keras.Model(inputs, [LAYERS.Dense(2)(x), x])


def make_repetition():
    inputs = keras.Input((8,))
    dense = LAYERS.Dense(8)
    return keras.Model(inputs, dense(dense(inputs)))


class Subclass(keras.Model):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_branches, "must be a chain.*Received: model=<Functional"),
        (make_two_outputs, "must be a chain.*several inputs or outputs"),
        (make_two_outputs_of_a_chain, "must be a chain"),
        (make_repetition, "must be a chain"),
        (Subclass, "must be a built Functional or Sequential.*<Subclass"),
        (keras.Sequential, "must be a built Functional or Sequential"),
        (dict, "must be a built Functional.*Received: model={}"),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 1)), LAYERS.Conv2D(2, 3)]
            ),
            r"known sizes.*Received: a layer with shape \(None, None, None, 1",
        ),
    ],
)
def test_plot_architecture_rejects(make, message):
    with pytest.raises(ValueError, match=message):
        plot_architecture(make())
