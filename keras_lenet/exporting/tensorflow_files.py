"""LiteRT files and SavedModels, which TensorFlow converts.

The conversion runs in a process of its own, on Keras' TensorFlow backend, so
that it works whatever the backend here, and that its messages stay out of the
terminal.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.types import Array

# The name of the metadata in a LiteRT file, and of the file in a SavedModel.
_CARD = "keras_lenet.json"


def write_saved_model(
    folder: Path, model: Any, card: dict[str, Any], logits: bool = False
) -> None:
    """Writes a model as a SavedModel into an existing folder."""
    _convert(model, folder, card, "saved_model", logits=logits)


def write_litert(
    path: Path, model: Any, card: dict[str, Any], logits: bool = False
) -> None:
    """Writes a model as a LiteRT file."""
    _convert(model, path, card, "litert", logits=logits)


def write_litert_int8(
    path: Path, model: Any, card: dict[str, Any], representative: Array
) -> None:
    """Writes a model as a LiteRT file that computes with integers only."""
    _convert(model, path, card, "litert", representative)


def integer_layers(model: Any, representative: Array) -> list[dict[str, Any]]:
    """Returns the layers of a model that computes with integers only.

    Returns:
        List of dicts. `kind` is `"pad"`, `"convolve"`, `"max_pool"`, `"dense"`
        or `"softmax"`, and `name` is unique. The others are arrays, integers
        and tuples, such as `kernel`, `bias`, `multiplier`, `shift`, and
        `zero_in`, the value that stands for 0.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "layers.pickle")
        _convert(model, path, {}, "integers", representative)
        return list(pickle.loads(path.read_bytes()))


def run_saved_model(folder: Path, images: Array) -> Array:
    """Returns the outputs of a SavedModel for images."""
    import tensorflow as tf

    serve = tf.saved_model.load(folder).signatures["serving_default"]
    (outputs,) = serve(images=tf.constant(images)).values()
    return np.asarray(outputs)


def run_litert(path: Path, images: Array) -> Array:
    """Returns the outputs of a LiteRT file for images, as floats."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    (given,) = runner.get_input_details().values()
    (returned,) = runner.get_output_details().values()
    scale, zero_point = returned["quantization"]
    outputs = []
    # An integer program takes one image at a time.
    size = 1 if given["dtype"] == np.int8 else len(images)
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        if given["dtype"] == np.int8:
            batch = (batch.astype("int16") - 128).astype("int8")
        (found,) = runner(images=batch).values()
        outputs.append(found.astype("float32"))
    values = np.concatenate(outputs)
    return np.asarray((values - zero_point) * scale if scale else values)


def _convert(
    model: Any,
    path: Path,
    card: dict[str, Any],
    kind: str,
    representative: Array | None = None,
    logits: bool = False,
) -> None:
    output = "logits" if logits else "probabilities"
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        model.save(source / "model.keras")
        (source / _CARD).write_text(json.dumps(card))
        if representative is not None:
            np.save(source / "representative.npy", representative)
        converted = subprocess.run(
            [sys.executable, "-m", __name__, kind, source, path, output],
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "-1",
            },
            capture_output=True,
            text=True,
        )
    if converted.returncode:
        raise ValueError(
            f"`model` could not be converted to {kind} by TensorFlow. "
            f"Received: {converted.stderr[-2000:]}"
        )


def _main(kind: str, source: Path, path: Path, output: str) -> None:
    """Converts, in the process with Keras' TensorFlow backend."""
    import keras
    import tensorflow as tf

    from keras_lenet.exporting.litert_layers import read_layers
    from keras_lenet.saving import load_model

    card = (source / _CARD).read_text()
    model = load_model(source / "model.keras")
    is_linear = model.classifier_activation is keras.activations.linear
    images = source / "representative.npy"
    is_int8 = images.exists()

    def serve(images: Any) -> dict[str, Any]:
        outputs = model(images)
        if is_linear and output == "probabilities":
            outputs = keras.ops.softmax(outputs)
        return {output: outputs}

    archive = keras.export.ExportArchive()
    archive.track(model)
    shape = (1 if is_int8 else None, *model.input_shape[1:])
    # The converter makes an int8 input from a float one.
    dtype = "float32" if is_int8 else "uint8"
    archive.add_endpoint(
        "serve", serve, [tf.TensorSpec(shape, dtype, name="images")]
    )
    folder = path if kind == "saved_model" else source / "saved_model"
    archive.write_out(folder, verbose=False)
    if kind == "saved_model":
        extra = path / "assets.extra"
        extra.mkdir()
        (extra / _CARD).write_text(card)
        return
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if is_int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            {"images": image[np.newaxis].astype("float32")}
            for image in np.load(images)
        )
        operations = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_ops = operations
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    content = converter.convert()
    if kind == "integers":
        path.write_bytes(pickle.dumps(read_layers(content)))
    else:
        path.write_bytes(_with_card(content, card))


def _with_card(content: bytes, card: str) -> bytes:
    """Returns a LiteRT file with metadata."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(card.encode(), "uint8")
    model.buffers.append(buffer)
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = _CARD, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), metadata]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
