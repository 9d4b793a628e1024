"""Exported models compute what Keras computes."""

import importlib.util
import subprocess

import keras
import numpy as np
import pytest

from keras_lenet import LeNet5, OriginalLeNet5, export, saving
from keras_lenet.exporting import FORMATS, c_program, integers, onnx_file
from keras_lenet.models import Ensemble
from tests.helpers import BACKEND, needs_tensorflow, once

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZERS = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]

needs_compiler = pytest.mark.skipif(
    c_program.compiler() is None, reason="needs a C compiler"
)


def needs(module):
    found = importlib.util.find_spec(module)
    return pytest.mark.skipif(found is None, reason=f"needs {module}")


needs_onnx = needs("onnxruntime")
needs_litert = needs("ai_edge_litert")


@pytest.fixture(scope="module")
def presets():
    return {name: saving.load(name) for name in ("mnist", "original")}


def other_model(generator, **arguments):
    """Returns a model with random weights, also biases."""
    model = LeNet5(**arguments)
    for weight in model.weights:
        # Larger weights now and then give all images the same certain class.
        weight.assign(generator.normal(0, 0.12, weight.shape))
    return model


@pytest.mark.parametrize("name", ["mnist", "original"])
@pytest.mark.parametrize(
    "format",
    [
        pytest.param("c", marks=needs_compiler),
        pytest.param("onnx", marks=needs_onnx),
        pytest.param("litert", marks=[needs_tensorflow, needs_litert]),
        pytest.param("saved_model", marks=[needs_tensorflow, once]),
    ],
)
def test_outputs_are_those_of_keras(format, name, presets, digits, tmp_path):
    if format == "litert" and name != "mnist" and BACKEND != "tensorflow":
        pytest.skip("TensorFlow converts for all backends")
    _, (images, labels) = digits
    path = tmp_path / f"model{FORMATS[format].suffix}"
    card = {"license": "Apache-2.0"}
    found = export(presets[name], path, format, images=images, metadata=card)
    files = path.rglob("*") if path.is_dir() else [path]
    content = b"".join(file.read_bytes() for file in files if file.is_file())
    assert b"license" in content and b"Apache-2.0" in content
    assert found.difference < (2e-6 if name == "mnist" else 5e-5)
    assert found.agreement == 1
    assert found.outputs.shape == (len(labels), 10)
    np.testing.assert_allclose(found.outputs.sum(axis=1), 1, atol=1e-5)
    assert (found.outputs.argmax(axis=1) == labels).mean() > 0.9


@needs_compiler
@needs_onnx
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 26, "input_shape": (20, 25, 3)},
        {"classifier_activation": None, "input_shape": (32, 32, 1)},
        {"include_preprocessing": False},
        {"num_classes": 2, "input_shape": (1, 7, 2), "dtype": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("format", ["c", "onnx"])
def test_other_models_are_exported(format, arguments, generator, tmp_path):
    model = other_model(generator, **arguments)
    path = tmp_path / f"model{FORMATS[format].suffix}"
    found = export(model, path, format)
    assert found.difference < 1e-5
    assert np.ptp(found.outputs, axis=0).max() > 0.01


@pytest.mark.parametrize(
    ("format", "name"),
    [
        pytest.param("onnx", "mnist", marks=needs_onnx),
        pytest.param("onnx", "original", marks=needs_onnx),
        pytest.param(
            "litert", "mnist", marks=[needs_tensorflow, needs_litert, once]
        ),
    ],
)
def test_logits_are_those_of_keras(format, name, presets, digits, tmp_path):
    _, (images, _) = digits
    path = tmp_path / f"model{FORMATS[format].suffix}"
    found = export(presets[name], path, format, images=images, logits=True)
    assert found.difference < 1e-5
    expected = presets[name].predict(images, verbose=0)
    if name == "mnist":
        logits = found.outputs - found.outputs.max(axis=1, keepdims=True)
        found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:
        np.testing.assert_allclose(found.outputs, expected, rtol=1e-4)


@needs_compiler
def test_classes_may_have_any_name_in_c(tmp_path):
    names = ["*/", "@steps@", "ä", "\n#error"]
    found = export(LeNet5(4, class_names=names), tmp_path / "c", "c")
    assert found.outputs.shape == (100, 4)
    assert "ä" in (tmp_path / "c/lenet5.c").read_text("utf-8")


def ensemble_of(model, generator, **arguments):
    """Returns a model with one whose weights are a little different."""
    other = saving.adapt(model, **arguments)
    for weight in other.trainable_weights:
        noise = generator.normal(0, 0.02, weight.shape)
        weight.assign(weight + noise.astype("float32"))
    return Ensemble([saving.adapt(model, **arguments), other])


@pytest.mark.parametrize(
    ("format", "name", "include_preprocessing"),
    [
        pytest.param("onnx", "mnist", True, marks=needs_onnx),
        pytest.param("onnx", "original", False, marks=needs_onnx),
        pytest.param(
            "litert",
            "mnist",
            False,
            marks=[needs_tensorflow, needs_litert, once],
        ),
        pytest.param(
            "saved_model", "original", True, marks=[needs_tensorflow, once]
        ),
    ],
)
def test_an_ensemble_is_exported_with_its_mean(
    format, name, include_preprocessing, presets, digits, generator, tmp_path
):
    _, (images, _) = digits
    images = images[:100]
    shape = (28, 28, 1) if include_preprocessing else (32, 32, 1)
    arguments = {
        "include_preprocessing": include_preprocessing,
        "input_shape": shape,
    }
    ensemble = ensemble_of(presets[name], generator, **arguments)
    path = tmp_path / f"model{FORMATS[format].suffix}"
    found = export(ensemble, path, format, images=images)
    whole = saving.adapt(
        ensemble, include_preprocessing=True, input_shape=(28, 28, 1)
    )
    expected = whole.predict(images, verbose=0)
    if name == "original":
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))
    np.testing.assert_allclose(found.outputs, expected, atol=5e-5)


@needs_onnx
def test_an_ensemble_of_distances_has_logits(
    presets, digits, generator, tmp_path
):
    _, (images, _) = digits
    ensemble = ensemble_of(presets["original"], generator)
    path = tmp_path / "model.onnx"
    found = export(ensemble, path, "onnx", logits=True, images=images)
    expected = ensemble.predict(images, verbose=0)
    np.testing.assert_allclose(found.outputs, expected, rtol=1e-4)


@needs_onnx
def test_an_ensemble_is_exported_in_integers(
    presets, digits, generator, tmp_path
):
    (representative, _), (images, labels) = digits
    ensemble = ensemble_of(presets["mnist"], generator)
    found = export(
        ensemble,
        tmp_path / "model.onnx",
        "onnx",
        int8=True,
        images=images,
        representative=representative[:100],
    )
    expected = ensemble.predict(images, verbose=0)
    assert 1e-4 < abs(found.outputs - expected).mean() < 0.02
    assert (found.outputs.argmax(axis=1) == labels).mean() > 0.9


def logits_model():
    return LeNet5(classifier_activation=None)


@pytest.mark.parametrize(
    ("models", "arguments", "message"),
    [
        ([LeNet5] * 2, {"format": "c"}, "one of the formats onnx, litert"),
        ([LeNet5] * 2, {"format": "html"}, "one of the formats onnx, litert"),
        ([LeNet5] * 2, {"logits": True}, "mean of probabilities has none"),
        ([logits_model, OriginalLeNet5], {}, "Received: Ensemble"),
    ],
)
def test_ensembles_that_cannot_be_exported_are_rejected(
    models, arguments, message, tmp_path
):
    ensemble = Ensemble([make() for make in models])
    arguments = {"format": "onnx", **arguments}
    with pytest.raises(ValueError, match=message):
        export(ensemble, tmp_path / "model.onnx", **arguments)
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_an_onnx_file_takes_any_number_of_images(presets, digits, tmp_path):
    _, (images, _) = digits
    path = tmp_path / "model.onnx"
    whole = export(presets["mnist"], path, "onnx", images=images).outputs
    parts = [onnx_file.run(path, images[:1]), onnx_file.run(path, images[1:8])]
    np.testing.assert_allclose(np.concatenate(parts), whole[:8], atol=1e-6)


@needs_onnx
def test_an_onnx_file_names_its_tensors_and_its_origin(presets, tmp_path):
    import onnx

    path = tmp_path / "model.onnx"
    card = {"preset": "mnist", "test_accuracy": 0.996}
    export(presets["mnist"], path, "onnx", metadata=card)
    model = onnx.load(path)
    (given,), (returned,) = model.graph.input, model.graph.output
    assert (given.name, returned.name) == ("images", "probabilities")
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["preset"] == "mnist"
    assert properties["test_accuracy"] == "0.996"
    assert properties["classes"] == "10"


@once
@needs_onnx
def test_an_onnx_file_in_integers_agrees_with_keras(presets, digits, tmp_path):
    (x_train, _), (images, _) = digits
    path = tmp_path / "model.onnx"
    found = export(
        presets["mnist"],
        path,
        "onnx",
        int8=True,
        images=images,
        representative=x_train[::3],
    )
    assert found.agreement >= 0.99
    assert path.stat().st_size < 80_000


@once
@needs_tensorflow
@needs_compiler
@needs_litert
def test_integers_in_c_are_those_of_litert_for_microcontrollers(
    presets, digits, generator, tmp_path
):
    pytest.importorskip("tflite_micro")
    from tflite_micro.python.tflite_micro import runtime

    (x_train, _), (x_test, _) = digits
    for format, path in (("c", "program"), ("litert", "model.tflite")):
        found = export(
            presets["mnist"],
            tmp_path / path,
            format,
            int8=True,
            images=x_test,
            representative=x_train[::3],
        )
        assert found.agreement >= 0.99
    images = np.concatenate([x_test[:100], extreme_images(generator)])
    written = sanitized(tmp_path / "program", tmp_path, images)
    outputs = np.frombuffer(written, "float32").reshape(len(images), 10)
    content = (tmp_path / "model.tflite").read_bytes()
    assert len(content) < 80_000
    interpreter = runtime.Interpreter.from_bytes(content)
    for image, found in zip(images, outputs, strict=True):
        pixels = (image[np.newaxis].astype("int16") - 128).astype("int8")
        interpreter.set_input(pixels, 0)
        interpreter.invoke()
        (expected,) = interpreter.get_output(0).astype("float32")
        assert (found * 256 - 128 == expected).all()


def sanitized(folder, scratch, images):
    """Runs a program under sanitizers and returns what it wrote."""
    main, program = scratch / "main.c", scratch / "main"
    main.write_text(c_program.MAIN)
    files = ["-I", folder, main, folder / "lenet5.c", "-lm", "-o", program]
    subprocess.run(["cc", *STRICT, *SANITIZERS, "-O1", *files], check=True)
    return subprocess.run(
        [program], input=images.tobytes(), capture_output=True, check=True
    ).stdout


def extreme_images(generator):
    return np.concatenate(
        [
            np.zeros((1, 28, 28, 1), "uint8"),
            np.full((1, 28, 28, 1), 255, "uint8"),
            255 * generator.integers(0, 2, (20, 28, 28, 1), "uint8"),
            generator.integers(0, 256, (20, 28, 28, 1), "uint8"),
        ]
    )


@needs_compiler
@pytest.mark.parametrize("name", ["mnist", "original"])
def test_float_programs_are_clean(name, presets, digits, generator, tmp_path):
    folder = tmp_path / "program"
    # The softmax of distances to noise may differ from Keras' by more than an
    # export allows.
    export(presets[name], folder, "c", images=digits[1][0])
    images = extreme_images(generator)
    written = np.frombuffer(sanitized(folder, tmp_path, images), "float32")
    expected = c_program.run(folder, images)
    np.testing.assert_allclose(
        written.reshape(expected.shape), expected, atol=1e-4
    )


def test_exponentials_in_integers_are_close():
    expected = np.exp(-0.06 * np.arange(256)) * 2**31
    np.testing.assert_allclose(integers.exps(0.06), expected, atol=2**8)


@pytest.mark.parametrize("factor", [0.5, 0.7, 1e-3, 1.0, 3.7])
def test_a_multiplier_is_a_factor(factor):
    multiplier, shift = integers.as_multiplier(factor)
    assert 2**30 <= multiplier < 2**31
    assert multiplier * 2.0 ** (shift - 31) == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "pdf"}, "`format` must be one of onnx, litert"),
        ({"format": "saved_model", "int8": True}, "`int8` needs one of"),
        ({"format": "c", "logits": True}, "`logits` needs one of"),
        ({"format": "onnx", "path": "model.pt"}, "`path` must be a file"),
        ({"format": "c", "path": "."}, "`path` must be an empty or a new"),
        ({"format": "c", "path": "no/such"}, "in a folder that exists"),
        ({"format": "onnx", "int8": True}, "`representative` must be uint8"),
        (
            {"format": "onnx", "images": np.zeros((2, 28, 28, 1))},
            "`images` must be uint8",
        ),
    ],
)
def test_bad_arguments_are_rejected(
    arguments, message, presets, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    arguments = {"path": "model.onnx", **arguments}
    with pytest.raises(ValueError, match=message):
        export(presets["mnist"], **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_package_is_named(presets, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"keras-lenet\[onnx\]"):
        export(presets["mnist"], tmp_path / "model.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_changed_layer_is_rejected_where_it_would_be_lost(tmp_path):
    model = LeNet5()
    model.get_layer("c1").activation = keras.activations.tanh
    with pytest.raises(ValueError, match="changed or quantized layers"):
        export(model, tmp_path / "model.onnx", "onnx")


def test_a_subclass_is_rejected(tmp_path):
    class Mine(LeNet5):
        """A user's model."""

    with pytest.raises(ValueError, match="not of a subclass"):
        export(Mine(), tmp_path / "model.onnx", "onnx")


@pytest.mark.parametrize("include_preprocessing", [True, False])
def test_a_map_of_outputs_is_rejected(include_preprocessing, tmp_path):
    model = OriginalLeNet5(10, (32, 64, 1), include_preprocessing)
    with pytest.raises(ValueError, match="one output for each class"):
        export(model, tmp_path / "model.onnx", "onnx")


@needs_onnx
def test_wrong_outputs_leave_no_file(presets, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_text("old")

    def write_other_weights(path, model, card):
        other = LeNet5()
        onnx_file.write(path, other, card)

    entry = FORMATS["onnx"]._replace(write=write_other_weights)
    monkeypatch.setitem(FORMATS, "onnx", entry)
    with pytest.raises(ValueError, match="could not be exported as onnx"):
        export(presets["mnist"], path, "onnx")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
