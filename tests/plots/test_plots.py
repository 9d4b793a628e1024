import warnings
from typing import ClassVar

import numpy as np
import pytest

from keras_lenet.plots import (
    plot_confusion_matrix,
    plot_errors,
    plot_history,
    plot_pictures,
    plot_predictions,
    plot_risk_coverage,
)
from tests.helpers import on_default_backend, run_python

HISTORY = {
    "step": [5, 10, 15],
    "loss": [2.2, 1.5, 0.9],
    "accuracy": [0.2, 0.5, 0.7],
    "val_loss": [2.1, 1.4, 1.0],
    "val_accuracy": [0.3, 0.6, 0.8],
}


def curves(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_plot_history_draws_training_and_held_out_curves_over_steps():
    loss, accuracy = plot_history(HISTORY).axes
    assert (loss.get_title(), accuracy.get_title()) == ("Loss", "Accuracy")
    assert curves(loss) == {
        "training": [2.2, 1.5, 0.9],
        "held-out": [2.1, 1.4, 1.0],
    }
    assert list(accuracy.lines[0].get_xdata()) == [5, 10, 15]
    assert accuracy.get_xlabel() == "Training steps"
    assert accuracy.get_legend() is not None


def test_plot_history_counts_epochs_from_1_for_the_history_of_fit():
    (axes,) = plot_history({"loss": [3.0, 2.0]}).axes
    assert list(axes.lines[0].get_xdata()) == [1, 2]
    assert axes.get_xlabel() == "Epoch"


def test_plot_history_has_whole_numbers_below_a_single_epoch():
    (axes,) = plot_history({"loss": [3.0]}).axes
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_plot_history_accepts_the_history_of_fit_and_held_out_evaluation():
    class History:
        history: ClassVar = {"loss": [3.0, 2.0], "val_loss": [3.0, 1.0]}
        epoch: ClassVar = [4, 5]

    (axes,) = plot_history(History()).axes
    assert list(axes.lines[0].get_xdata()) == [5, 6]
    assert list(curves(axes)) == ["training", "held-out"]

    class HeldOut:
        history = HISTORY

    loss, _ = plot_history(HeldOut()).axes
    assert list(loss.lines[0].get_xdata()) == [5, 10, 15]


def test_plot_history_labels_each_held_out_data_set():
    (axes,) = plot_history(
        {"loss": [3.0], "val_mine_loss": [4.0], "val_yours_loss": [5.0]}
    ).axes
    assert list(curves(axes)) == [
        "training",
        "held-out, mine",
        "held-out, yours",
    ]


def test_plot_history_draws_metrics_of_held_out_data_only():
    titles = [a.get_title() for a in plot_history({"val_loss": [1.0]}).axes]
    assert titles == ["Loss"]


def test_plot_history_uses_a_different_line_style_for_each_curve():
    styles = {
        line.get_linestyle() for line in plot_history(HISTORY).axes[0].lines
    }
    assert len(styles) == 2


@pytest.mark.parametrize(
    "history",
    [{}, {"step": [1]}, {"loss": []}, {"loss": [1], "accuracy": [1, 2]}],
)
def test_plot_history_rejects_empty_and_unequal_sequences(history):
    with pytest.raises(
        ValueError, match=r"sequences of one length.*Received: lengths"
    ):
        plot_history(history)


@pytest.mark.parametrize("count", [1, 2, 6, 7, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_plot_predictions_draws_every_image_once(count, channels, generator):
    images = generator.integers(0, 256, (count, 9, 8, channels)).astype("uint8")
    figure = plot_predictions(images, [0] * count, [0] * count)
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_array_equal(np.stack(drawn).reshape(images.shape), images)
    assert figure.get_suptitle() == f"{count} of {count} right"


def test_plot_predictions_marks_errors_and_names_classes(generator):
    images = generator.random((3, 8, 8))
    figure = plot_predictions(
        images, [0, 1, 2], np.eye(3)[[0, 2, 2]], ["a", "$b$", "c"]
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "actual a\npredicted a",
        "actual \\$b\\$\npredicted c ✗",
        "actual c\npredicted c",
    ]
    colors = [axes.title.get_color() for axes in figure.axes]
    assert colors[0] == colors[2] != colors[1]
    assert figure.get_suptitle() == "2 of 3 right, wrong ones marked ✗"


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_and_integers_up_to_255_are_drawn_like_uint8(
    channels, generator
):
    images = generator.integers(0, 256, (4, 9, 8, channels)).astype("uint8")
    images[0, 0, 0] = 255
    for pixels in (images, images * 1.0, images.astype("int64")):
        figure = plot_predictions(pixels, [0] * 4, [0] * 4)
        for axes, image in zip(figure.axes, images, strict=True):
            shown = axes.images[0]
            drawn = np.asarray(shown.get_array()).reshape(image.shape)
            np.testing.assert_array_equal(drawn, image)
            assert shown.get_clim() == (0, 255)


@pytest.mark.parametrize("value", [-0.1, 255.5, np.nan])
@pytest.mark.parametrize("plot", [plot_predictions, plot_errors])
def test_pixels_out_of_range_raise(plot, value):
    images = np.full((2, 8, 8), 0.5)
    images[1, 2, 3] = value
    with pytest.raises(ValueError, match=r"in \[0, 255\].*Received: numbers"):
        plot(images, [0, 1], [0, 1])


def test_a_single_output_is_the_probability_of_class_1(generator):
    outputs = np.array([[0.2], [0.7], [0.6]])
    figure = plot_predictions(generator.random((3, 8, 8)), [0, 1, 0], outputs)
    assert figure.get_suptitle() == "2 of 3 right, wrong ones marked ✗"
    figure = plot_confusion_matrix([0, 1, 0], outputs, ["a", "b"])
    assert figure.axes[0].get_title() == "1 of 3 wrong"


@on_default_backend
def test_ipython_displays_figures_without_pyplot(tmp_path):
    pytest.importorskip("IPython")
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from keras_lenet.plots import plot_history
figure = plot_history({"loss": [2.0, 1.0]})
data, _ = shell.display_formatter.format(figure)
print(data["image/png"][:4], "matplotlib.pyplot" in sys.modules)
"""
    assert run_python(code, cwd=tmp_path) == "b'\\x89PNG' False\n"


@pytest.mark.starts_first
@on_default_backend
def test_a_notebook_displays_curves_and_predictions(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        """
import numpy as np
from keras_lenet import LeNet5, SamplePredictions, plots
images = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1))
images, labels = images.astype("uint8"), np.arange(9)
model = LeNet5()
model.compile("adam", "sparse_categorical_crossentropy")
pictures = SamplePredictions(images, labels, filepath=None, strict=True)
""",
        "history = model.fit(images, labels, epochs=2, verbose=0, "
        "callbacks=[pictures])",
        "plots.plot_history(history)",
        "%matplotlib inline\nplots.plot_history(history)",
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    # Ignore warnings about unencrypted sockets and nbclient's event loop.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=300,
            resources={"metadata": {"path": str(tmp_path)}},
        ).execute()
    shown = [
        [
            output.output_type
            for output in cell.outputs
            if "image/png" in output.get("data", {})
        ]
        for cell in notebook.cells
    ]
    figure = ["execute_result"]
    assert shown == [[], ["display_data"] * 2, figure, figure]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "labels", "predictions", "message"),
    [
        ((2, 8, 8, 2), (2,), (2,), "1 or 3 channels"),
        ((8, 8), (2,), (2,), "height, width"),
        ((2, 8, 8), (3,), (2,), "same length.*2 images"),
        ((2, 8, 8), (2,), (3, 10), "same length"),
        ((0, 8, 8), (0,), (0,), "at least 1"),
    ],
)
@pytest.mark.parametrize("plot", [plot_predictions, plot_errors])
def test_wrong_shapes_raise(plot, images, labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        plot(np.ones(images), np.ones(labels, int), np.ones(predictions, int))


def test_plot_errors_draws_only_misclassified_images(generator):
    images = generator.integers(0, 256, (40, 9, 9, 1)).astype("uint8")
    labels, predictions = generator.integers(0, 3, (2, 40))
    wrong = np.flatnonzero(labels != predictions)
    figure = plot_errors(images, labels, predictions, "abc", max_images=12)
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_array_equal(drawn, images[wrong[:12], ..., 0])
    assert [axes.get_title() for axes in figure.axes] == [
        f"{'abc'[labels[index]]}→{'abc'[predictions[index]]}"
        for index in wrong[:12]
    ]
    title = f"{len(wrong)} of 40 wrong: actual→predicted"
    assert figure.get_suptitle() == title + ", the first 12"


def test_plot_errors_without_errors_has_a_title_and_no_panels(generator):
    figure = plot_errors(generator.random((2, 8, 8)), [1, 2], np.eye(3)[[1, 2]])
    assert figure.get_suptitle() == "0 of 2 wrong: actual→predicted"
    assert not figure.axes


def test_plot_confusion_matrix_counts_each_pair_of_classes(generator):
    labels, predictions = generator.integers(0, 3, (2, 50))
    figure = plot_confusion_matrix(labels, predictions, ["a", "$", "cc", "d"])
    axes = figure.axes[0]
    counted = np.zeros((4, 4), int)
    for text in axes.texts:
        column, row = text.get_position()
        counted[row, column] = int(text.get_text())
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (labels, predictions), 1)
    np.testing.assert_array_equal(counted, expected)
    wrong = (labels != predictions).sum()
    assert axes.get_title() == f"{wrong} of 50 wrong"
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["a", r"\$", "cc", "d"]
    # Colours show errors only.
    shown = axes.images[0].get_array()
    assert np.ma.getmaskarray(shown).diagonal().all()


def test_plot_confusion_matrix_counts_classes_without_a_name():
    figure = plot_confusion_matrix([0, 1, 1, 3], [0, 1, 2, 0], ["a", "b"])
    axes = figure.axes[0]
    assert axes.get_title() == "2 of 4 wrong"
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["a", "b", "2", "3"]


@pytest.mark.parametrize("wrong", [[0, -1], [0.0, 1.0], [0.0, np.nan]])
def test_plot_confusion_matrix_rejects_what_is_no_class(wrong):
    for labels, predictions in ((wrong, [0, 1]), ([0, 1], wrong)):
        with pytest.raises(ValueError, match="integers from 0"):
            plot_confusion_matrix(labels, predictions, ["a", "b"])


def test_plot_confusion_matrix_has_a_scale_of_whole_errors():
    figure = plot_confusion_matrix([0, 1, 0], [0, 1, 1], ["a", "b"])
    figure.draw_without_rendering()
    *_, bar = figure.axes
    ticks = [label.get_text() for label in bar.get_yticklabels()]
    assert ticks == ["0", "1"]


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([0, 1], [0]), ([], []), ([0], np.ones((2, 2)))],
)
def test_plot_confusion_matrix_rejects_other_lengths(labels, predictions):
    with pytest.raises(ValueError, match="must have the same length"):
        plot_confusion_matrix(labels, predictions, ["a", "b"])


def test_plot_risk_coverage_marks_where_the_target_is_reached():
    figure = plot_risk_coverage(
        [0, 0.01, 0.02, 0.03],
        [0.02, 0.008, 0.004, 0.0],
        target=0.005,
        references={"LeNet-4": (0.018, 0.005)},
    )
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    marked = lines["at most 0.50% error: 2.00% rejected"]
    np.testing.assert_array_equal(marked, [[0.02, 0.004]])
    np.testing.assert_array_equal(lines["LeNet-4"], [[0.018, 0.005]])
    assert axes.get_xlim()[1] > 0.02


def test_plot_risk_coverage_marks_nothing_if_the_target_is_not_reached():
    (axes,) = plot_risk_coverage([0, 0.5], [0.1, 0.1]).axes
    assert [line.get_label() for line in axes.lines] == ["LeNet5"]


def test_plot_risk_coverage_rejects_other_lengths():
    with pytest.raises(ValueError, match="`rejected` and `error` must"):
        plot_risk_coverage([0.1], [0.1, 0.2])


def test_plot_pictures_draws_pictures_beside_images(generator):
    pictures = [
        generator.integers(0, 256, shape).astype("uint8")
        for shape in ((40, 30, 3), (9, 9, 1))
    ]
    seen = generator.integers(0, 256, (28, 28, 1)).astype("uint8")
    figure = plot_pictures(
        pictures, [seen, None], ["1.png\n7", "$.png\nno ink"]
    )
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert len(drawn) == 3
    np.testing.assert_array_equal(drawn[1], seen[..., 0])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["1.png\n7", "", "\\$.png\nno ink"]


def test_plot_pictures_rejects_other_lengths(generator):
    with pytest.raises(ValueError, match="must have the same length"):
        plot_pictures([np.ones((2, 2, 1), "uint8")], [], ["a"])


def test_plots_import_neither_keras_nor_pyplot(tmp_path):
    code = (
        "import sys; from keras_lenet.plots import plot_history; "
        "plot_history({'loss': [1.0]}).savefig('history.png'); "
        "print({'keras', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    output = run_python(code, cwd=tmp_path)
    assert output.strip() == "set()"
