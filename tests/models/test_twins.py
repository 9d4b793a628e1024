"""Models that share compiled programs."""

import threading

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from keras_lenet.models.twins import find_twin
from tests.helpers import BACKEND
from tests.models.helpers import assert_close, plain_copy, random_data

LOSS = "sparse_categorical_crossentropy"

pytestmark = pytest.mark.skipif(
    BACKEND == "torch", reason="PyTorch compiles no programs"
)


def make(optimizer="sgd", loss=LOSS, metrics=("accuracy",), **kwargs):
    model = LeNet5(**kwargs)
    model.compile(optimizer, loss, metrics=list(metrics))
    return model


def jax_version():
    import jax

    return jax.__version_info__


def test_a_second_model_compiles_nothing(generator):
    images, labels = random_data(generator, 20)
    programs = []
    for rate in (0.1, 0.2):
        model = make(keras.optimizers.SGD(rate))
        model.fit(images, labels, batch_size=8, epochs=2, verbose=0)
        model.evaluate(images, labels, batch_size=8, verbose=0)
        model.predict(images, verbose=0)
        programs.append(dict(find_twin(model).programs))
    assert find_twin(model).model is not model
    assert programs[0] == programs[1]
    if BACKEND == "jax" and jax_version() >= (0, 10):
        # One shape of batches, although the last one is smaller. Earlier
        # versions count more than they compile.
        assert programs[0]["train"]._cache_size() == 1
        assert programs[0]["test"]._cache_size() == 1


def test_models_that_share_programs_train_independently(generator):
    images, labels = random_data(generator, 24)
    models, plain = [], []
    for rate in (0.1, 0.03):
        models.append(make(keras.optimizers.SGD(rate, momentum=0.5)))
        optimizer = keras.optimizers.SGD(rate, momentum=0.5)
        plain.append(plain_copy(models[-1]))
        plain[-1].compile(optimizer, LOSS)
    for _ in range(2):
        for model in (*models, *plain):
            model.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
    for model, other in zip(models, plain, strict=True):
        assert model.optimizer.iterations == 6
        assert_close(model.get_weights(), other.get_weights())


def test_models_train_in_threads(generator):
    images, labels = random_data(generator, 32)
    models = [make() for _ in range(3)]
    others = [make() for _ in models]
    for model, other in zip(models, others, strict=True):
        other.set_weights(model.get_weights())
    threads = [
        threading.Thread(
            target=model.fit,
            args=(images, labels, 8),
            kwargs={"epochs": 3, "shuffle": False, "verbose": 0},
        )
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model, other in zip(models, others, strict=True):
        other.fit(images, labels, 8, epochs=3, shuffle=False, verbose=0)
        np.testing.assert_equal(model.get_weights(), other.get_weights())


@pytest.mark.parametrize(
    ("loss", "metrics"),
    [
        (LOSS, ["accuracy"]),
        (keras.losses.SparseCategoricalCrossentropy(), []),
        (
            "categorical_crossentropy",
            [keras.metrics.TopKCategoricalAccuracy(3), "accuracy"],
        ),
        # These are not means over rows, so a smaller batch is not padded.
        ("categorical_crossentropy", [keras.metrics.Precision(class_id=1)]),
        (keras.losses.CategoricalCrossentropy(reduction="sum"), ["accuracy"]),
        (keras.losses.SparseCategoricalCrossentropy(ignore_class=1), []),
    ],
    ids=["mean", "object", "one_hot", "precision", "sum", "ignored_class"],
)
def test_a_smaller_last_batch_counts_as_in_keras(loss, metrics, generator):
    count, size = (
        int(generator.integers(17, 40)),
        int(generator.integers(5, 17)),
    )
    images, labels = random_data(generator, count)
    if "sparse" not in (loss if isinstance(loss, str) else loss.name):
        labels = keras.utils.to_categorical(labels, 10)
    config = [
        m if isinstance(m, str) else keras.metrics.serialize(m) for m in metrics
    ]

    def fresh():
        return [
            m if isinstance(m, str) else keras.metrics.deserialize(m)
            for m in config
        ]

    model = make(loss=loss, metrics=fresh())
    plain = plain_copy(model)
    plain.compile("sgd", loss, metrics=fresh())
    results = [
        [
            each.fit(
                images,
                labels,
                batch_size=size,
                epochs=2,
                shuffle=False,
                validation_data=(images[:11], labels[:11]),
                validation_batch_size=4,
                verbose=0,
            ).history,
            each.evaluate(images, labels, batch_size=size, verbose=0),
            each.predict(images, batch_size=size, verbose=0),
        ]
        for each in (model, plain)
    ]
    assert results[0][0].keys() == results[1][0].keys()
    for name, values in results[1][0].items():
        np.testing.assert_allclose(results[0][0][name], values, atol=1e-5)
    assert_close(results[0][1:], results[1][1:])
    assert_close(model.get_weights(), plain.get_weights())


@pytest.mark.parametrize(
    "other",
    [
        lambda: make("adam"),
        lambda: make(keras.optimizers.SGD(momentum=0.5)),
        lambda: make(keras.optimizers.SGD(clipnorm=0.5)),
        lambda: make(metrics=[]),
        lambda: make(loss=keras.losses.SparseCategoricalCrossentropy()),
        lambda: make(num_classes=7),
        lambda: make(classifier_activation="sigmoid"),
        lambda: make(input_shape=(28, 28, 3)),
    ],
)
def test_models_that_differ_share_nothing(other):
    assert find_twin(make()) is find_twin(make())
    assert find_twin(other()) is not find_twin(make())


def test_a_frozen_layer_is_part_of_the_configuration():
    model, other = make(), make()
    other.get_layer("c1").trainable = False
    assert find_twin(other) is not find_twin(model)
    variables = find_twin(other).model.trainable_variables
    assert len(variables) == len(other.trainable_variables) == 8


class Mine(LeNet5):
    pass


def identity(x):
    return x


def with_own_method():
    model = make()
    model.optimizer.update_step = model.optimizer.update_step
    return model


def with_lambda_in_a_layer():
    model = make()
    model.get_layer("f6").activation = lambda x: x
    return model


def with_own_call_of_a_layer():
    model = make()
    layer = model.get_layer("c1")
    layer.call = layer.call
    return model


@pytest.mark.parametrize(
    "model",
    [
        with_own_call_of_a_layer,
        with_lambda_in_a_layer,
        lambda: make(loss=lambda y, p: p[:, 0]),
        lambda: make(metrics=[lambda y, p: p[:, 0]]),
        lambda: make(classifier_activation=identity),
        with_own_method,
    ],
    ids=["call", "lambda", "loss", "metric", "activation", "method"],
)
def test_what_a_user_wrote_is_not_shared(model):
    made = model()
    assert find_twin(made).model is made


def test_a_subclass_is_not_shared():
    model = Mine()
    model.compile("sgd", LOSS)
    assert find_twin(model).model is model


def test_a_loss_registered_under_a_name_is_not_shared():
    name = "keras_lenet_test_loss"
    keras.saving.get_custom_objects()[name] = lambda y, p: p[:, 0]
    try:
        model = make(loss=name)
        assert find_twin(model).model is model
    finally:
        keras.saving.get_custom_objects().pop(name)


def test_making_a_twin_leaves_the_random_state(generator):
    seed = int(generator.integers(2**31))
    drawn = []
    for twice in (False, True):
        # Before Keras 3.12, the seed does not start Keras' generator again.
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        model = make(num_classes=int(generator.integers(11, 10**6)))
        if twice:
            find_twin(model)
        drawn.append(keras.random.randint((), 0, 2**30))
        drawn.append(np.random.random())  # noqa: NPY002
    assert drawn[0] == drawn[2] and drawn[1] == drawn[3]
