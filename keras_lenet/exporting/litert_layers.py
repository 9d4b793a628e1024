"""Reading the layers of a LiteRT file that computes with integers only."""

from typing import Any

import numpy as np

from keras_lenet.exporting.integers import as_multiplier, exps
from keras_lenet.types import Array

# LiteRT's names of the kinds of layers. `None` computes nothing.
_KINDS = {
    "CONV_2D": "convolve",
    "FULLY_CONNECTED": "dense",
    "MAX_POOL_2D": "max_pool",
    "PAD": "pad",
    "RESHAPE": None,
    "SOFTMAX": "softmax",
}
_NAMES = {
    "convolve": ("c1", "c3"),
    "dense": ("c5", "f6", "output"),
    "max_pool": ("s2", "s4"),
    "pad": ("pad_to_32",),
    "softmax": ("probabilities",),
}


def read_layers(content: bytes) -> list[dict[str, Any]]:
    """Returns the layers, as `tensorflow_files.integer_layers` says.

    Raises:
        ValueError: If there is any other kind of layer.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    (graph,) = model.subgraphs
    kinds = {
        value: name for name, value in vars(schema.BuiltinOperator).items()
    }
    layers: list[dict[str, Any]] = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if kinds[code] not in _KINDS:
            raise ValueError(
                "`model` must have the layers of LeNet-5 for an integer "
                f"program. Received: a layer of kind {kinds[code]}"
            )
        kind = _KINDS[kinds[code]]
        if kind is None:
            continue
        tensors = [graph.tensors[index] for index in operator.inputs]
        result = graph.tensors[operator.outputs[0]]
        if kind == "convolve" and operator.builtinOptions.padding == 0:
            layers.append(_same_padding(tensors))
        layer: dict[str, Any] = {"kind": kind}
        if kind in ("convolve", "dense"):
            constants = [model.buffers[t.buffer].data for t in tensors[1:]]
            relu = operator.builtinOptions.fusedActivationFunction == 1
            layer |= _weighted_sum(tensors, result, constants, relu)
        elif kind == "pad":
            amounts = model.buffers[tensors[1].buffer].data
            layer |= _padding(tensors[0], amounts)
        elif kind == "softmax":
            layer["exps"] = exps(float(tensors[0].quantization.scale[0]))
        layers.append(layer)
    names = {kind: iter(names) for kind, names in _NAMES.items()}
    for layer in layers:
        layer["name"] = next(names[layer["kind"]])
    return layers


def _same_padding(tensors: list[Any]) -> dict[str, Any]:
    """Returns the padding that keeps the size in a convolution."""
    _, rows, columns, _ = tensors[1].shape
    return {
        "kind": "pad",
        "rows": ((int(rows) - 1) // 2, int(rows) // 2),
        "columns": ((int(columns) - 1) // 2, int(columns) // 2),
        "zero_in": int(tensors[0].quantization.zeroPoint[0]),
    }


def _padding(tensor: Any, amounts: Any) -> dict[str, Any]:
    pairs = np.frombuffer(bytes(amounts), "<i4").reshape(-1, 2).tolist()
    return {
        "rows": tuple(pairs[1]),
        "columns": tuple(pairs[2]),
        "zero_in": int(tensor.quantization.zeroPoint[0]),
    }


def _weighted_sum(
    tensors: list[Any], result: Any, constants: list[Any], relu: bool
) -> dict[str, Any]:
    inputs, kernel, _ = tensors
    scale_in, scale_out = (
        float(tensor.quantization.scale[0]) for tensor in (inputs, result)
    )
    scales = np.asarray(kernel.quantization.scale, "float64")
    units = kernel.shape[0]
    pairs = [
        as_multiplier(scale_in * float(scale) / scale_out)
        for scale in np.broadcast_to(scales, units)
    ]
    multiplier, shift = zip(*pairs, strict=True)
    zero_out = int(result.quantization.zeroPoint[0])
    return {
        "kernel": _array(constants[0], "<i1").reshape(kernel.shape),
        "bias": _array(constants[1], "<i4"),
        "multiplier": np.array(multiplier, "int32"),
        "shift": np.array(shift, "int8"),
        "zero_in": int(inputs.quantization.zeroPoint[0]),
        "zero_out": zero_out,
        "least": zero_out if relu else -128,
    }


def _array(data: Any, dtype: str) -> Array:
    return np.frombuffer(bytes(data), dtype)
