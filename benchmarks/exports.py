"""Measures exported models: size, accuracy, and the time for one image.

    python benchmarks/exports.py --data DIR

Times are medians of interleaved rounds, as ratios to PyTorch's `model(x)` in
inference mode, in one thread each.
"""

import argparse
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS, IMAGES = 15, 300


def torch_network() -> Callable[[Any], Any]:
    """Returns LeNet-5 on PyTorch, with random weights, for one image."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
        nn.Softmax(dim=1),
    ).eval()

    def predict(image: Any) -> Any:
        with torch.inference_mode():
            pixels = torch.from_numpy(image).permute(0, 3, 1, 2)
            return network(pixels.float() / 255)

    return predict


def onnx_session(path: Path) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda image: session.run(None, {"images": image})


def litert_interpreter(path: Path) -> Callable[[Any], Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], (1, 28, 28, 1))
    interpreter.allocate_tensors()
    (given,), (returned,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )

    def predict(image: Any) -> Any:
        if given["dtype"] == np.int8:
            image = (image ^ 128).view("int8")
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(returned["index"])

    return predict


def c_library(folder: Path) -> Callable[[Any], Any]:
    library = folder.parent / f"{folder.name}.so"
    files = [folder / "lenet5.c", "-lm", "-o", library]
    subprocess.run(["cc", "-O3", "-shared", "-fPIC", *files], check=True)
    function = ctypes.CDLL(str(library)).lenet5_predict
    probabilities = (ctypes.c_float * 10)()

    def predict(image: Any) -> Any:
        function(image.ctypes.data_as(ctypes.c_void_p), probabilities)
        return probabilities

    return predict


RUNNERS = {
    "onnx": (".onnx", onnx_session),
    "litert": (".tflite", litert_interpreter),
    "c": ("-c", c_library),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--model", default="mnist")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lenet import datasets, export, saving

    (x_train, _), (images, labels) = datasets.load_data(arguments.data)
    model = saving.load(arguments.model)
    rows: list[tuple[str, ...]] = []
    runners: dict[str, Callable[[Any], Any]] = {"pytorch": torch_network()}
    with tempfile.TemporaryDirectory() as scratch:
        for format, (suffix, load) in RUNNERS.items():
            for int8 in (False, True):
                name = f"{format}{' int8' if int8 else ''}"
                path = Path(scratch, name.replace(" ", "-") + suffix)
                found = export(
                    model,
                    path,
                    format,
                    int8=int8,
                    images=images,
                    representative=x_train[:500],
                )
                right = np.mean(found.outputs.argmax(axis=1) == labels)
                files = path.iterdir() if path.is_dir() else [path]
                size = sum(file.stat().st_size for file in files)
                runners[name] = load(path)
                difference = f"{found.difference:.1e}"
                rows.append((name, f"{size:,}", difference, f"{right:.2%}"))
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(ROUNDS):
            for name, predict in runners.items():
                start = time.perf_counter()
                for i in range(IMAGES):
                    predict(images[i : i + 1])
                times[name].append((time.perf_counter() - start) / IMAGES)
    base = statistics.median(times["pytorch"])
    print(f"PyTorch: {1e6 * base:.0f} us for an image")
    print("| format | bytes | largest difference | accuracy | time |")
    print("| --- | --- | --- | --- | --- |")
    for name, *cells in rows:
        ratio = statistics.median(times[name]) / base
        print(f"| {' | '.join([name, *cells])} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
