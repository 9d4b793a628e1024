import json

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, OriginalLeNet5, saving
from keras_lenet.files import FileFormatError
from tests.helpers import BACKEND

MODELS = [LeNet5, OriginalLeNet5]


def change_everything(model):
    """Changes what Keras saves of the layers that both models have."""
    c1, c5, f6 = map(model.get_layer, ("c1", "c5", "f6"))
    c1.activation = keras.activations.softsign
    c5.trainable = False
    c5.kernel.regularizer = keras.regularizers.L2(1e-3)
    f6.kernel.constraint = keras.constraints.MaxNorm(1.5)
    f6.activity_regularizer = keras.regularizers.L1(1e-4)
    model.get_layer("s2").activity_regularizer = keras.regularizers.L1(1e-4)
    if "rescaling" in [layer.name for layer in model.layers]:
        model.get_layer("rescaling").offset = 0.25


@pytest.fixture(params=MODELS, ids=lambda kind: kind.__name__)
def changed(request):
    model = request.param()
    change_everything(model)
    return model


def assert_same_model(model, other, generator):
    assert type(other) is type(model)
    # Compare as JSON, because a file turns tuples into lists.
    assert json.dumps(other.get_config()) == json.dumps(model.get_config())
    images = generator.integers(0, 256, (3, *model.input_shape[1:]))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(other(images)),
        keras.ops.convert_to_numpy(model(images)),
    )
    assert len(other.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_allclose(
        [keras.ops.convert_to_numpy(loss) for loss in other.losses],
        [keras.ops.convert_to_numpy(loss) for loss in model.losses],
        rtol=1e-6,
    )
    assert [v.constraint is None for v in other.weights] == [
        v.constraint is None for v in model.weights
    ]


WAYS = {
    "save": lambda model, folder: (
        model.save(folder / "m.keras"),
        keras.saving.load_model(folder / "m.keras"),
    ),
    "saving.load_model": lambda model, folder: (
        model.save(folder / "m.keras"),
        saving.load_model(folder / "m.keras"),
    ),
    "save_to_preset": lambda model, folder: (
        model.save_to_preset(folder / "preset"),
        type(model).from_preset(folder / "preset"),
    ),
    "adapt": lambda model, folder: (None, saving.adapt(model)),
    "saved twice": lambda model, folder: (
        model.save(folder / "m.keras"),
        saving.adapt(keras.saving.load_model(folder / "m.keras")),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_changes_of_layers_are_saved(way, changed, tmp_path, generator):
    _, other = WAYS[way](changed, tmp_path)
    assert_same_model(changed, other, generator)
    assert len(other.trainable_variables) < len(other.weights)
    assert len(other.losses) >= 2


def test_an_unchanged_model_saves_no_layer_configs():
    for kind in MODELS:
        model = kind()
        assert "layer_configs" not in model.get_config()
        model.set_weights([weight + 1 for weight in model.get_weights()])
        assert "layer_configs" not in model.get_config()


def test_arguments_override_changes_of_layers(generator):
    model = LeNet5()
    model.get_layer("output").activation = keras.activations.sigmoid
    model.get_layer("c5").trainable = False
    logits = saving.adapt(model, classifier_activation=None)
    assert logits.get_layer("output").activation is keras.activations.linear
    assert not logits.get_layer("c5").trainable
    assert saving.adapt(model, trainable=True).get_layer("c5").trainable
    halves = saving.adapt(model, dtype="mixed_bfloat16")
    assert halves.get_layer("c5").compute_dtype == "bfloat16"


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", ["save", "save_to_preset", "adapt"])
def test_quantization_is_saved(kind, way, tmp_path, generator):
    model = kind()
    model.quantize("int8")
    _, other = WAYS[way](model, tmp_path)
    assert other.get_layer("f6").quantization_mode == "int8"
    assert_same_model(model, other, generator)


def test_lora_is_saved(tmp_path, generator):
    model = LeNet5()
    model.get_layer("c5").enable_lora(3)
    _, b = model.get_layer("c5").trainable_variables[-2:]
    b.assign(generator.random(b.shape, "float32"))
    model.save(tmp_path / "m.keras")
    other = saving.load_model(tmp_path / "m.keras")
    assert_same_model(model, other, generator)


def test_configs_of_unknown_layers_are_rejected():
    config = {**LeNet5().get_config(), "layer_configs": {"c9": {}}}
    with pytest.raises(ValueError, match=r"names of layers.*Received: c9"):
        LeNet5.from_config(config)


def set_pool_mode(model):
    model.get_layer("s2").pool_mode = "average"


def replace_call(model):
    layer = model.get_layer("s4")
    call = layer.call
    layer.call = lambda inputs: call(inputs) * 0.5


def drop_bias(model):
    model.get_layer("c3").use_bias = False


CHANGES = [
    change_everything,
    set_pool_mode,
    replace_call,
    drop_bias,
    lambda model: setattr(model.get_layer("c3"), "strides", (1, 1)),
    lambda model: setattr(model.get_layer("f6"), "note", "mine"),
    lambda model: model.get_layer("c5").enable_lora(2),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_layer_disables_compiled_training(change):
    model = LeNet5()
    assert model.layers_unchanged()
    change(model)
    assert not model.layers_unchanged()
    assert not model.trains_compiled()


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled on PyTorch")
def test_using_a_model_does_not_count_as_a_change(tmp_path, generator):
    model = LeNet5()
    x, y = generator.integers(0, 256, (8, 28, 28, 1)), np.arange(8)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, validation_data=(x, y), verbose=0)
    model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    keras.Model(model.input, model.get_layer("c3").output)
    model.get_layer("c5").trainable = False
    model.get_layer("c5").kernel.regularizer = keras.regularizers.L2(1e-3)
    for each in (model, keras.saving.load_model(tmp_path / "m.keras")):
        assert each.layers_unchanged()
        assert each.trains_compiled()


HOSTILE = {
    "more memory than weights": {"units": 10**9},
    "a large rank": {"lora_rank": 10**9},
    "a function of the file": {
        "activation": {
            "module": "builtins",
            "class_name": "function",
            "config": "system",
            "registered_name": "function",
        }
    },
    "a layer": {
        "activity_regularizer": {
            "module": "keras.layers",
            "class_name": "Lambda",
            "config": {},
            "registered_name": None,
        }
    },
    "a nested object": {
        "dtype": {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": [{"class_name": "Popen", "module": "os"}]},
        }
    },
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE)
def test_layer_configs_create_only_objects_of_keras(
    entries, tmp_path, monkeypatch
):
    model = LeNet5()
    config = {**model.get_config(), "layer_configs": {"c5": entries}}
    monkeypatch.setattr(model, "get_config", lambda: config)
    model.save(tmp_path / "m.keras")
    with pytest.raises(FileFormatError, match=r"layer_configs of c5|lora_rank"):
        saving.load_model(tmp_path / "m.keras")
