import keras
import numpy as np
import pytest

from keras_lenet import (
    CurvatureEstimation,
    LeNet5,
    OriginalLeNet5,
    RandomDistortion,
    ResumableTraining,
    datasets,
    recipes,
)
from keras_lenet.losses import KLDistillation
from keras_lenet.original import DistanceLoss
from tests.helpers import needs_tensorflow, on_default_backend, since_keras

has_muon = since_keras((3, 13), "its Muon is another one")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_one_cycle_rises_and_falls_linearly():
    schedule = recipes.OneCycle(2.0, steps=10, warmup=0.4)
    rates = [float(schedule(step)) for step in range(12)]
    # Up in 4 steps, down in 7 more.
    expected = [0.5, 1.0, 1.5, 2.0, *(2 * k / 7 for k in range(6, 0, -1)), 0, 0]
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def outputs_of(shape, from_logits, generator):
    outputs = generator.normal(size=shape).astype("float32")
    if from_logits:
        return outputs
    return np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none"])
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "shape", [(8,), (8, 1), (4, 3), (4, 3, 1), (2, 3, 2), (2, 3, 2, 1), (3, 5)]
)
def test_smoothed_crossentropy_equals_keras_loss_for_one_hot_labels(
    shape, weighted, from_logits, reduction, generator
):
    of_labels = shape[:-1] if shape[-1] == 1 else shape
    labels = generator.integers(0, 5, of_labels)
    outputs = outputs_of((*of_labels, 5), from_logits, generator)
    weights = generator.uniform(size=of_labels) if weighted else None
    options = {"from_logits": from_logits, "label_smoothing": 0.3}
    expected = keras.losses.CategoricalCrossentropy(
        **options, reduction=reduction
    )(np.eye(5, dtype="float32")[labels], outputs, weights)
    loss = recipes.SmoothedSparseCategoricalCrossentropy(
        **options, reduction=reduction
    )
    found = loss(labels.reshape(shape), outputs, weights)
    np.testing.assert_allclose(
        to_numpy(found), to_numpy(expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 1])
def test_smoothed_crossentropy_without_smoothing_equals_the_sparse_loss(
    smoothing, generator
):
    labels = generator.integers(0, 5, (4, 3))
    outputs = outputs_of((4, 3, 5), True, generator)
    loss = recipes.SmoothedSparseCategoricalCrossentropy(smoothing, True)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        labels, outputs
    )
    same = np.isclose(to_numpy(loss(labels, outputs)), to_numpy(expected))
    assert same == (smoothing == 0)


def test_smoothed_crossentropy_ignores_masked_tokens(generator):
    tokens = np.array([[3, 1, 2, 0], [1, 0, 0, 0], [2, 2, 1, 3]])
    labels = generator.integers(0, 5, tokens.shape)
    model = keras.Sequential(
        [
            keras.layers.Embedding(
                4, 6, keras.initializers.RandomNormal(stddev=2), mask_zero=True
            ),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    values = []
    for loss, y in (
        (recipes.SmoothedSparseCategoricalCrossentropy(0.3), labels),
        (
            keras.losses.CategoricalCrossentropy(label_smoothing=0.3),
            np.eye(5)[labels],
        ),
    ):
        model.compile("sgd", loss)
        values.append(model.evaluate(tokens, y, verbose=0))
    np.testing.assert_allclose(*values, rtol=1e-5)
    # The loss differs if no token is masked.
    model.layers[0].mask_zero = False
    unmasked = recipes.SmoothedSparseCategoricalCrossentropy(0.3)(
        labels, model(tokens)
    )
    assert not np.isclose(to_numpy(unmasked), values[0], rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kwargs: recipes.SmoothedSparseCategoricalCrossentropy(
            0.3, True, **kwargs
        ),
        lambda **kwargs: DistanceLoss(3.0, **kwargs),
    ],
    ids=["smoothed", "distance"],
)
@pytest.mark.parametrize(
    "dtypes",
    [
        ("bool", "float32"),
        ("uint8", "float64"),
        ("int8", "float16"),
        ("uint16", "int32"),
        ("uint32", "uint8"),
        ("uint64", "int64"),
        ("int64", "float32"),
        ("float32", "float32"),
    ],
)
def test_losses_accept_labels_and_predictions_of_any_dtype(
    make, dtypes, generator
):
    labels = generator.integers(0, 2, (6, 1))
    outputs = generator.integers(0, 100, (6, 4))
    like = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = make()(labels, outputs.astype("float32"))
    given = [
        array.astype(dtype)
        for array, dtype in zip((labels, outputs), dtypes, strict=True)
    ]
    found = make()(*given)
    assert found.dtype == like(*given).dtype
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-5)


@pytest.mark.parametrize(
    "loss", [recipes.SmoothedSparseCategoricalCrossentropy(), DistanceLoss()]
)
@pytest.mark.parametrize(
    ("labels", "outputs"),
    [
        # One-hot labels.
        ((5, 5), (5, 5)),
        # Labels that would broadcast silently.
        ((1,), (5, 3)),
        ((1, 3), (2, 3, 4)),
        ((3,), (2, 3, 4)),
        ((2,), (2, 2, 2)),
        ((4, 2), (8, 3)),
        ((), (2, 3)),
    ],
)
def test_labels_that_do_not_match_the_predictions_are_rejected(
    loss, labels, outputs
):
    with pytest.raises(
        ValueError, match=r"`y_true` must be .*Received: y_true"
    ):
        loss(np.zeros(labels, int), np.full(outputs, 0.2, "float32"))


@on_default_backend
def test_the_fast_recipe_beats_adam_in_the_same_number_of_steps():
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


@has_muon
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
def test_steps_must_be_a_positive_integer(recipe, steps):
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
def test_numbers_out_of_range_are_rejected(make, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        make()


def test_the_learning_rate_of_the_paper_changes_after_its_epochs():
    rate = recipes.paper(steps=40)["optimizer"].learning_rate
    schedule = recipes.paper(steps=40)["optimizer"].get_config()
    values = schedule["learning_rate"]["config"]["values"]
    np.testing.assert_allclose(
        np.divide(values, values[-1]), [5, 20, 10, 5, 1], rtol=1e-5
    )
    # One epoch is two steps; the rates last 2, 3, 3, 4 and 8 epochs.
    assert schedule["learning_rate"]["config"]["boundaries"] == [4, 10, 16, 24]
    np.testing.assert_allclose(float(rate), values[0], rtol=1e-5)
    tenfold = recipes.paper(40, batch_size=10)["optimizer"].learning_rate
    np.testing.assert_allclose(float(tenfold), 10 * float(rate), rtol=1e-5)
    with pytest.raises(ValueError, match="`batch_size` must be a positive"):
        recipes.paper(40, batch_size=0)


def assert_is_resumed_exactly(train, folder):
    """Asserts that an interrupted run ends like a whole one.

    `train` takes the number of epochs and the file to resume from, and returns
    the weights.
    """
    expected = train(4, folder / "whole.npz")
    train(2, folder / "parts.npz")
    for one, other in zip(
        train(4, folder / "parts.npz"), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)


@on_default_backend
def test_a_run_with_the_paper_recipe_is_resumed_exactly(tmp_path):
    (x, y), _ = datasets.load_data("digits")
    x, y = x[:16], y[:16]

    def train(epochs, state):
        keras.utils.set_random_seed(1)
        batches = datasets.image_dataset_from_array(x, y, 4, seed=1)
        model = OriginalLeNet5(input_shape=x.shape[1:])
        # Compiling takes longer than training on so few images.
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

    assert_is_resumed_exactly(train, tmp_path)


def test_an_older_keras_is_refused(monkeypatch):
    monkeypatch.setattr(keras, "version", lambda: "3.12.0")
    for recipe in (recipes.fast, recipes.accurate):
        with pytest.raises(
            ImportError, match=r"Keras 3\.13 or later.*3\.12\.0"
        ):
            recipe(10)


@since_keras((3, 12), "has no distillation")
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_of_distillation_is_that_of_keras(temperature, generator):
    # By name, Keras takes the divergence of the logits themselves.
    keras_loss = keras.distillation.LogitsDistillation(
        temperature, loss=keras.losses.KLDivergence()
    )
    logits = [
        keras.ops.convert_to_tensor(each)
        for each in generator.normal(size=(2, 5, 10)).astype("float32")
    ]
    expected = to_numpy(keras_loss.compute_loss(*logits))
    for from_logits in (False, True):
        loss = KLDistillation(temperature, from_logits)
        outputs = logits if from_logits else map(keras.ops.softmax, logits)
        found = to_numpy(loss.compute_loss(*outputs))
        np.testing.assert_allclose(found, expected, rtol=1e-3)
        again = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(loss)
        )
        assert again.get_config() == loss.get_config()


def test_the_loss_of_distillation_is_finite_for_a_probability_of_0():
    certain = np.eye(3, dtype="float32")
    loss = KLDistillation().compute_loss(certain, certain[[1, 2, 0]])
    assert np.isfinite(to_numpy(loss))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "4"])
def test_a_temperature_must_be_above_0(temperature):
    with pytest.raises(ValueError, match="`temperature` must be a number ab"):
        KLDistillation(temperature)


@has_muon
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_student_learns_from_its_teacher_alone(from_logits, digits):
    (x, y), (x_test, y_test) = digits
    keras.utils.set_random_seed(98)
    options = {"input_shape": x.shape[1:]}
    if from_logits:
        options["classifier_activation"] = None
    teacher = LeNet5.from_preset("digits", **options)
    student = LeNet5(**options)
    before = teacher.get_weights()
    distiller = recipes.distilled(
        teacher, student, steps=60, from_logits=from_logits
    )
    # Wrong labels: only the metrics see them.
    distiller.fit(x, (y + 1) % 10, batch_size=100, epochs=4, verbose=0)
    right = student.predict(x_test, verbose=0).argmax(axis=1) == y_test
    assert right.mean() > 0.9
    for weight, other in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, other)


@has_muon
def test_a_distillation_is_resumed_exactly(digits, tmp_path):
    (x, y), _ = digits
    x, y = x[:40], y[:40]

    def train(epochs, state):
        keras.utils.set_random_seed(1)
        student = LeNet5()
        distiller = recipes.distilled(
            LeNet5.from_preset("digits"), student, steps=16
        )
        distiller.fit(
            x,
            y,
            batch_size=10,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[ResumableTraining(state, verbose=0)],
        )
        return student.get_weights()

    assert_is_resumed_exactly(train, tmp_path)
