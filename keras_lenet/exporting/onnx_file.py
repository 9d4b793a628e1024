"""ONNX files, https://onnx.ai."""

import json
import logging
from pathlib import Path
from typing import Any

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
    x = graph.add("Transpose", channels_last, perm=[0, 3, 1, 2])
    shape = model.input_shape[1:]
    for operation in operations(model, logits):
        x, shape = _add(graph, operation, x, shape)
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
    _add_card(onnx, made, card)
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
        quantization.quantize_static(path, path, Reader(), per_channel=True)
    finally:
        logging.disable(level)
    quantized = onnx.load(path)
    _add_card(onnx, quantized, card)
    onnx.save(quantized, path)


def run(path: Path, images: Array) -> Array:
    """Returns the outputs of a file for images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"images": images})[0])


def _add_card(onnx: Any, model: Any, card: dict[str, Any]) -> None:
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in card.items()
    }
    onnx.helper.set_model_props(model, texts)


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


def _add(
    graph: _Graph, operation: Operation, x: str, shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    """Adds an operation, and returns the name and shape of its output.

    Shapes have the channels last, as in Keras, and no batch. The values of the
    graph have the channels first.
    """
    match operation:
        case Pad(_, rows, columns, value):
            (top, bottom), (left, right) = rows, columns
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], "int64")
            x = graph.add("Pad", x, pads, _number(value))
            return x, (shape[0] + sum(rows), shape[1] + sum(columns), shape[2])
        case Scale(_, factor, offset):
            x = graph.add("Mul", x, _number(factor))
            return (
                graph.add("Add", x, _number(offset)) if offset else x
            ), shape
        case Convolution(_, kernel, bias, activation):
            height, width, _, maps = kernel.shape
            x = graph.add("Conv", x, kernel.transpose(3, 2, 0, 1), bias)
            size = shape[0] - height + 1, shape[1] - width + 1
            return _activate(graph, x, activation), (*size, maps)
        case MaxPooling():
            x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            return x, (shape[0] // 2, shape[1] // 2, shape[2])
        case Subsampling(_, coefficients, bias, activation):
            x = graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            x = graph.add("Mul", x, 4 * coefficients[:, np.newaxis, np.newaxis])
            x = graph.add("Add", x, bias[:, np.newaxis, np.newaxis])
            size = shape[0] // 2, shape[1] // 2
            return _activate(graph, x, activation), (*size, shape[2])
        case Dense(_, kernel, bias, activation):
            if len(shape) == 3:
                # Keras flattens with the channels last.
                x = graph.add("Flatten", x)
                kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3)
                kernel = kernel.reshape(-1, kernel.shape[-1])
            x = graph.add("Gemm", x, kernel, bias)
            return _activate(graph, x, activation), (len(bias),)
        case Distances(_, codes):
            x = graph.add("Unsqueeze", x, np.array([1], "int64"))
            x = graph.add("Sub", x, codes[np.newaxis])
            x = graph.add("ReduceSumSquare", x, axes=[2], keepdims=0)
            return graph.add("Neg", x), (len(codes),)
        case Softmax():
            return graph.add("Softmax", x, axis=-1), shape


def _number(value: float) -> Array:
    return np.array(value, "float32")


def _activate(graph: _Graph, x: str, activation: str) -> str:
    if activation == "linear":
        return x
    if activation == "relu":
        return graph.add("Relu", x)
    x = graph.add("Tanh", graph.add("Mul", x, _number(2 / 3)))
    return graph.add("Mul", x, _number(1.7159))
