"""Writing models for other programs and machines."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_lenet.exporting import (
    c_program,
    onnx_file,
    tensorflow_files,
    web_page,
)
from keras_lenet.files.atomic import atomic_write, check_file
from keras_lenet.models.adapt import adapt
from keras_lenet.models.ensemble import Ensemble
from keras_lenet.models.lenet5 import LeNet5
from keras_lenet.original.model import OriginalLeNet5
from keras_lenet.types import Array
from keras_lenet.validation.extras import check_installed
from keras_lenet.version import __version__

# How far probabilities may be from those of Keras. Those of `OriginalLeNet5`
# depend on distances of up to hundreds, with a relative error of 1e-6.
_LARGEST_DIFFERENCE = {LeNet5: 1e-5, OriginalLeNet5: 1e-4}

# The formats that hold any graph, so also logits and ensembles.
_GRAPHS = ("onnx", "litert", "saved_model")

# The share of classes on which an integer program must agree.
_LEAST_AGREEMENT = 0.98


class Format(NamedTuple):
    """A format of `export`.

    Attributes:
        suffix: String. The end of the file's name, or `""` for a folder.
        needs: Tuple of strings. The modules that must be installed.
        write: Function of a path, a model and a card.
        run: Function of a path and images that returns probabilities, or `None`
            where nothing can run the file.
        write_int8: Function like `write` with representative images, or `None`.
    """

    suffix: str
    needs: tuple[str, ...]
    write: Callable[..., None]
    run: Callable[..., Array | None]
    write_int8: Callable[..., None] | None = None


FORMATS = {
    "onnx": Format(
        ".onnx",
        ("onnx", "onnxruntime"),
        onnx_file.write,
        onnx_file.run,
        onnx_file.write_int8,
    ),
    "litert": Format(
        ".tflite",
        ("tensorflow", "ai_edge_litert"),
        tensorflow_files.write_litert,
        tensorflow_files.run_litert,
        tensorflow_files.write_litert_int8,
    ),
    "saved_model": Format(
        "",
        ("tensorflow",),
        tensorflow_files.write_saved_model,
        tensorflow_files.run_saved_model,
    ),
    "c": Format("", (), c_program.write, c_program.run, c_program.write_int8),
    "html": Format(".html", (), web_page.write, web_page.run),
}


class Comparison(NamedTuple):
    """How the outputs of an exported model compare with those of Keras.

    Attributes:
        difference: Float. The largest difference of a probability, or of a
            logit, for logits above 1 relative to them.
        agreement: Float. The share of images with the same class, from 0 to 1.
        outputs: float32 array of shape `(n, num_classes)`, the exported
            model's outputs.
        expected: float32 array of the same shape, those of Keras.
    """

    difference: float
    agreement: float
    outputs: Array
    expected: Array


def export(
    model: Any,
    path: str | os.PathLike[str],
    format: str,
    int8: bool = False,
    logits: bool = False,
    images: npt.ArrayLike | None = None,
    representative: npt.ArrayLike | None = None,
    metadata: dict[str, Any] | None = None,
) -> Comparison | None:
    """Exports a model, and compares what was written with Keras.

    The exported model takes raw pixels, `images`, a uint8 tensor of shape
    `(batch, height, width, channels)`, and returns `probabilities` of shape
    `(batch, num_classes)`.

    | format | what is written | `int8` | runs with |
    | --- | --- | --- | --- |
    | `"onnx"` | a file, `.onnx` | yes | ONNX Runtime, OpenVINO, ... |
    | `"litert"` | a file, `.tflite` | yes | LiteRT, formerly TensorFlow Lite |
    | `"saved_model"` | a folder | no | TensorFlow, TensorFlow Serving |
    | `"c"` | a folder, `lenet5.h` and `lenet5.c` | yes | any C99 compiler |
    | `"html"` | a file, `.html` | no | any browser, without a network |

    Args:
        model: A `LeNet5` or `OriginalLeNet5`, on any backend, or, for
            `"onnx"`, `"litert"` and `"saved_model"`, an `Ensemble` of one of
            them. A model without preprocessing is exported with it.
        path: Path of the file or folder. A file is replaced; a folder must be
            empty or new.
        format: String, one of the formats above.
        int8: Boolean. Whether to compute with 8-bit integers. With `"litert"`,
            the input is then one int8 image, `pixels - 128`, and the output
            int8. Defaults to `False`.
        logits: Boolean. Whether the exported model returns `logits` rather than
            `probabilities`; those of `OriginalLeNet5` are negative distances.
            For `"onnx"`, `"litert"` and `"saved_model"` without `int8`.
            Defaults to `False`.
        images: uint8 array of shape `(n, height, width, channels)` to compare
            with. Defaults to random pixels.
        representative: uint8 array like `images`, from which the ranges of
            integers are estimated. `int8=True` needs it.
        metadata: Optional dict to store in the file, besides the version and
            the names of inputs and outputs.

    Returns:
        `Comparison`, or `None` if nothing on this machine can run the file,
        e.g. without a C compiler.

    Raises:
        ValueError: If an argument is invalid, the format does not support the
            model, or the outputs differ from those of Keras. Nothing is
            written then.
        ImportError: If a package that the format needs is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_lenet import LeNet5, export
    >>> folder = getfixture("tmp_path") / "program"
    >>> images = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1))
    >>> found = export(LeNet5(), folder, "c", images=images.astype("uint8"))
    >>> sorted(file.name for file in folder.iterdir())
    ['lenet5.c', 'lenet5.h']
    """
    path = Path(path)
    _check_arguments(model, path, format, int8, logits)
    suffix, _, write, run, write_int8 = FORMATS[format]
    model = adapt(
        model,
        include_preprocessing=True,
        dtype="float32",
        input_shape=_shape_with_preprocessing(model),
    )
    if logits and type(model) is LeNet5:
        model = adapt(model, classifier_activation=None)
    shape = model.input_shape[1:]
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (100, *shape))
        images = images.astype("uint8")
    images = _check_images("images", images, shape)
    options = {"logits": True} if logits else {}
    extra: tuple[Array, ...] = ()
    if int8 and write_int8 is not None:
        write = write_int8
        extra = (_check_images("representative", representative, shape),)
    card = {
        "model": type(model).__name__,
        "keras_lenet_version": __version__,
        "classes": str(model.num_classes),
    }
    if model.class_names is not None:
        card["class_names"] = _as_json(model.class_names)
    card |= {
        key: value if isinstance(value, str) else _as_json(value)
        for key, value in (metadata or {}).items()
    }
    with _replacing(path, suffix) as temporary:
        write(temporary, model, card, *extra, **options)
        outputs = run(temporary, images)
        if outputs is None:
            return None
        comparison = _compare(model, images, outputs, logits)
        _check_comparison(comparison, _kind(model), format, int8)
    return comparison


def _check_arguments(
    model: Any, path: Path, format: str, int8: bool, logits: bool
) -> None:
    kind = _kind(model)
    if kind not in _LARGEST_DIFFERENCE:
        raise ValueError(
            "`model` must be a `LeNet5`, an `OriginalLeNet5`, or an ensemble "
            f"of one of them, and not of a subclass. Received: {kind.__name__}."
            " Keras' own `model.export` may export it."
        )
    # `adapt` would turn a network without preprocessing into one for 28x28.
    if len(model.output_shape) != 2:
        raise ValueError(
            "`model` must return one output for each class. "
            f"Received: a model with outputs of shape {model.output_shape}"
        )
    if format not in FORMATS:
        raise ValueError(
            f"`format` must be one of {', '.join(FORMATS)}. "
            f"Received: format={format!r}"
        )
    if int8 and FORMATS[format].write_int8 is None:
        names = [name for name, entry in FORMATS.items() if entry.write_int8]
        raise ValueError(
            f"`int8` needs one of the formats {', '.join(names)}. "
            f"Received: format={format!r}"
        )
    if logits and (int8 or format not in _GRAPHS):
        raise ValueError(
            f"`logits` needs one of the formats {', '.join(_GRAPHS)}, "
            f"without `int8`. Received: format={format!r}, int8={int8}"
        )
    if isinstance(model, Ensemble):
        _check_ensemble(model, format, logits)
    if FORMATS[format].suffix:
        check_file(path, "path", FORMATS[format].suffix)
    elif path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(
            "`path` must be an empty or a new folder. "
            f"Received: path={str(path)!r}"
        )
    elif not path.parent.is_dir():
        raise ValueError(
            "`path` must be in a folder that exists. "
            f"Received: path={str(path)!r}"
        )
    # TensorFlow quantizes the C program too.
    quantizes_c = int8 and format == "c"
    for name in ("tensorflow",) if quantizes_c else FORMATS[format].needs:
        check_installed(name, "This format")


def _as_json(value: Any) -> str:
    # People read it in pages and in comments of programs.
    return json.dumps(value, ensure_ascii=False)


def _kind(model: Any) -> type:
    """Returns the class of a model, for an ensemble that of its models."""
    if isinstance(model, Ensemble):
        kinds = {type(each) for each in model.models}
        if len(kinds) == 1:
            return kinds.pop()
    return type(model)


def _check_ensemble(model: Ensemble, format: str, logits: bool) -> None:
    if format not in _GRAPHS:
        raise ValueError(
            f"An ensemble needs one of the formats {', '.join(_GRAPHS)}. "
            f"Received: format={format!r}"
        )
    activation = model.classifier_activation
    if logits and activation is not keras.activations.linear:
        raise ValueError(
            "`logits` needs an ensemble of models that return logits, as a "
            "mean of probabilities has none. Received: models with "
            f"classifier_activation={activation!r}"
        )


def _shape_with_preprocessing(model: Any) -> tuple[int, ...]:
    height, width, channels = model.input_shape[1:]
    if model.include_preprocessing:
        return height, width, channels
    # Images of 28x28 are what such a model was trained on, padded.
    return min(height, 28), min(width, 28), channels


def _check_images(
    name: str, images: npt.ArrayLike | None, shape: tuple[int, ...]
) -> Array:
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.shape[1:] != shape or not len(array):
        raise ValueError(
            f"`{name}` must be uint8 of shape (n, "
            f"{', '.join(map(str, shape))}). Received: "
            f"{array.dtype} of shape {array.shape}"
        )
    return array


@contextlib.contextmanager
def _replacing(path: Path, suffix: str) -> Iterator[Path]:
    """Yields a temporary file or folder that becomes `path` on success."""
    if suffix:
        with atomic_write(path) as temporary:
            yield temporary
        return
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder
        folder.chmod(0o755)
        if path.is_dir():
            path.rmdir()
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compare(
    model: Any, images: Array, outputs: Array, logits: bool
) -> Comparison:
    # `predict` would compile a program that is needed once.
    parts = [
        model(images[start : start + 500], training=False)
        for start in range(0, len(images), 500)
    ]
    expected = np.concatenate(list(map(keras.ops.convert_to_numpy, parts)))
    if model.classifier_activation is keras.activations.linear and not logits:
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(expected))
    same = outputs.argmax(axis=1) == expected.argmax(axis=1)
    return Comparison(
        float((abs(outputs - expected) / np.maximum(1, abs(expected))).max()),
        float(same.mean()),
        outputs,
        np.asarray(expected),
    )


def _check_comparison(
    found: Comparison, kind: type, format: str, int8: bool
) -> None:
    if not np.isfinite(found.outputs).all() or (
        found.agreement < _LEAST_AGREEMENT
        if int8
        else found.difference > _LARGEST_DIFFERENCE[kind]
    ):
        raise ValueError(
            f"`model` could not be exported as {format}. On "
            f"{len(found.outputs)} images, outputs differ from Keras' by up to "
            f"{found.difference:.2g}, and {found.agreement:.1%} of the classes "
            "are the same. Nothing was written."
        )
