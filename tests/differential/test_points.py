"""Points of the issue for which plain Keras has nothing to compare with."""

import time

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, calibration, pictures
from keras_lenet.original import EuclideanRBF
from tests.differential.twin import make_data


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_p07_a_quantized_model_is_not_calibrated_to_nonsense(digits):
    (x, y), (x_test, y_test) = digits
    model = LeNet5.from_preset("digits")
    model.quantize("int8")

    def accuracy():
        return np.mean(model.predict(x_test, verbose=0).argmax(1) == y_test)

    before = accuracy()
    assert before > 0.9
    try:
        temperature = calibration.calibrate(model, x[:500], y[:500])
    except ValueError:
        # To refuse it is as good.
        temperature = None
    assert accuracy() == pytest.approx(before, abs=0.01)
    # On images that it was trained on, a model may be as sure as can be.
    assert temperature is None or 0.01 <= temperature < 5


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_p08_distances_of_integers_are_those_of_floats(dtype):
    codes = [[0.5, -1.25], [2.0, 0.75]]
    inputs = np.array([[1, 2], [3, 0]], dtype)
    layer = EuclideanRBF(codes)
    expected = ((inputs[:, None] - np.array(codes)) ** 2).sum(-1)
    found = layer(keras.ops.convert_to_tensor(inputs))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected)


class Derived(LeNet5):
    """A user's class, which adds nothing."""


def test_p10_a_derived_class_comes_back_from_its_preset(tmp_path):
    model = Derived()
    model.save_to_preset(tmp_path / "preset")
    again = Derived.from_preset(tmp_path / "preset")
    assert type(again) is Derived
    images = make_data().x[:4]
    np.testing.assert_allclose(
        again.predict(images, verbose=0),
        model.predict(images, verbose=0),
        atol=1e-5,
    )


def test_p10_a_derived_class_takes_a_preset_of_its_base():
    model = Derived.from_preset("digits")
    assert type(model) is Derived
    images = make_data().x[:4]
    np.testing.assert_allclose(
        model.predict(images, verbose=0),
        LeNet5.from_preset("digits").predict(images, verbose=0),
        atol=1e-5,
    )


def test_p10_a_base_class_does_not_take_a_preset_for_another(tmp_path):
    Derived().save_to_preset(tmp_path / "preset")
    # It either makes the class that was saved or says that it does not.
    try:
        model = LeNet5.from_preset(tmp_path / "preset")
    except ValueError as error:
        assert "Derived" in str(error)
    else:
        assert isinstance(model, LeNet5)


def test_p15_ink_that_is_in_the_mask_alone_is_seen(tmp_path):
    from PIL import Image

    mask = np.zeros((280, 280), "uint8")
    mask[60:220, 130:150] = 255
    path = tmp_path / "white.png"
    white = np.full((280, 280, 3), 255, "uint8")
    Image.fromarray(np.dstack([white, mask])).save(path)
    try:
        image = pictures.prepare_character(pictures.load_picture(path))
    except ValueError as error:
        # Nothing can be seen of white on white: what is wrong must be said.
        assert "transparen" in str(error).lower()
    else:
        assert image is not None, "no ink"
        assert image.max() > 128


def test_p15_a_large_scan_is_read_or_refused_for_its_size(tmp_path):
    from PIL import Image

    path = tmp_path / "scan.png"
    Image.new("RGB", (4960, 7016), "white").save(path)
    try:
        picture = pictures.load_picture(path)
    except ValueError as error:
        assert "damaged" not in str(error)
        assert "pixels" in str(error)
    else:
        assert picture.shape[:2] == (7016, 4960)


def test_p16_images_without_channels_train_as_fast_as_with(digits):
    x, y = (array[:400] for array in digits[0])

    def seconds(images):
        model = LeNet5()
        model.compile("sgd", "sparse_categorical_crossentropy")
        lasted = []
        for _ in range(4):
            start = time.perf_counter()
            model.fit(images, y, batch_size=100, verbose=0)
            lasted.append(time.perf_counter() - start)
        # The first compiles.
        return min(lasted[1:])

    # Five times as long without.
    assert seconds(x[..., 0]) < 2.5 * seconds(x)
