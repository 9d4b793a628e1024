"""Input that is refused, in every form of data and on every backend.

Plain Keras raises an error with one backend and computes nonsense with
another, or an error of the backend comes up that says little. Each refusal of
ours is listed here with its message.
"""

import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, LeNet5
from tests.differential.test_data_forms import (
    Sequence,
    batches,
    dataset,
    from_generator,
)
from tests.differential.twin import (
    SharedPair,
    compare,
    compile_plainly,
    make_data,
    table,
)
from tests.helpers import needs_tensorflow

shared = SharedPair(compile_plainly)

LABELS = r"`labels` must be from 0 to 9"


def fit(model, x, y=None, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, **arguments)


def fit_batches(model, x, **arguments):
    return model.fit(x, shuffle=False, verbose=0, **arguments)


def with_label(data, label, index=3):
    """Returns data in which one label is another."""
    y = data.y.copy()
    y[index] = label
    return data._replace(y=y)


FORMS = {
    "fit": lambda m, d: fit(m, d.x, d.y),
    "fit_column": lambda m, d: fit(m, d.x, d.y[:, np.newaxis]),
    "p03-fit_list_of_array": lambda m, d: fit(m, d.x, [d.y]),
    "p03-fit_tensors": lambda m, d: fit(
        m,
        keras.ops.convert_to_tensor(d.x),
        keras.ops.convert_to_tensor(d.y),
    ),
    "fit_split": lambda m, d: fit(m, d.x, d.y, validation_split=0.25),
    "p03-fit_sequence": lambda m, d: fit_batches(m, Sequence(d)),
    "p03-fit_generator": lambda m, d: fit_batches(m, batches(d)),
    "p03-validation_arrays": lambda m, d: fit(
        m, d.x, d.y % 10, validation_data=(d.x, d.y)
    ),
    "p03-validation_sequence": lambda m, d: fit(
        m, d.x, d.y % 10, validation_data=Sequence(d)
    ),
    "p03-validation_generator": lambda m, d: fit(
        m, d.x, d.y % 10, validation_data=batches(d)
    ),
    "evaluate": lambda m, d: m.evaluate(d.x, d.y, verbose=0),
    "p03-evaluate_sequence": lambda m, d: m.evaluate(Sequence(d), verbose=0),
    "p03-train_on_batch": lambda m, d: m.train_on_batch(d.x, d.y),
    "p03-test_on_batch": lambda m, d: m.test_on_batch(d.x, d.y),
}


@pytest.mark.parametrize("scenario", table(FORMS))
@pytest.mark.parametrize("label", [10, -1])
def test_labels_out_of_range_are_refused(label, scenario):
    compare(
        lambda model, data: scenario(model, with_label(data, label)),
        shared,
        refusal=LABELS,
    )


@pytest.mark.parametrize("index", [0, 23])
def test_p03_labels_out_of_range_are_refused_wherever_they_are(index):
    compare(
        lambda m, d: fit_batches(m, Sequence(with_label(d, 77, index))),
        shared,
        refusal=LABELS,
    )


DATASETS = {
    "p03-fit": lambda m, d: fit_batches(m, dataset(d)),
    "p03-fit_unknown_cardinality": lambda m, d: fit_batches(
        m, dataset(d).filter(lambda x, y: True)
    ),
    "p03-fit_from_generator": lambda m, d: fit_batches(m, from_generator(d)),
    "p03-validation": lambda m, d: fit(
        m, d.x, d.y % 10, validation_data=dataset(d)
    ),
    "p03-evaluate": lambda m, d: m.evaluate(dataset(d), verbose=0),
}


@needs_tensorflow
@pytest.mark.parametrize("scenario", table(DATASETS))
def test_labels_out_of_range_in_datasets_are_refused(scenario):
    compare(
        lambda model, data: scenario(model, with_label(data, 10)),
        shared,
        refusal=LABELS,
    )


@pytest.mark.parametrize("label", [2.5, np.nan])
def test_labels_that_are_no_whole_numbers_are_refused(label):
    def scenario(model, data):
        y = data.y.astype("float32")
        y[3] = label
        return fit(model, data.x, y)

    compare(scenario, shared, refusal="`labels` must be")


# Pixels.

DIVIDED = r"divided by 255|\[0, 255\]|include_preprocessing"

PIXELS = {
    "fit": lambda m, d: fit(m, d.x, d.y),
    "fit_list": lambda m, d: fit(m, [d.x], d.y),
    "fit_float64": lambda m, d: fit(m, d.x.astype("float64"), d.y),
    "fit_without_channels": lambda m, d: fit(m, d.x[..., 0], d.y),
    "fit_tensors": lambda m, d: fit(m, keras.ops.convert_to_tensor(d.x), d.y),
    "fit_sequence": lambda m, d: fit_batches(m, Sequence(d)),
    "validation": lambda m, d: fit(
        m, d.x * 255, d.y, validation_data=(d.x, d.y)
    ),
    "evaluate": lambda m, d: m.evaluate(d.x, d.y, verbose=0),
    "predict": lambda m, d: m.predict(d.x, verbose=0),
    "predict_sequence": lambda m, d: m.predict(Sequence(d), verbose=0),
    "train_on_batch": lambda m, d: m.train_on_batch(d.x, d.y),
    "test_on_batch": lambda m, d: m.test_on_batch(d.x, d.y),
    "predict_on_batch": lambda m, d: m.predict_on_batch(d.x),
    "held_out": lambda m, d: fit(
        m, d.x * 255, d.y, callbacks=[HeldOutEvaluation((d.x, d.y), 1)]
    ),
}
POINT_4 = {f"p04-{name}": scenario for name, scenario in PIXELS.items()}


@pytest.mark.parametrize("scenario", table(POINT_4))
def test_pixels_divided_by_255_are_refused(scenario):
    compare(
        lambda m, d: scenario(
            m, d._replace(x=d.x.astype("float32") / np.float32(255))
        ),
        shared,
        refusal=DIVIDED,
    )


@needs_tensorflow
def test_p04_pixels_divided_by_255_in_a_dataset_are_refused():
    compare(
        lambda m, d: fit_batches(
            m, dataset(d._replace(x=d.x.astype("float32") / 255))
        ),
        shared,
        refusal=DIVIDED,
    )


RAW = r"include_preprocessing=False|\[0, 1\]|255"


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("scenario", table(POINT_4))
def test_raw_pixels_are_refused_without_preprocessing(scenario, dtype):
    generator = np.random.default_rng(4)
    x = generator.integers(0, 256, (24, 32, 32, 1)).astype(dtype)
    if scenario in (POINT_4["p04-validation"], POINT_4["p04-held_out"]):
        # What is trained on is right, for which these multiply.
        pytest.skip("covered by `evaluate`")

    def compiled(model, data):
        compile_plainly(model)
        return scenario(model, data._replace(x=x))

    compare(compiled, refusal=RAW, include_preprocessing=False)


# What looks alike and is right.
TAKEN = {
    "black": lambda x: np.zeros_like(x, "float32"),
    "integers_of_0_and_1": lambda x: (x > 127).astype("uint8"),
    "one_pixel_above": lambda x: np.where(
        np.arange(x.size).reshape(x.shape) == 5, 1.5, x / 255
    ).astype("float32"),
    "float_pixels": lambda x: x.astype("float32"),
}


@pytest.mark.parametrize("convert", table(TAKEN))
def test_pixels_that_are_right_are_taken(convert):
    compare(
        lambda m, d: m.predict(convert(d.x), batch_size=8, verbose=0), shared
    )


# Shapes.

# `x` of 28 rows and 24 labels are also of different lengths.
SHAPE = r"\(batch, 28, 28, 1\)|shape|same number of samples"

SHAPES = {
    "p05-one_image": lambda x: x[0],
    "p05-one_image_without_channels": lambda x: x[0, ..., 0],
    "p05-smaller": lambda x: x[:9, 4:24, 4:24],
    "p05-larger": lambda x: np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))),
    "p05-wide": lambda x: x[:, :14],
    "p05-colour": lambda x: np.repeat(x, 3, axis=3),
    "p05-channels_first": lambda x: x.transpose(0, 3, 1, 2),
    "p05-flat": lambda x: x.reshape(len(x), -1),
    "p05-five_axes": lambda x: x[np.newaxis],
}
METHODS = {
    "predict": lambda m, x, y: m.predict(x, verbose=0),
    "evaluate": lambda m, x, y: m.evaluate(x, y[: len(x)], verbose=0),
    "fit": lambda m, x, y: fit(m, x, y[: len(x)]),
    "predict_on_batch": lambda m, x, y: m.predict_on_batch(x),
    "train_on_batch": lambda m, x, y: m.train_on_batch(x, y[: len(x)]),
}


@pytest.mark.parametrize("change", table(SHAPES))
@pytest.mark.parametrize("method", table(METHODS))
def test_images_of_another_shape_are_refused(method, change):
    compare(
        lambda model, data: method(model, change(data.x), data.y),
        shared,
        refusal=SHAPE,
    )


def test_images_of_another_shape_are_refused_in_a_call():
    for change in ("p05-smaller", "p05-colour"):
        compare(
            lambda m, d, change=change: m(SHAPES[change](d.x)),
            refusal=SHAPE,
        )


def test_p05_a_preset_refuses_one_image_and_takes_it_in_a_batch():
    model = LeNet5.from_preset("digits")
    image = make_data().x[0]
    assert model.predict(image[np.newaxis], verbose=0).shape == (1, 10)
    with pytest.raises(ValueError, match="shape"):
        model.predict(image, verbose=0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda d: [d.x_val, d.y_val], id="p13-list"),
        pytest.param(lambda d: (d.x_val, d.y_val), id="tuple"),
    ],
)
def test_held_out_evaluation_takes_arrays_in_a_list_or_says_so(data):
    def scenario(model, given):
        try:
            callback = HeldOutEvaluation(data(given), "epoch")
        except ValueError as error:
            # To refuse it is as good, if it is said how.
            assert "tuple" in str(error), error
            return None
        fit(model, given.x, given.y, callbacks=[callback])
        assert callback.history["val_loss"]
        return None

    model, _ = shared.reset()
    scenario(model, make_data())
