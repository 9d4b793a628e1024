import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, datasets, recipes


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


def test_a_model_compiled_with_the_recipe_is_saved_and_loaded(tmp_path):
    model = LeNet5()
    model.compile(**recipes.fast(steps=7))
    images, labels = np.ones((1, 28, 28, 1), "uint8"), np.array([3])
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == model.loss.get_config()
    assert (
        loaded.optimizer.get_config()["learning_rate"]
        == model.optimizer.get_config()["learning_rate"]
    )


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, None])
def test_steps_that_are_no_positive_integer_are_refused(steps):
    with pytest.raises(ValueError, match=r"`steps`.*Received: steps="):
        recipes.fast(steps)


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
