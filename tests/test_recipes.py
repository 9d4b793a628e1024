import keras
import numpy as np
import pytest
from environment import needs_tensorflow, on_default_backend

from keras_lenet import (
    CurvatureEstimation,
    LeNet5,
    OriginalLeNet5,
    RandomDistortion,
    ResumableTraining,
    datasets,
    recipes,
)


def test_one_cycle_rises_and_falls_linearly():
    schedule = recipes.OneCycle(2.0, steps=10, warmup=0.4)
    rates = [float(schedule(step)) for step in range(12)]
    # Up in 4 steps, down in 7 more.
    expected = [0.5, 1.0, 1.5, 2.0, *(2 * k / 7 for k in range(6, 0, -1)), 0, 0]
    np.testing.assert_allclose(rates, expected, atol=1e-6)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_smoothed_crossentropy_is_that_of_keras_for_one_hot(from_logits, shape):
    generator = np.random.default_rng()
    labels = generator.integers(0, 5, 8)
    outputs = generator.normal(size=(8, 5)).astype("float32")
    if not from_logits:
        outputs = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    expected = keras.losses.CategoricalCrossentropy(from_logits, 0.3)(
        np.eye(5, dtype="float32")[labels], outputs
    )
    loss = recipes.SmoothedSparseCategoricalCrossentropy(0.3, from_logits)
    assert float(loss(labels.reshape(shape), outputs)) == pytest.approx(
        float(expected), rel=1e-5
    )


@on_default_backend
def test_the_fast_recipe_gets_further_in_as_many_steps():
    (x_train, y_train), (x_test, y_test) = datasets.load_data("digits")
    plain = {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }
    accuracies = []
    for options in (plain, recipes.fast(steps=30)):
        keras.utils.set_random_seed(98)
        model = LeNet5()
        model.compile(**options)
        model.fit(x_train, y_train, batch_size=100, epochs=2, verbose=0)
        accuracies.append(model.evaluate(x_test, y_test, verbose=0)[1])
    assert accuracies[1] > accuracies[0] + 0.03


@pytest.mark.parametrize("recipe", [recipes.fast, recipes.accurate])
def test_a_model_compiled_with_a_recipe_is_saved_and_loaded(recipe, tmp_path):
    model = LeNet5()
    model.compile(**recipe(steps=7))
    images, labels = np.ones((1, 28, 28, 1), "uint8"), np.array([3])
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    assert (
        loaded.optimizer.get_config()["learning_rate"]
        == model.optimizer.get_config()["learning_rate"]
    )


@pytest.mark.parametrize(
    "recipe", [recipes.fast, recipes.accurate, recipes.paper]
)
@pytest.mark.parametrize("steps", [0, -1, 1.5, True, None])
def test_steps_that_are_no_positive_integer_are_refused(recipe, steps):
    with pytest.raises(ValueError, match=r"`steps`.*Received: steps="):
        recipe(steps)


@needs_tensorflow
def test_the_accurate_recipe_trains_any_keras_model():
    (x_train, y_train), (x_test, y_test) = datasets.load_data("digits")
    keras.utils.set_random_seed(98)
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    train = datasets.image_dataset_from_array(
        x_train, y_train, shuffle=True, seed=1, augment=RandomDistortion()
    )
    model.compile(**recipes.accurate(10 * len(train), from_logits=True))
    model.fit(train, epochs=10, shuffle=False, verbose=0)
    assert model.evaluate(x_test, y_test, verbose=0)[1] > 0.9


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: recipes.OneCycle(0, 10), "peak_learning_rate"),
        (lambda: recipes.OneCycle(float("nan"), 10), "peak_learning_rate"),
        (lambda: recipes.OneCycle(0.1, 10, warmup=1), "warmup"),
        (lambda: recipes.OneCycle(0.1, 10, warmup=0.0), "warmup"),
        (
            lambda: recipes.SmoothedSparseCategoricalCrossentropy(1.1),
            "label_smoothing",
        ),
        (
            lambda: recipes.SmoothedSparseCategoricalCrossentropy("a"),
            "label_smoothing",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        make()


def test_the_rate_of_the_paper_changes_after_its_passes():
    rate = recipes.paper(steps=40)["optimizer"].learning_rate
    schedule = recipes.paper(steps=40)["optimizer"].get_config()
    values = schedule["learning_rate"]["config"]["values"]
    np.testing.assert_allclose(
        np.divide(values, values[-1]), [5, 20, 10, 5, 1], rtol=1e-5
    )
    # Two steps are a pass: two, three, three, four, and eight more.
    assert schedule["learning_rate"]["config"]["boundaries"] == [4, 10, 16, 24]
    np.testing.assert_allclose(float(rate), values[0], rtol=1e-5)
    tenfold = recipes.paper(40, batch_size=10)["optimizer"].learning_rate
    np.testing.assert_allclose(float(tenfold), 10 * float(rate), rtol=1e-5)
    with pytest.raises(ValueError, match="`batch_size` must be a positive"):
        recipes.paper(40, batch_size=0)


@on_default_backend
def test_a_training_by_the_paper_is_resumed_exactly(tmp_path):
    (x, y), _ = datasets.load_data("digits")
    x, y = x[:16], y[:16]

    def train(epochs, state):
        keras.utils.set_random_seed(1)
        batches = datasets.image_dataset_from_array(x, y, 4, seed=1)
        model = OriginalLeNet5(input_shape=x.shape[1:])
        # Without compilation, it takes less time.
        model.compile(**recipes.paper(16, batch_size=4), run_eagerly=True)
        model.fit(
            batches,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[
                CurvatureEstimation(x, y, freq=5, sample_size=9),
                ResumableTraining(state, batches, freq=4),
            ],
        )
        return model.get_weights()

    expected = train(4, tmp_path / "whole.npz")
    train(2, tmp_path / "parts.npz")
    for one, other in zip(
        train(4, tmp_path / "parts.npz"), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)
