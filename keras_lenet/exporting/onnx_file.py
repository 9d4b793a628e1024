"""ONNX files, https://onnx.ai."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_lenet.exporting.operations import (
    Convolution,
    Dense,
    Distances,
    MaxPooling,
    Operation,
    Pad,
    Scale,
    Softmax,
    Subsampling,
    operations,
)
from keras_lenet.models.ensemble import Ensemble
from keras_lenet.types import Array

# Understood by ONNX Runtime since 1.10 and by most other tools.
_OPSET, _IR_VERSION = 15, 8


def write(
    path: Path, model: Any, card: dict[str, Any], logits: bool = False
) -> None:
    """Writes a model as an ONNX file.

    The graph is built here rather than by a converter, so that it is the same
    on every backend.
    """
    import onnx

    graph = _Graph(onnx)
    channels_last = graph.add("Cast", "images", to=onnx.TensorProto.FLOAT)
    images = graph.add("Transpose", channels_last, perm=[0, 3, 1, 2])
    if isinstance(model, Ensemble):
        is_linear = model.classifier_activation is keras.activations.linear
        outputs = [
            _add_network(graph, each, images, is_linear)
            for each in model.models
        ]
        x = graph.add("Mean", *outputs)
        if is_linear and not logits:
            graph.add("Softmax", x, axis=-1)
    else:
        _add_network(graph, model, images, logits)
    output = "logits" if logits else "probabilities"
    graph.nodes[-1].output[0] = output
    value = onnx.helper.make_tensor_value_info
    built = onnx.helper.make_graph(
        graph.nodes,
        model.name,
        [
            value(
                "images",
                onnx.TensorProto.UINT8,
                ["batch", *model.input_shape[1:]],
            )
        ],
        [
            value(
                output,
                onnx.TensorProto.FLOAT,
                ["batch", model.num_classes],
            )
        ],
        graph.constants,
    )
    made = onnx.helper.make_model(
        built,
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="keras_lenet",
        producer_version=card["keras_lenet_version"],
    )
    onnx.helper.set_model_props(made, card)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


def write_int8(
    path: Path, model: Any, card: dict[str, Any], representative: Array
) -> None:
    """Writes a model as an ONNX file with integer weights and activations."""
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Gives one representative image after another."""

        def __init__(self) -> None:
            self._images = iter(representative)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self._images, None)
            return None if image is None else {"images": image[np.newaxis]}

    write(path, model, card)
    # It warns that the graph was not simplified first. There is nothing to
    # simplify.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantization.quantize_static(
            path,
            path,
            Reader(),
            per_channel=True,
            # Processors without VNNI clip sums of products of 8 bits.
            reduce_range=True,
        )
    finally:
        logging.disable(level)
    quantized = onnx.load(path)
    onnx.helper.set_model_props(quantized, card)
    onnx.save(quantized, path)


def run(path: Path, images: Array) -> Array:
    """Returns the outputs of a file for images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"images": images})[0])


class _Graph:
    """Nodes and constants under construction."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Adds a node and returns the name of its output.

        Inputs are names, or arrays, which become constants.
        """
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            self._onnx.helper.make_node(kind, names, [output], **attributes)
        )
        return output

    def _constant(self, value: Any) -> str:
        array = np.ascontiguousarray(value)
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name


def _add_network(graph: _Graph, model: Any, x: str, logits: bool) -> str:
    """Adds a model's operations, and returns the name of their output."""
    shape = model.input_shape[1:]
    for operation in operations(model, logits):
        x = _add(graph, operation, x, shape)
        shape = operation.shape
    return x


def _add(
    graph: _Graph, operation: Operation, x: str, shape: tuple[int, ...]
) -> str:
    """Adds an operation on values of a shape, and returns its output's name.

    Shapes have the channels last, as in Keras. The values of the graph have
    them first.
    """
    match operation:
        case Pad(_, (top, bottom), (left, right), value):
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], "int64")
            return graph.add("Pad", x, pads, _number(value))
        case Scale(_, factor, offset):
            x = graph.add("Mul", x, _number(factor))
            return graph.add("Add", x, _number(offset)) if offset else x
        case Convolution(_, kernel, bias, activation):
            x = graph.add("Conv", x, kernel.transpose(3, 2, 0, 1), bias)
            return _activate(graph, x, activation)
        case MaxPooling():
            return graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        case Subsampling(_, coefficients, bias, activation):
            x = graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            x = graph.add("Mul", x, 4 * coefficients[:, np.newaxis, np.newaxis])
            x = graph.add("Add", x, bias[:, np.newaxis, np.newaxis])
            return _activate(graph, x, activation)
        case Dense(_, kernel, bias, activation):
            if len(shape) == 3:
                # Keras flattens with the channels last.
                x = graph.add("Flatten", x)
                kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3)
                kernel = kernel.reshape(-1, kernel.shape[-1])
            return _activate(
                graph, graph.add("Gemm", x, kernel, bias), activation
            )
        case Distances(_, codes):
            x = graph.add("Unsqueeze", x, np.array([1], "int64"))
            x = graph.add("Sub", x, codes[np.newaxis])
            x = graph.add("ReduceSumSquare", x, axes=[2], keepdims=0)
            return graph.add("Neg", x)
        case Softmax():
            return graph.add("Softmax", x, axis=-1)


def _number(value: float) -> Array:
    return np.array(value, "float32")


def _activate(graph: _Graph, x: str, activation: str) -> str:
    if activation == "linear":
        return x
    if activation == "relu":
        return graph.add("Relu", x)
    x = graph.add("Tanh", graph.add("Mul", x, _number(2 / 3)))
    return graph.add("Mul", x, _number(1.7159))
