"""A program in C99."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_lenet.exporting import tensorflow_files
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
from keras_lenet.exporting.program import Program, as_comment, fill
from keras_lenet.types import Array

_HEADER, _SOURCE = "lenet5.h", "lenet5.c"

# Reads images from stdin and writes their probabilities to stdout.
MAIN = fill("main.c", {})

_DECLARATION_INT8 = """
/* The same in integers only: outputs are 256 * probability - 128. */
int lenet5_predict_int8(const uint8_t image[LENET5_PIXELS],
                        int8_t outputs[LENET5_CLASSES]);
"""


def write(folder: Path, model: Any, card: dict[str, Any]) -> None:
    """Writes a model as `lenet5.h` and `lenet5.c` into an existing folder."""
    program = Program(model.input_shape[1:])
    for operation in operations(model):
        _add(program, operation)
    text = program.text("lenet5.c", "layers.c", as_comment(card))
    (folder / _SOURCE).write_text(text, "utf-8")
    _write_header(folder, model, card, "")


def write_int8(
    folder: Path, model: Any, card: dict[str, Any], representative: Array
) -> None:
    """Writes a program that computes with integers only.

    It computes what LiteRT for Microcontrollers computes for the same model,
    bit for bit.
    """
    program = Program(model.input_shape[1:])
    for layer in tensorflow_files.integer_layers(model, representative):
        _add_integers(program, layer)
    text = program.text("lenet5_int8.c", "layers_int8.c", as_comment(card))
    (folder / _SOURCE).write_text(text, "utf-8")
    _write_header(folder, model, card, _DECLARATION_INT8)


def compiler() -> str | None:
    """Returns the path of this machine's C compiler, if it has one."""
    return shutil.which("cc")


def run(folder: Path, images: Array) -> Array | None:
    """Compiles the program and returns its outputs for images.

    Returns:
        float32 array of shape `(n, classes)`, or `None` if this machine has no
        C compiler.
    """
    cc = compiler()
    if cc is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        main, program = Path(scratch, "main.c"), Path(scratch, "main")
        main.write_text(MAIN, "utf-8")
        files = map(str, ("-I", folder, main, folder / _SOURCE, "-o", program))
        command = [cc, "-std=c99", "-O2", *files, "-lm"]
        compiled = subprocess.run(command, capture_output=True, text=True)
        if compiled.returncode:
            raise ValueError(
                "`model` could not be compared with Keras, as the program does "
                f"not compile. Received: {compiled.stderr[-2000:]}"
            )
        found = subprocess.run(
            [program], input=images.tobytes(), capture_output=True, check=True
        )
    return np.frombuffer(found.stdout, "float32").reshape(len(images), -1)


def compiled_sizes(folder: Path) -> tuple[int, int] | None:
    """Returns the bytes of code and constants, and of memory.

    Returns:
        Tuple `(flash, ram)` for this machine's processor, compiled for small
        size, or `None` if there are no `cc` and `size`.
    """
    cc, size = compiler(), shutil.which("size")
    if not (cc and size):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "lenet5.o")
        files = map(str, (folder / _SOURCE, "-o", program))
        subprocess.run([cc, "-std=c99", "-Os", "-c", *files], check=True)
        printed = subprocess.run(
            [size, program], capture_output=True, check=True, text=True
        )
    text, data, bss = map(int, printed.stdout.splitlines()[1].split()[:3])
    return text + data, data + bss


def _write_header(
    folder: Path, model: Any, card: dict[str, Any], more: str
) -> None:
    height, width, channels = model.input_shape[1:]
    values = {
        "card": as_comment(card),
        "height": height,
        "width": width,
        "channels": channels,
        "classes": model.num_classes,
        "more": more,
    }
    (folder / _HEADER).write_text(fill(_HEADER, values), "utf-8")


def _add(program: Program, operation: Operation) -> None:
    """Adds an operation with floats to a program."""
    name = operation.name
    height, width, maps = (*program.shape, 1, 1)[:3]

    def define(part: str, values: Array) -> str:
        return program.define(f"{name}_{part}", values, "float")

    def call(function: str, *values: Any) -> None:
        program.call(function, name, list(values), operation.shape)

    match operation:
        case Pad(_, (top, _), (left, _), value):
            size = operation.shape[:2]
            call("pad", height, width, maps, top, left, *size, value)
        case Scale(_, factor, offset):
            program.call_in_place("scale", name, factor, offset)
        case Convolution(_, kernel, bias, _):
            weights = define("kernel", kernel), define("bias", bias)
            sizes = *kernel.shape[:2], len(bias)
            call("convolve", height, width, maps, *sizes, *weights)
        case MaxPooling():
            call("max_pool", height, width, maps)
        case Subsampling(_, coefficients, bias, _):
            weights = define("coefficients", coefficients), define("bias", bias)
            call("subsample", height, width, maps, *weights)
        case Dense(_, kernel, bias, _):
            weights = define("kernel", kernel), define("bias", bias)
            call("dense", *kernel.shape, *weights)
        case Distances(_, codes):
            classes, inputs = codes.shape
            call("distances", inputs, classes, define("codes", codes))
        case Softmax():
            program.call_in_place("softmax", name)
    activation = getattr(operation, "activation", "linear")
    if activation != "linear":
        program.call_in_place(activation, name)


def _add_integers(program: Program, layer: dict[str, Any]) -> None:
    """Adds a layer of a LiteRT file, as `integer_layers` returns it."""
    kind, name = layer["kind"], layer["name"]
    height, width, maps = (*program.shape, 1, 1)[:3]

    def define(part: str, ctype: str) -> str:
        return program.define(f"{name}_{part}", layer[part], ctype)

    if kind in ("convolve", "dense"):
        constants = [
            define("kernel", "int8_t"),
            define("bias", "int32_t"),
            define("multiplier", "int32_t"),
            define("shift", "int8_t"),
        ]
        scalars = [layer["zero_in"], layer["zero_out"], layer["least"]]
    if kind == "pad":
        rows, columns = layer["rows"], layer["columns"]
        size = height + sum(rows), width + sum(columns)
        values = [height, width, maps, rows[0], columns[0], *size]
        program.call("pad", name, [*values, layer["zero_in"]], (*size, maps))
    elif kind == "convolve":
        maps_out, down, across, _ = layer["kernel"].shape
        sizes = [height, width, maps, down, across, maps_out]
        program.call(
            "convolve",
            name,
            [*sizes, *constants, *scalars],
            (height - down + 1, width - across + 1, maps_out),
        )
    elif kind == "max_pool":
        size = height // 2, width // 2
        program.call("max_pool", name, [height, width, maps], (*size, maps))
    elif kind == "dense":
        units, inputs = layer["kernel"].shape
        program.call(
            "dense", name, [inputs, units, *constants, *scalars], (units,)
        )
    else:
        exps = define("exps", "int32_t")
        program.call("softmax", name, [program.shape[0], exps], program.shape)
