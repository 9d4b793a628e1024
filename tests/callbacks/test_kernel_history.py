import keras
import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from keras_lenet import KernelHistory, LeNet5
from keras_lenet.plots import plot_kernel_history
from keras_lenet.plots.kernel_history import save_kernel_animation
from tests.callbacks.helpers import (
    STEPS_PER_EXECUTION,
    Stops,
    assert_same_run,
    compiled,
    fail_on_full_disk,
    make_model,
    train,
    train_resumable,
    values_of,
)
from tests.helpers import BACKEND, needs_tensorflow

GENERATOR = np.random.default_rng(98)
KERNELS = GENERATOR.normal(size=(3, 5, 5, 1, 6)).astype("float32")
HISTORY = {"step": [0, 10, 20], "kernel": list(KERNELS)}


def make_layers():
    # Layers take the seeds of their weights when they are made.
    keras.utils.set_random_seed(1)
    return [
        keras.layers.Reshape((10, 10, 2)),
        keras.layers.Conv2D(2, 3, name="c1"),
        keras.layers.Flatten(),
    ]


def make():
    return make_model(layers=make_layers())


class Kernels(keras.callbacks.Callback):
    """Collects the kernel before every execution, and after the run."""

    def on_train_begin(self, logs=None):
        self.kernels = []

    def collect(self, *_, **__):
        self.kernels += values_of([self.model.get_layer("c1").kernel])

    on_train_batch_begin = on_train_end = collect


@pytest.mark.parametrize("freq", [3, "epoch"])
def test_the_history_has_the_kernels_before_training_and_at_each_interval(
    freq, data
):
    callback, kernels = KernelHistory("c1", freq), Kernels()
    train(data, [callback, kernels], layers=make_layers())
    steps = {3: [0, 3, 6, 9, 12, 15], "epoch": [0, 8, 16]}[freq]
    assert callback.history["step"] == steps
    expected = [kernels.kernels[step] for step in steps]
    np.testing.assert_array_equal(callback.history["kernel"], expected)
    assert len(np.unique(expected, axis=0)) == len(steps)


@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
@pytest.mark.parametrize("freq", [5, "epoch"])
def test_it_leaves_a_run_bit_for_bit_unchanged(
    steps_per_execution, freq, data, tmp_path
):
    callback = KernelHistory("c1", freq, tmp_path / "c1.gif", strict=True)
    runs = [
        train(data, callbacks, steps_per_execution, layers=make_layers())
        for callbacks in ([], [callback])
    ]
    assert_same_run(*runs)
    assert len(callback.history["step"]) > 2


@pytest.mark.skipif(
    BACKEND == "tensorflow", reason="Keras always waits on TensorFlow"
)
def test_it_lets_keras_run_ahead_of_the_accelerator():
    assert keras.callbacks.CallbackList([KernelHistory()])._async_train


@pytest.mark.skipif(BACKEND == "torch", reason="one step per execution only")
def test_several_steps_per_execution_give_the_next_possible_steps(data):
    callback = KernelHistory("c1", 5)
    train(data, [callback], 3, layers=make_layers())
    assert callback.history["step"] == [0, 6, 11, 16]


def test_lenet5_makes_steps_between_the_intervals():
    model = compiled(LeNet5())
    images = GENERATOR.integers(0, 256, (24, 28, 28, 1)).astype("uint8")
    callback = KernelHistory(freq=2)
    model.fit(
        images, np.arange(24) % 10, 4, epochs=1, verbose=0, callbacks=[callback]
    )
    assert callback.history["step"] == [0, 2, 4, 6]
    (kernel,) = values_of([model.get_layer("c1").kernel])
    np.testing.assert_array_equal(callback.history["kernel"][-1], kernel)
    assert len(np.unique(callback.history["kernel"], axis=0)) == 4


def test_every_fit_starts_a_new_history(data):
    model, callback = make(), KernelHistory()
    for _ in range(2):
        model.fit(*data, batch_size=60, verbose=0, callbacks=[callback])
        assert callback.history["step"] == [0, 2]


def test_the_history_is_float32_whatever_the_dtype_of_the_layer():
    layer = keras.layers.Conv2D(2, 3, name="c1", dtype="float16")
    model = compiled(keras.Sequential([keras.Input((5, 5, 1)), layer]))
    callback = KernelHistory()
    callback.set_model(model)
    callback.on_train_begin()
    (kernel,) = callback.history["kernel"]
    assert kernel.dtype == "float32"
    np.testing.assert_array_equal(kernel, *values_of([layer.kernel]))


@needs_tensorflow
def test_the_history_of_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path):
    def run(name, *after):
        callback = KernelHistory("c1", 4, tmp_path / f"{name}.gif")
        results = train_resumable(
            tmp_path / f"{name}.npz",
            make,
            callbacks=[callback],
            after=after,
            epochs=2,
            verbose=0,
        )
        return results, callback.history

    whole = run("whole")
    assert whole[1]["step"] == [0, 4, 8, 12, 16, 20]
    for step in (2, 15):
        # The second time, it resumes the run of the first time.
        assert run("stopped", Stops(step))[0] is None
        assert not (tmp_path / "stopped.gif").exists()
    np.testing.assert_equal(run("stopped"), whole)
    stopped, expected = (tmp_path / f"{n}.gif" for n in ("stopped", "whole"))
    assert stopped.read_bytes() == expected.read_bytes()


def test_a_run_is_not_resumed_with_another_layer():
    layers = [keras.layers.Conv2D(2, 3, name=name) for name in ("c1", "c2")]
    model = compiled(keras.Sequential([keras.Input((5, 5, 2)), *layers]))
    callbacks = [KernelHistory("c1"), KernelHistory("c2")]
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    with pytest.raises(ValueError, match=r"run, 'c1'\. Received: .*'c2'"):
        callbacks[1].set_state(callbacks[0].get_state())


def frames_of(path):
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            yield np.array(image.convert("RGB"))


def test_the_animation_has_a_frame_for_each_entry(data, tmp_path):
    path = tmp_path / "c1.gif"
    callback = KernelHistory("c1", 4, path, strict=True)
    train(data, [callback], layers=make_layers(), epochs=1)
    first, *others = frames_of(path)
    assert callback.history["step"] == [0, 4, 8]
    assert len(others) == 2
    assert all((first != frame).any() for frame in others)
    assert list(tmp_path.iterdir()) == [path]


def test_each_frame_has_its_step(tmp_path):
    path = tmp_path / "c1.gif"
    for steps in ([5, 5], [5, 6]):
        save_kernel_animation({"step": steps, "kernel": KERNELS[[0, 0]]}, path)
        # Pillow joins frames without a difference.
        assert len(list(frames_of(path))) == len(set(steps))


def test_the_animation_has_the_colours_of_the_weights_on_white(tmp_path):
    path = tmp_path / "c1.gif"
    kernel = np.full((4, 4, 1, 1), 1.0)
    kernels = [kernel, -kernel / 2]
    save_kernel_animation({"step": [0, 1], "kernel": kernels}, path)
    colors = colormaps["PuOr_r"].resampled(129)
    for frame, value in zip(frames_of(path), (1.0, -0.5), strict=True):
        expected = colors((value + 1) / 2, bytes=True)[:3]
        assert (frame == expected).all(axis=-1).mean() > 0.2
        np.testing.assert_array_equal(frame[1, 1], [255] * 3)


def test_long_histories_and_large_layers_have_the_first_and_last_frames(
    tmp_path, monkeypatch
):
    path = tmp_path / "c1.gif"
    monkeypatch.setattr("keras_lenet.plots.kernel_history._MAX_FRAMES", 3)
    kernels = GENERATOR.normal(size=(7, 3, 3, 15, 15))
    save_kernel_animation({"step": list(range(7)), "kernel": kernels}, path)
    assert len(list(frames_of(path))) == 3


def test_an_interrupted_run_can_save_its_animation(data, tmp_path):
    path = tmp_path / "c1.gif"
    callback = KernelHistory("c1", 2, path)
    with pytest.raises(KeyboardInterrupt):
        train(data, [callback, Stops(5)], layers=make_layers())
    assert not path.exists()
    callback.save_animation()
    assert len(list(frames_of(path))) == 3


def test_a_full_disk_keeps_the_old_file_and_the_run(
    data, tmp_path, monkeypatch
):
    path = tmp_path / "c1.gif"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", fail_on_full_disk)
    arguments = "c1", "epoch", path
    with pytest.warns(RuntimeWarning, match="at the end.*disk full"):
        train(data, [KernelHistory(*arguments)], layers=make_layers(), epochs=1)
    with pytest.raises(OSError, match="disk full"):
        train(
            data,
            [KernelHistory(*arguments, strict=True)],
            layers=make_layers(),
            epochs=1,
        )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_name": 1}, "`layer_name` must be a string.*layer_name=1"),
        ({"freq": 0}, "`freq` must be a positive number"),
        ({"filepath": "c1.png"}, "ends in .gif.*filepath='c1.png'"),
        ({"filepath": "no/such/folder/c1.gif"}, "in a folder that exists"),
    ],
)
def test_kernel_history_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        KernelHistory(**arguments)


@pytest.mark.parametrize("name", ["c9", "f6"])
def test_fit_rejects_a_layer_without_such_a_kernel(name, data):
    model = make()
    model.layers[-1].name = "f6"
    before = values_of(model.weights)
    message = rf"one of \[.*'c1'\]. Received: layer_name='{name}'"
    with pytest.raises(ValueError, match=message):
        model.fit(*data, verbose=0, callbacks=[KernelHistory(name)])
    np.testing.assert_equal(values_of(model.weights), before)


def test_a_layer_that_is_not_built_is_rejected():
    callback = KernelHistory()
    callback.set_model(compiled(keras.Sequential(make_layers())))
    with pytest.raises(ValueError, match=r"built layer.*one of \[\]"):
        callback.on_train_begin()


def test_saving_without_a_path_is_rejected():
    with pytest.raises(ValueError, match="Received: filepath=None"):
        KernelHistory().save_animation()


def tile(axes, row, column):
    """Returns a drawn kernel of 5x5."""
    mosaic = axes.images[0].get_array().filled(np.nan)
    return mosaic[6 * row :, 6 * column :][:5, :5]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_plot_kernel_history_has_a_row_per_kernel_and_a_column_per_step():
    figure = plot_kernel_history(HISTORY)
    axes, bar = figure.axes
    for column, kernel in enumerate(KERNELS):
        for row in range(6):
            expected = kernel[..., 0, row]
            np.testing.assert_array_equal(tile(axes, row, column), expected)
    assert ticks(axes.xaxis) == ["0", "10", "20"]
    assert ticks(axes.yaxis) == ["1", "2", "3", "4", "5", "6"]
    # Ticks are in the middle of the kernels.
    assert list(axes.get_xticks()) == [2, 8, 14]
    limit = np.abs(KERNELS).max()
    np.testing.assert_allclose(axes.images[0].get_clim(), (-limit, limit))
    assert (axes.get_xlabel(), bar.get_ylabel()) == ("Training steps", "Weight")


def test_plot_kernel_history_draws_a_callback_and_the_first_16_kernels():
    callback = KernelHistory()
    kernels = GENERATOR.normal(size=(2, 5, 5, 6, 16)).astype("float32")
    callback.history = {"step": [0, 1200], "kernel": list(kernels)}
    axes, _ = plot_kernel_history(callback).axes
    assert axes.get_title() == "16 of 96 kernels"
    assert ticks(axes.xaxis) == ["0", "1,200"]
    assert len(ticks(axes.yaxis)) == 16
    np.testing.assert_array_equal(tile(axes, 15, 1), kernels[1, ..., 0, 15])


@pytest.mark.parametrize(
    ("count", "max_steps", "steps"),
    [
        (3, 2, ["0", "2"]),
        (20, 3, ["0", "10", "19"]),
        (2, 8, ["0", "1"]),
        (1, 8, ["0"]),
    ],
)
def test_steps_are_spaced_evenly_with_the_first_and_the_last(
    count, max_steps, steps
):
    kernels = GENERATOR.normal(size=(count, 3, 3, 1))
    history = {"step": list(range(count)), "kernel": kernels}
    axes, _ = plot_kernel_history(history, max_steps).axes
    assert ticks(axes.xaxis) == steps


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_kernels_of_zeros_and_of_a_failed_run_are_drawn(value, tmp_path):
    history = {"step": [0], "kernel": [np.full((5, 5, 1, 2), value)]}
    figure = plot_kernel_history(history)
    figure.savefig(tmp_path / "c1.png")
    assert figure.axes[0].images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize(
    ("history", "max_steps", "message"),
    [
        (HISTORY, 1, "`max_steps` must be an integer, at least 2.*max_steps=1"),
        (HISTORY, 2.5, "Received: max_steps=2.5"),
        ({"step": [], "kernel": []}, 8, "Received: 0 steps, 0 kernels"),
        ({}, 8, "Received: 0 steps, 0 kernels"),
        ({"step": [0], "kernel": KERNELS}, 8, "1 steps, 3 kernels"),
        ({"step": [0], "kernel": [np.ones((3, 3))]}, 8, r"shapes \[\(3, 3\)\]"),
        (
            {"step": [0, 1], "kernel": [KERNELS[0], np.ones((3, 3, 1))]},
            8,
            r"of one shape.*\[\(3, 3, 1\), \(5, 5, 1, 6\)\]",
        ),
    ],
)
def test_plot_kernel_history_rejects(history, max_steps, message):
    with pytest.raises(ValueError, match=message):
        plot_kernel_history(history, max_steps)
