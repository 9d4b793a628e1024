"""The training step on PyTorch, which uses PyTorch's fused Adam."""

import functools

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5
from keras_lenet.models import torch_step
from keras_lenet.recipes import OneCycle
from tests.helpers import BACKEND
from tests.models.helpers import assert_close, random_data

pytestmark = pytest.mark.skipif(
    BACKEND != "torch", reason="the step of the PyTorch backend"
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.Adam(OneCycle(0.02, 20), beta_2=0.9),
        lambda: keras.optimizers.Adam(0.01, epsilon=0.01, weight_decay=0.1),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.3, beta_1=0.7),
    ],
)
def test_the_update_is_that_of_keras(make, generator):
    import torch

    values = generator.normal(size=(2, 5, 7)).astype("float32")
    ours, theirs = ([keras.Variable(v) for v in values] for _ in range(2))
    fused, plain = make(), make()
    fused.build(ours)
    plain.build(theirs)
    for _ in range(10):
        size = 10.0 ** generator.integers(-6, 2)
        gradients = generator.normal(0, size, (2, 5, 7)).astype("float32")
        torch_step._apply(fused, list(torch.tensor(gradients)), ours)
        plain.apply(list(torch.tensor(gradients)), theirs)
    for one, other in zip(
        [*ours, *fused.variables], [*theirs, *plain.variables], strict=True
    ):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(other),
            rtol=1e-5,
            atol=1e-6,
        )


def fit(model, optimizer, generator):
    images, labels = random_data(generator, 24)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    history = model.fit(
        images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0
    )
    return history.history


def train_both(make_optimizer, generator, monkeypatch, prepare=None):
    """Returns weights and history after our training step, and Keras'."""
    seed = generator.integers(2**31)
    initial = LeNet5().get_weights()
    for supports in (torch_step.supports, lambda model: False):
        monkeypatch.setattr(torch_step, "supports", supports)
        model = LeNet5()
        model.set_weights(initial)
        if prepare is not None:
            prepare(model)
        history = fit(model, make_optimizer(), np.random.default_rng(seed))
        yield model.get_weights(), history


def test_fit_trains_as_keras_does(generator, monkeypatch):
    (ours, history), (theirs, plain) = train_both(
        lambda: keras.optimizers.Adam(1e-4, epsilon=1e-3),
        generator,
        monkeypatch,
    )
    assert_close(ours, theirs, 1e-6)
    assert history.keys() == plain.keys() >= {"loss", "accuracy"}
    for name, values in history.items():
        assert values == pytest.approx(plain[name], rel=1e-5)


def without_decay_of_biases():
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def constrain(model):
    model.get_layer("f6").kernel.constraint = keras.constraints.UnitNorm()


@pytest.mark.parametrize(
    ("make_optimizer", "prepare"),
    [
        *(
            (functools.partial(keras.optimizers.Adam, 0.01, **settings), None)
            for settings in (
                {"clipnorm": 0.1},
                {"clipvalue": 1e-3},
                {"global_clipnorm": 0.1},
                {"amsgrad": True},
                {"use_ema": True, "ema_overwrite_frequency": 2},
                {"gradient_accumulation_steps": 2},
                {"loss_scale_factor": 8.0},
            )
        ),
        (without_decay_of_biases, None),
        (functools.partial(keras.optimizers.Adam, 0.01), constrain),
    ],
)
def test_what_else_an_optimizer_does_is_left_to_keras(
    make_optimizer, prepare, generator, monkeypatch
):
    (ours, history), (theirs, plain) = train_both(
        make_optimizer, generator, monkeypatch, prepare
    )
    # Bit for bit: the fused operation rounds in another way.
    np.testing.assert_equal(ours, theirs)
    assert history == plain


@pytest.mark.parametrize("kind", ["other", "replaced", "subclass"])
def test_another_optimizer_takes_effect_without_compile(kind, generator):
    applied = []

    class Counting(keras.optimizers.Adam):
        def apply(self, *arguments):
            applied.append(True)
            return super().apply(*arguments)

    model = LeNet5()
    fit(model, "adam", generator)
    optimizer = keras.optimizers.Adam(0.01)
    if kind == "other":
        optimizer = keras.optimizers.SGD(0.01)
    elif kind == "subclass":
        optimizer = Counting(0.01)
    elif kind == "replaced":
        apply = optimizer.apply
        optimizer.apply = lambda *arguments: (
            applied.append(True),
            apply(*arguments),
        )
    model.optimizer = optimizer
    model.fit(*random_data(generator, 16), batch_size=8, verbose=0)
    assert int(optimizer.iterations) == 2
    assert len(applied) == (0 if kind == "other" else 2)


def test_a_frozen_layer_keeps_its_weights(generator):
    model = LeNet5()
    fit(model, "adam", generator)
    model.get_layer("c1").trainable = False
    frozen, *_, trained = model.get_weights()
    fit(model, model.optimizer, generator)
    after, *_, last = model.get_weights()
    np.testing.assert_array_equal(after, frozen)
    assert not np.array_equal(last, trained)
