"""A web page that runs a model, in one file and without a network."""

import base64
import html
import json
import shutil
import subprocess
import tempfile
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
from keras_lenet.exporting.program import fill
from keras_lenet.types import Array

# Layers that compute something of their own, by the paper's names.
_SHOWN = ("c1", "s2", "c3", "s4", "c5", "f6")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def write(path: Path, model: Any, card: dict[str, Any]) -> None:
    """Writes a model as a web page.

    Raises:
        ValueError: If the model does not take grey images.
    """
    height, width, channels = model.input_shape[1:]
    if channels != 1:
        raise ValueError(
            "`model` must take grey images, of one channel, for a web page. "
            f"Received: a model for images of shape {(height, width, channels)}"
        )
    layers: list[dict[str, Any]] = []
    arrays: list[Array] = []
    for operation in operations(model):
        layer = _layer(operation)
        weights = layer.pop("weights", {})
        arrays += weights.values()
        layer["arrays"] = {name: w.size for name, w in weights.items()}
        layers.append(layer)
        if isinstance(operation, Distances):
            codes = operation.codes.reshape(-1, 12, 7).transpose(1, 2, 0)
            by_name = {layer["name"]: layer for layer in layers}
            by_name["f6"]["codes_below"] = codes.ravel().astype(int).tolist()
    network = {
        "height": height,
        "width": width,
        "classes": model.num_classes,
        "names": model.class_names or list(range(model.num_classes)),
        "threshold": float(card.get("threshold", 0)),
        "layers": layers,
    }
    packed = np.concatenate([array.ravel() for array in arrays])
    title = f"{card['model']} {card.get('preset', '')}".strip()
    values = {
        "title": html.escape(title),
        "card": html.escape(", ".join(f"{k}: {v}" for k, v in card.items())),
        # A class name must not end the script.
        "network": json.dumps(network, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
        "weights": base64.b64encode(packed.astype("<f4").tobytes()).decode(),
    }
    path.write_text(fill("page.html", values), "utf-8")


def browser() -> str | None:
    """Returns the path of a browser that runs without a screen, if any."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None)


def run(path: Path, images: Array) -> Array | None:
    """Returns the probabilities that the page computes for images.

    Returns:
        float32 array of shape `(n, classes)`, or `None` without a browser.
    """
    encoded = base64.b64encode(images.tobytes()).decode()
    script = f"""
const bytes = Uint8Array.from(atob("{encoded}"), (c) => c.charCodeAt(0));
const length = {images[0].size};
const found = [];
for (let i = 0; i < bytes.length; i += length) {{
  const values = predict(bytes.subarray(i, i + length));
  found.push(...values[values.length - 1]);
}}
const numbers = Float32Array.from(found);
let text = "";
for (const byte of new Uint8Array(numbers.buffer))
  text += String.fromCharCode(byte);
document.title = btoa(text);
"""
    title = title_after(path, script)
    if title is None:
        return None
    values = np.frombuffer(base64.b64decode(title), "<f4")
    return values.reshape(len(images), -1)


def title_after(path: Path, script: str) -> str | None:
    """Returns the title of a page after a script ran on it.

    Returns:
        String, or `None` if this machine has no browser.
    """
    command = browser()
    if command is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch, "page.html")
        text = path.read_text("utf-8")
        page.write_text(f"{text}<script>{{{script}}}</script>", "utf-8")
        dumped = subprocess.run(
            [
                command,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--no-first-run",
                f"--user-data-dir={scratch}/profile",
                "--dump-dom",
                page.as_uri(),
            ],
            capture_output=True,
            check=True,
            text=True,
            timeout=120,
        ).stdout
    start = dumped.index("<title>") + len("<title>")
    return dumped[start : dumped.index("</title>", start)]


def _layer(operation: Operation) -> dict[str, Any]:
    """Returns what the page's script needs to know about an operation."""
    name = operation.name
    values: dict[str, Any] = {
        "name": name,
        "activation": getattr(operation, "activation", "linear"),
        "shape": operation.shape,
        "shown": name in _SHOWN,
    }
    match operation:
        case Pad(_, (top, _), (left, _), value):
            values |= {"kind": "pad", "top": top, "left": left, "value": value}
        case Scale(_, factor, offset):
            values |= {"kind": "scale", "factor": factor, "offset": offset}
        case Convolution(_, kernel, bias, _):
            down, across = kernel.shape[:2]
            values |= {"kind": "convolve", "rows": down, "columns": across}
            values["weights"] = {"kernel": kernel, "bias": bias}
        case MaxPooling():
            values["kind"] = "max_pool"
        case Subsampling(_, coefficients, bias, _):
            values["kind"] = "subsample"
            values["weights"] = {"coefficients": coefficients, "bias": bias}
        case Dense(_, kernel, bias, _):
            values["kind"] = "dense"
            values["weights"] = {"kernel": kernel, "bias": bias}
        case Distances(_, codes):
            values["kind"] = "distances"
            values["weights"] = {"codes": codes}
        case Softmax():
            values["kind"] = "softmax"
    height, width, maps = (*operation.shape, 1, 1)[:3]
    values["title"] = (
        f"{height} units"
        if len(operation.shape) == 1
        else f"{maps} of {height}x{width}"
    )
    return values
