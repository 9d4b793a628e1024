"""Scenarios composed at random: compiling, data, changes, calls, saving."""

import keras
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.differential.changes import (
    ACTIVATION,
    COMPUTED,
    CONSTRAINED,
    REGULARIZED,
    TRAINABLE,
    describe,
)
from tests.differential.test_data_forms import Sequence, batches
from tests.differential.twin import compare
from tests.helpers import BACKEND

optimizers = keras.optimizers

CHANGES = {
    **ACTIVATION,
    **TRAINABLE,
    **REGULARIZED,
    **CONSTRAINED,
    **COMPUTED,
}

# With names, or Keras numbers them.
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.02, name="sgd"),
    "momentum": lambda: optimizers.SGD(0.01, momentum=0.9, name="momentum"),
    "adam": lambda: optimizers.Adam(1e-4, name="adam"),
    "clipped": lambda: optimizers.SGD(0.1, global_clipnorm=0.1, name="clipped"),
    "accumulating": lambda: optimizers.SGD(0.02, gradient_accumulation_steps=2),
}

FORMS = {
    "arrays": lambda d: {"x": d.x, "y": d.y, "batch_size": 8},
    "floats": lambda d: {
        "x": d.x.astype("float32"),
        "y": d.y,
        "batch_size": 8,
    },
    "without_channels": lambda d: {"x": d.x[..., 0], "y": d.y, "batch_size": 8},
    "weighted": lambda d: {
        "x": d.x,
        "y": d.y,
        "sample_weight": d.weights,
        "batch_size": 8,
    },
    "sequence": lambda d: {"x": Sequence(d)},
    "generator": lambda d: {"x": batches(d)},
}

CALLS = {
    "fit": lambda m, d, form: m.fit(**FORMS[form](d), shuffle=False, verbose=0),
    "fit_validating": lambda m, d, form: m.fit(
        **FORMS[form](d),
        validation_data=d.validation,
        shuffle=False,
        verbose=0,
    ),
    "fit_with_hooks": lambda m, d, form: m.fit(
        **FORMS[form](d),
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: None
            )
        ],
        shuffle=False,
        verbose=0,
    ),
    "evaluate": lambda m, d, form: m.evaluate(**FORMS[form](d), verbose=0),
    "predict": lambda m, d, form: m.predict(d.x, batch_size=8, verbose=0),
    "train_on_batch": lambda m, d, form: m.train_on_batch(d.x[:8], d.y[:8]),
    "call": lambda m, d, form: m(d.x[:8]),
}

steps = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(sorted(CHANGES))),
    st.tuples(
        st.just("call"),
        st.tuples(
            st.sampled_from(sorted(CALLS)), st.sampled_from(sorted(FORMS))
        ),
    ),
    st.tuples(st.just("save"), st.just(None)),
    st.tuples(st.just("compile"), st.sampled_from(sorted(OPTIMIZERS))),
)


@st.composite
def plans(draw):
    """Draws what is done to a model, one after the other."""
    plan = [("compile", draw(st.sampled_from(sorted(OPTIMIZERS))))]
    plan += draw(st.lists(steps, min_size=1, max_size=4))
    # What was changed counts from the next `compile` on.
    return [
        *plan,
        ("compile", draw(st.sampled_from(sorted(OPTIMIZERS)))),
        ("call", ("fit", draw(st.sampled_from(sorted(FORMS))))),
        ("call", ("evaluate", "arrays")),
    ]


def follow(plan, folder):
    def scenario(model, data):
        results = []
        for kind, what in plan:
            if kind == "change":
                CHANGES[what](model)
            elif kind == "compile":
                model.compile(
                    OPTIMIZERS[what](), "sparse_categorical_crossentropy"
                )
            elif kind == "save":
                path = folder / f"{type(model).__name__}.keras"
                model.save(path)
                model = keras.saving.load_model(path)
            else:
                call, form = what
                results.append(CALLS[call](model, data, form))
        return results, describe(model, data.x[:8])

    return scenario


def check(plan, folder):
    # A change that is made after a trace and before the next `compile` is
    # taken up or not, as the backend traces: so compile after each.
    compiled = []
    for kind, what in plan:
        compiled.append((kind, what))
        if kind == "change":
            compiled.append(("compile", "sgd"))
    compare(follow(compiled, folder), state=False)


@given(plan=plans())
@settings(
    max_examples=3 if BACKEND != "torch" else 6,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_scenarios_composed_at_random_agree(plan, tmp_path_factory):
    check(plan, tmp_path_factory.mktemp("composed"))


def test_many_scenarios_composed_at_random_agree(full, tmp_path_factory):
    if not full:
        pytest.skip("needs --full")

    @given(plan=plans())
    @settings(
        max_examples=300,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def many(plan):
        check(plan, tmp_path_factory.mktemp("composed"))

    many()
