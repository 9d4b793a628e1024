"""Every version must load the files that version 0.1.0 wrote."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lenet import (
    BestModelCheckpoint,
    HeldOutEvaluation,
    LeNet5,
    OriginalLeNet5,
    ResumableTraining,
    datasets,
    recipes,
)
from keras_lenet.files.arrays import read_arrays
from keras_lenet.saving import load_model, load_preset
from tests.helpers import BACKEND, since_keras

SAVED = Path(__file__).parent / "saved_by_0_1_0"


@pytest.fixture(scope="module")
def outputs():
    """The outputs of the models when they were saved."""
    with np.load(SAVED / "outputs.npz") as arrays:
        return dict(arrays)


def assert_predicts(model, images, expected):
    np.testing.assert_allclose(
        model.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("load", [keras.saving.load_model, load_model])
def test_a_model_with_changed_layers_is_loaded(load, outputs):
    model = load(SAVED / "lenet5.keras")
    assert isinstance(model, LeNet5)
    assert_predicts(model, outputs["images"], outputs["lenet5"])
    assert not model.get_layer("s2").trainable
    assert model.get_layer("f6").activation is keras.activations.tanh
    assert model.get_layer("c5").kernel_regularizer.l2 == pytest.approx(1e-3)


def test_a_compiled_model_can_be_trained_further(outputs):
    model = keras.saving.load_model(SAVED / "lenet5.keras")
    assert isinstance(model.loss, recipes.SmoothedSparseCategoricalCrossentropy)
    iterations = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    assert iterations == 4
    model.fit(outputs["images"], np.arange(8), verbose=0)


def test_a_preset_is_loaded(outputs):
    for model in (
        load_preset(SAVED / "original_lenet5"),
        OriginalLeNet5.from_preset(SAVED / "original_lenet5"),
    ):
        assert isinstance(model, OriginalLeNet5)
        assert model.num_classes == 7
        assert_predicts(model, outputs["images"], outputs["original_lenet5"])


@pytest.mark.parametrize("load", [keras.saving.load_model, load_model])
def test_the_best_model_of_a_run_is_loaded(load, outputs):
    model = load(SAVED / "best.keras")
    assert_predicts(model, outputs["images"], outputs["best"])


@pytest.mark.skipif(BACKEND != "jax", reason="JAX wrote it")
@since_keras((3, 15), "resumes no run of another version")
def test_an_interrupted_run_is_resumed(tmp_path, outputs):
    for name in ("best.keras", "training.npz"):
        shutil.copy(SAVED / name, tmp_path)
    _, facts = read_arrays(SAVED / "training.npz")
    (x, y), (x_test, y_test) = datasets.load_data("digits")
    model = LeNet5()
    model.compile(
        keras.optimizers.SGD(recipes.OneCycle(0.1, 12)),
        recipes.SmoothedSparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    held_out = HeldOutEvaluation(
        (x_test[:40], y_test[:40]), 3, sample_size=20, seed=2
    )
    resumable = ResumableTraining(tmp_path / "training.npz", verbose=0)
    # A run is resumed only with the versions that started it: fake them.
    saved = {
        name: value
        for name, value in facts["fingerprint"].items()
        if name.startswith("versions.")
    }
    describe = resumable._describe
    resumable._describe = lambda: {**describe(), **saved}
    model.fit(
        x[:100],
        y[:100],
        batch_size=25,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[
            held_out,
            BestModelCheckpoint(tmp_path / "best.keras"),
            resumable,
        ],
    )
    assert_predicts(model, outputs["images"], outputs["resumed"])
    assert held_out.history["step"] == outputs["resumed_step"].tolist()
    np.testing.assert_allclose(
        held_out.history["val_loss"], outputs["resumed_val_loss"], rtol=1e-4
    )
