import hashlib
import json
import re

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, OriginalLeNet5
from keras_lenet.calibration import expected_calibration_error
from keras_lenet.datasets import load_data
from keras_lenet.files import FileFormatError
from keras_lenet.saving import adapt, read_preset
from tests.helpers import once
from tests.models.helpers import random_images


@pytest.fixture
def model(generator):
    keras.utils.set_random_seed(int(generator.integers(2**31)))
    return LeNet5(4, (20, 24, 2), name="mine")


@pytest.fixture
def preset(model, tmp_path):
    model.save_to_preset(tmp_path / "preset", {"dataset": "my own"})
    return tmp_path / "preset"


def assert_same_weights(model, other, without=()):
    for layer in other.layers:
        if layer.name not in without:
            np.testing.assert_equal(
                model.get_layer(layer.name).get_weights(), layer.get_weights()
            )


def test_a_saved_preset_gives_the_same_model(model, preset, generator):
    loaded = LeNet5.from_preset(preset)
    assert loaded.get_config() == model.get_config()
    images = random_images(generator, 5, model)
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_the_card_is_saved(preset):
    assert read_preset(preset).card == {"dataset": "my own"}


def test_the_files_have_the_format_of_kerashub(model, preset):
    metadata = json.loads((preset / "metadata.json").read_text())
    assert metadata["keras_version"] == keras.version()
    assert metadata["parameter_count"] == model.count_params()
    config = json.loads((preset / "config.json").read_text())
    assert config["registered_name"] == "keras_lenet>LeNet5"
    loaded = keras.saving.deserialize_keras_object(config)
    loaded.load_weights(preset / "model.weights.h5")
    assert_same_weights(loaded, model)


def test_a_compiled_model_is_saved_without_its_optimizer(tmp_path, generator):
    model = LeNet5()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(
        random_images(generator, 5, model),
        generator.integers(0, 10, 5),
        verbose=0,
    )
    model.save_to_preset(tmp_path / "preset")
    assert (tmp_path / "preset" / "model.weights.h5").stat().st_size < 300_000
    assert_same_weights(LeNet5.from_preset(tmp_path / "preset"), model)


def test_another_num_classes_gives_a_new_output_layer(model, preset):
    heads = []
    for _ in range(2):
        other = LeNet5.from_preset(preset, num_classes=7)
        assert other.output_shape == (None, 7)
        assert_same_weights(other, model, without=["output"])
        heads.append(other.get_layer("output").get_weights()[0])
    assert heads[0].shape == (84, 7) and (heads[0] != heads[1]).any()


def test_arguments_override_those_of_the_preset(model, preset, generator):
    logits = LeNet5.from_preset(
        preset, classifier_activation=None, input_shape=(28, 28, 2), name="new"
    )
    assert (logits.name, logits.input_shape) == ("new", (None, 28, 28, 2))
    images = random_images(generator, 5, model)
    larger = np.pad(images, ((0, 0), (4, 4), (2, 2), (0, 0)))
    np.testing.assert_allclose(
        keras.ops.softmax(logits.predict(larger, verbose=0)),
        model.predict(images, verbose=0),
        atol=1e-5,
    )


def test_a_change_between_colour_spaces_is_rejected(preset):
    with pytest.raises(ValueError, match=r"`channels` must be 1.*channels=3"):
        LeNet5.from_preset(preset, input_shape=(28, 28, 3))


def test_adapt_does_not_change_the_model(model):
    before = model.get_weights()
    adapted = adapt(model, num_classes=4)
    assert_same_weights(adapted, model)
    adapted.set_weights([0 * weight for weight in before])
    np.testing.assert_equal(model.get_weights(), before)


@once
@pytest.mark.parametrize("content", [False, True])
def test_only_an_empty_folder_is_replaced(content, model, tmp_path):
    path = tmp_path / "preset"
    path.mkdir()
    if content:
        (path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match="must be a folder that is empty"):
            model.save_to_preset(path)
        assert [file.name for file in path.iterdir()] == ["notes.txt"]
    else:
        model.save_to_preset(path)
        assert_same_weights(LeNet5.from_preset(path), model)
    assert [file.name for file in tmp_path.iterdir()] == ["preset"]


@once
def test_a_failed_save_leaves_no_files(model, tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_lenet.models.presets._write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save_to_preset(tmp_path / "preset")
    assert not list(tmp_path.iterdir())


@once
def test_any_flipped_bit_is_detected(preset, generator):
    for name in ("config.json", "model.weights.h5"):
        path = preset / name
        whole = path.read_bytes()
        for _ in range(30):
            damaged = bytearray(whole)
            damaged[generator.integers(len(whole))] ^= 1 << generator.integers(
                8
            )
            path.write_bytes(damaged)
            with pytest.raises(FileFormatError, match=f"{name}.*SHA-256"):
                LeNet5.from_preset(preset)
        path.write_bytes(whole)
    LeNet5.from_preset(preset)


def forge_file(preset, name, content):
    """Writes a file of a preset with a matching SHA-256."""
    (preset / name).write_bytes(content)
    metadata = json.loads((preset / "metadata.json").read_text())
    metadata["sha256"][name] = hashlib.sha256(content).hexdigest()
    (preset / "metadata.json").write_text(json.dumps(metadata))


@once
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registered_name": "keras>Lambda"}, "the model a LeNet5"),
        ({"config": {"num_classes": 10**9}}, "sizes that fit its weights"),
        ({"config": {"dtype": {"class_name": "X", "module": "os"}}}, "dtype"),
        ({"config": {"path": "/"}}, "arguments of LeNet5"),
    ],
)
def test_a_preset_creates_only_a_lenet5(change, message, preset):
    config = json.loads((preset / "config.json").read_text())
    change["config"] = config["config"] | change.get("config", {})
    content = json.dumps(config | change).encode()
    forge_file(preset, "config.json", content)
    with pytest.raises(FileFormatError, match=message):
        LeNet5.from_preset(preset)


@once
@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"text"])
def test_files_without_weights_are_rejected(content, preset):
    forge_file(preset, "model.weights.h5", content)
    with pytest.raises(FileFormatError, match=re.escape(str(preset))):
        LeNet5.from_preset(preset)


@once
@pytest.mark.parametrize(
    "name", ["config.json", "metadata.json", "model.weights.h5"]
)
def test_a_missing_file_is_named(name, preset):
    (preset / name).unlink()
    with pytest.raises(FileFormatError, match=f"expected the file {name}"):
        LeNet5.from_preset(preset)


@once
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"card": 1}'])
def test_damaged_metadata_are_rejected(content, preset):
    (preset / "metadata.json").write_text(content)
    with pytest.raises(FileFormatError, match="the metadata of a preset"):
        LeNet5.from_preset(preset)


def test_an_unknown_preset_is_rejected_with_the_known_names():
    with pytest.raises(
        ValueError, match="one of digits, handwritten, mnist, original, or"
    ):
        LeNet5.from_preset("cifar10")


# The presets of the package


def accuracy_of(name, data):
    _, (x_test, y_test) = load_data(data)
    model = LeNet5.from_preset(name)
    probabilities = model.predict(x_test, batch_size=500, verbose=0)
    return (
        np.mean(probabilities.argmax(axis=1) == y_test),
        probabilities,
        y_test,
    )


@pytest.mark.parametrize("name", ["mnist", "digits"])
def test_presets_have_the_accuracy_on_their_cards(name, request):
    data = name
    if name == "mnist":
        data = request.getfixturevalue("mnist_dir") / "mnist"
    accuracy, probabilities, labels = accuracy_of(name, data)
    card = read_preset(name).card
    assert card["dataset"] == name and card["test_images"] == len(labels)
    # Rounding on another machine may change one prediction.
    assert accuracy == pytest.approx(card["test_accuracy"], abs=1e-4)
    share = (accuracy * len(labels) + 2) / (len(labels) + 4)
    assert card["test_accuracy_standard_error"] == pytest.approx(
        np.sqrt(share * (1 - share) / len(labels)), abs=2e-5
    )
    assert expected_calibration_error(probabilities, labels) == pytest.approx(
        card["test_calibration_error"], abs=1e-4
    )
    assert {"recipe", "seed", "training_images", "temperature"} <= set(card)


def test_the_original_preset_matches_its_card_and_reads_wide_images(
    mnist_dir,
):
    _, (x_test, y_test) = load_data(mnist_dir / "mnist")
    model = OriginalLeNet5.from_preset("original")
    scores = model.predict(x_test, batch_size=500, verbose=0)
    accuracy = np.mean(scores.argmax(axis=1) == y_test)
    card = read_preset("original").card
    assert accuracy == pytest.approx(card["test_accuracy"], abs=2e-4)
    # There are 9 outputs; the first and the last see one digit each.
    wide = OriginalLeNet5.from_preset("original", input_shape=(32, 64, 1))
    pairs = np.pad(x_test[:200], ((0, 0), (2, 2), (2, 2), (0, 0)))
    pairs = np.concatenate([pairs[::2], pairs[1::2]], axis=2)
    found = wide.predict(pairs, verbose=0).argmax(axis=-1)
    assert found.shape == (100, 1, 9)
    ends = found[:, 0, [0, -1]].ravel()
    assert np.mean(ends == y_test[:200]) > 0.98


def test_the_mnist_preset_has_995_permille_accuracy(mnist_dir):
    assert accuracy_of("mnist", mnist_dir / "mnist")[0] >= 0.995


def test_a_subclass_loads_the_presets_of_its_base_and_its_own(
    tmp_path, generator
):
    class Mine(LeNet5):
        pass

    mine = Mine.from_preset("digits")
    assert type(mine) is Mine
    assert_same_weights(LeNet5.from_preset("digits"), mine)
    mine.save_to_preset(tmp_path / "mine")
    loaded = Mine.from_preset(tmp_path / "mine")
    assert type(loaded) is Mine
    assert_same_weights(mine, loaded)
    with pytest.raises(ValueError, match="with its own `from_preset`"):
        LeNet5.from_preset(tmp_path / "mine")


def test_a_base_class_loads_the_preset_of_a_registered_subclass(tmp_path):
    @keras.saving.register_keras_serializable("test_presets")
    class Registered(LeNet5):
        pass

    Registered().save_to_preset(tmp_path / "registered")
    loaded = LeNet5.from_preset(tmp_path / "registered")
    assert type(loaded) is Registered


@pytest.mark.parametrize("kind", [LeNet5, OriginalLeNet5])
def test_weights_are_converted_between_grey_and_colour(kind, generator):
    grey = kind()
    colour = adapt(grey, input_shape=(28, 28, 3))
    images = generator.integers(0, 256, (3, 28, 28, 1)).astype("uint8")
    expected = grey.predict(images, verbose=0)
    np.testing.assert_allclose(
        colour.predict(np.repeat(images, 3, axis=-1), verbose=0),
        expected,
        rtol=1e-4,
        atol=1e-5,
    )
    back = adapt(colour, input_shape=(28, 28, 1))
    np.testing.assert_allclose(
        back.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5
    )
