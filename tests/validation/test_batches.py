import keras
import numpy as np
import pytest

from keras_lenet import HeldOutEvaluation, LeNet5, OriginalLeNet5
from keras_lenet.original import DistanceLoss
from tests.helpers import BACKEND, needs_tensorflow


@pytest.fixture(scope="module")
def model():
    model = LeNet5()
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture
def data(generator):
    images = generator.integers(0, 256, (24, 28, 28, 1)).astype("uint8")
    return images, generator.integers(0, 10, 24)


def batches(x, y, size=8):
    for start in range(0, len(x), size):
        yield x[start : start + size], y[start : start + size]


class Batches(keras.utils.PyDataset):
    def __init__(self, *data):
        super().__init__()
        self.data = list(batches(*data))

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


def tf_data(x, y):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


FORMS = {
    "arrays": lambda x, y: (x, y),
    "tensors": lambda x, y: tuple(map(keras.ops.convert_to_tensor, (x, y))),
    "generator": lambda x, y: (batches(x, y),),
    "PyDataset": lambda x, y: (Batches(x, y),),
    "tf.data": lambda x, y: (tf_data(x, y),),
}
every_form = pytest.mark.parametrize(
    "form",
    [
        pytest.param(
            form,
            id=name,
            marks=[needs_tensorflow] if name == "tf.data" else [],
        )
        for name, form in FORMS.items()
    ],
)


def still_works(model, data):
    """Returns whether an error has left the model intact."""
    return np.isfinite(model.evaluate(*data, verbose=0))


@every_form
@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed")
@pytest.mark.parametrize("wrong", [10, -1, -100])
def test_a_label_out_of_range_is_rejected_in_every_form_of_data(
    form, wrong, model, data
):
    x, y = data
    labels = y.copy()
    labels[13] = wrong
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=rf"from 0 to 9.*{wrong}, first"):
            method(*form(x, labels), verbose=0)
    assert still_works(model, data)


def test_labels_out_of_range_are_rejected_for_validation_and_on_batches(
    model, data
):
    x, y = data
    match = "`labels` must be from 0 to 9"
    for validation in ((x, y + 10), [x, y + 10], Batches(x, y + 10)):
        with pytest.raises(ValueError, match=match):
            model.fit(x, y, validation_data=validation, verbose=0)
    for method in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=match):
            method(x, y + 10)
    assert still_works(model, data)


def test_only_the_ignored_class_may_be_out_of_range(data):
    x, y = data
    model = LeNet5()
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    )
    y[5] = -1
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    y[5] = -2
    with pytest.raises(ValueError, match=r"from 0 to 9\. Received: -2"):
        model.evaluate(x, y, verbose=0)


def test_the_distance_loss_rejects_labels_out_of_range(data):
    x, y = data
    model = OriginalLeNet5(num_classes=3)
    model.compile("sgd", DistanceLoss())
    y %= 3
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    y[5] = 3
    with pytest.raises(ValueError, match="from 0 to 2"):
        model.evaluate(x, y, verbose=0)


def test_a_custom_loss_accepts_any_labels(data):
    class Mine(keras.losses.SparseCategoricalCrossentropy):
        def call(self, y_true, y_pred):
            return super().call(y_true % 10, y_pred)

    x, y = data
    model = LeNet5()
    model.compile("sgd", Mine())
    assert np.isfinite(model.evaluate(x, y + 10, verbose=0))


def test_fit_needs_labels(model, data):
    x, _ = data
    with pytest.raises(ValueError, match="`y` must be labels"):
        model.fit(x, verbose=0)
    model.predict(x, verbose=0)


@every_form
@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed")
@pytest.mark.parametrize("scale", [1 / 255, 2 / 255])
def test_scaled_pixels_are_rejected_by_a_model_that_scales(
    form, scale, model, data
):
    x, y = data
    scaled = (x * scale - (scale > 1 / 255)).astype("float32")
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=r"raw pixels.*division by 255"):
            method(*form(scaled, y), verbose=0)
    x_form = form(scaled, y)[0]
    with pytest.raises(ValueError, match=r"raw pixels.*division by 255"):
        model.predict(x_form, verbose=0)
    assert still_works(model, data)


def test_held_out_images_are_checked_before_the_first_step(model, data):
    x, y = data
    before = int(model.optimizer.iterations)
    for images, labels in ((x / 255, y), (x[:, :20], y), (x, y + 10)):
        held_out = HeldOutEvaluation((images, labels), freq=1)
        with pytest.raises(ValueError, match=r"raw pixels|`x` must|`labels`"):
            model.fit(x, y, callbacks=[held_out], verbose=0)
    assert int(model.optimizer.iterations) == before


def test_raw_pixels_are_rejected_by_a_model_that_does_not_scale(generator):
    x = generator.integers(0, 256, (4, 32, 32, 1)).astype("uint8")
    model = LeNet5(include_preprocessing=False)
    for raw in (x, x.astype("float32")):
        with pytest.raises(ValueError, match="must be scaled images"):
            model.predict(raw, verbose=0)
        with pytest.raises(ValueError, match="must be scaled images"):
            model.predict_on_batch(raw)
    for scaled in (x / 255, (x - 33.3) / 78.6):
        assert model.predict(scaled, verbose=0).shape == (4, 10)


def test_pixels_that_may_be_raw_are_accepted(model, data):
    x, y = data
    dark = np.minimum(x, 2)
    for images in (x.astype("float64"), dark, dark * 1.0, x * 0.0, x - 3.0):
        assert np.isfinite(model.evaluate(images, y, verbose=0))
    plain = LeNet5()
    plain.get_layer("rescaling").scale = 1.0
    assert plain.predict(x / 255, verbose=0).shape == (24, 10)


@pytest.mark.parametrize(
    ("cut", "match"),
    [
        (
            lambda x: x[0],
            r"batch, 28, 28, 1\)\. Received: shape \(\d+, 28, 1\)",
        ),
        (lambda x: x[:, 4:24, 4:24], r"Received: shape \(\d+, 20, 20, 1\)"),
        (lambda x: np.repeat(x, 3, axis=-1), r"shape \(\d+, 28, 28, 3\)"),
    ],
)
def test_images_of_another_shape_are_rejected(cut, match, model, data):
    x, y = data
    for method in (
        lambda images: model.predict(images, verbose=0),
        model.predict_on_batch,
        lambda images: model.evaluate(
            images, np.resize(y, len(images)), verbose=0
        ),
        lambda images: model.predict(Batches(images, images), verbose=0),
    ):
        with pytest.raises(ValueError, match=match):
            method(cut(x))
    assert still_works(model, data)


def test_the_error_for_a_single_image_suggests_a_batch_axis(model, data):
    for image in (data[0][0], data[0][0, ..., 0]):
        with pytest.raises(ValueError, match=r"axis: `x\[np.newaxis\]`"):
            model.predict(image, verbose=0)


def test_the_channel_axis_may_be_missing(model, data):
    x, _ = data
    np.testing.assert_allclose(
        model.predict(x[..., 0], verbose=0),
        model.predict(x, verbose=0),
        rtol=1e-6,
    )


def test_a_custom_call_accepts_any_images(generator):
    class Mine(LeNet5):
        def call(self, inputs, training=None):
            return super().call(inputs * 255.0)

    images = generator.random((2, 28, 28, 1), "float32")
    model, other = Mine(), LeNet5()
    other.set_weights(model.get_weights())
    np.testing.assert_allclose(
        model.predict_on_batch(images),
        other.predict_on_batch(images * 255),
        atol=1e-5,
    )


@pytest.mark.parametrize("count", [0, 3])
def test_different_numbers_of_images_and_labels_are_rejected(
    count, model, data
):
    x, y = data
    match = "at least one image" if count == 0 else "24 labels|same length"
    with pytest.raises(ValueError, match=match):
        model.fit(x[:count], y, verbose=0)


def test_from_logits_is_compared_with_the_output_layer(data):
    x, y = data
    model = LeNet5()
    model.get_layer("output").activation = keras.activations.linear
    model.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    assert np.isfinite(model.evaluate(x, y, verbose=0))
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"from_logits=True.*'linear'"):
        model.evaluate(x, y, verbose=0)


def test_a_custom_loss_is_not_mistaken_for_one_of_keras_by_name(data):
    @keras.saving.register_keras_serializable("test_validation")
    class FocalSparseCategoricalCrossentropy(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.losses.sparse_categorical_crossentropy(
                y_true, y_pred, from_logits=True
            )

    model = LeNet5(classifier_activation=None)
    model.compile("sgd", FocalSparseCategoricalCrossentropy())
    assert np.isfinite(model.evaluate(*data, verbose=0))


def test_callbacks_may_use_the_model_while_batches_are_checked(model, data):
    x, y = data
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.extend(
            [
                len(model.predict_on_batch(x)),
                len(model.predict(x, verbose=0)),
                np.size(model.test_on_batch(x, y)),
            ]
        )
    )
    model.fit(Batches(x, y), callbacks=[callback], verbose=0)
    assert seen == [24, 24, 1]


@pytest.mark.skipif(BACKEND == "torch", reason="about compiled training")
def test_data_that_run_out_before_the_end_of_an_epoch_cause_a_warning(data):
    model = LeNet5()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.warns(UserWarning, match="ran out of data") as warned:
        model.fit(Batches(*data), epochs=2, steps_per_epoch=5, verbose=0)
    assert len([w for w in warned if "ran out" in str(w.message)]) == 2
    assert int(model.optimizer.iterations) == 6
