"""Malicious files are rejected and do no harm."""

import gzip
import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from keras_lenet import LeNet5
from keras_lenet.cli import main
from keras_lenet.models import Ensemble
from tests.helpers import on_default_backend
from tests.reliability.helpers import MEBIBYTE, idx, limited_memory

pytestmark = on_default_backend


# Attacks. Each function makes a file with the function's name.


class Touches:
    """Writes to a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo harmed > {self.path}",)


def rewrite(path, change, model=None):
    """Saves a model and changes the file's entries, a dict of bytes."""
    (model or LeNet5(3, (8, 8, 1))).save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries = change(entries) or entries
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def rewrite_config(path, change, model=None):
    """Saves a model and changes its serialized form, a dict."""

    def change_entry(entries):
        outer = json.loads(entries["config.json"])
        change(outer)
        entries["config.json"] = json.dumps(outer)

    rewrite(path, change_entry, model)


def reconfigure(path, **config):
    rewrite_config(path, lambda outer: outer["config"].update(config))


def reweigh(path, change):
    def change_entry(entries):
        buffer = io.BytesIO(entries["model.weights.h5"])
        with h5py.File(buffer, "a") as file:
            change(file)
        entries["model.weights.h5"] = buffer.getvalue()

    rewrite(path, change_entry)


def first_weight(file):
    return file["layers/conv2d/vars"]


def lambda_layer(path, canary):
    code = f"__import__('os').system('echo harmed > {canary}')"
    function = eval(f"lambda x: (exec({code!r}), x)[1]")
    layers = [keras.Input((8, 8, 1)), keras.layers.Lambda(function)]
    keras.Sequential(layers).save(path)


def lambda_activation(path, canary):
    code = f"__import__('os').system('echo harmed > {canary}')"
    function = eval(f"lambda x: (exec({code!r}), x)[1]")
    made = keras.layers.Lambda(function).get_config()["function"]
    reconfigure(path, classifier_activation=made)


def system_call(canary):
    """Returns the serialized form of an object that runs a command."""
    made = {"module": "os", "class_name": "system", "registered_name": "system"}
    return made | {"config": f"touch {canary}"}


def unknown_class(path, canary):
    rewrite_config(path, lambda outer: outer.update(system_call(canary)))


def forged_policy(path, canary):
    made = {"module": "subprocess", "class_name": "PolicyPopen"}
    reconfigure(path, dtype=made | {"config": {"args": f"touch {canary}"}})


def billion_classes(path, canary):
    reconfigure(path, num_classes=10**9)


def change_ensemble(path, change):
    """Saves an ensemble and changes the entry of its second model."""

    small = LeNet5(3, (8, 8, 1))
    rewrite_config(
        path,
        lambda outer: change(outer["config"]["models"][1]),
        Ensemble([small, small]),
    )


def unknown_class_in_ensemble(path, canary):
    change_ensemble(path, lambda entry: entry.update(system_call(canary)))


def billion_classes_in_ensemble(path, canary):
    change_ensemble(
        path, lambda entry: entry["config"].update(num_classes=10**9)
    )


def huge_loss_of_model_in_ensemble(path, canary):
    units = 10**5
    layer = {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {"units": units},
        "registered_name": None,
        "build_config": {"input_shape": [None, units]},
    }
    change_ensemble(
        path, lambda entry: entry.update(compile_config={"loss": layer})
    )


def thousands_of_models_in_ensemble(path, canary):
    def change(outer):
        outer["config"]["models"] *= 1_000

    small = LeNet5(3, (8, 8, 1))
    rewrite_config(path, change, Ensemble([small, small]))


def traversal(path, canary):
    rewrite(path, lambda entries: {**entries, "../canary": b"harmed"})


def absolute_name(path, canary):
    rewrite(path, lambda entries: {**entries, str(canary): b"harmed"})


def two_of_one_name(path, canary):
    LeNet5(3, (8, 8, 1)).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("config.json", "{}")


def inflating_weights(path, canary):
    LeNet5(3, (8, 8, 1)).save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["model.weights.h5"] += bytes(200 * MEBIBYTE)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def external_link(path, canary):
    def change(file):
        del file["layers"]
        file["layers"] = h5py.ExternalLink(str(canary), "/")

    reweigh(path, change)


def external_values(path, canary):
    def change(file):
        weights = first_weight(file)
        shape, size = weights["0"].shape, weights["0"].nbytes
        del weights["0"]
        weights.create_dataset(
            "0", shape, "float32", external=[(str(canary), 0, size)]
        )

    reweigh(path, change)


def virtual_values(path, canary):
    def change(file):
        weights = first_weight(file)
        shape = weights["0"].shape
        layout = h5py.VirtualLayout(shape, "float32")
        layout[:] = h5py.VirtualSource(str(canary), "x", shape)
        del weights["0"]
        weights.create_virtual_dataset("0", layout)

    reweigh(path, change)


def soft_link(path, canary):
    def change(file):
        weights = first_weight(file)
        del weights["1"]
        weights["1"] = h5py.SoftLink("/layers/conv2d/vars/0")

    reweigh(path, change)


def inflating_values(path, canary):
    def change(file):
        weights = first_weight(file)
        del weights["0"]
        weights.create_dataset(
            "0", (2**28,), "float32", chunks=True, compression="gzip"
        )

    reweigh(path, change)


def not_finite(path, canary):
    def change(file):
        first_weight(file)["1"][0] = np.nan

    reweigh(path, change)


def pickled_labels(path, canary):
    images = np.zeros((2, 8, 8), "uint8")
    labels = np.array([Touches(canary), Touches(canary)])
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)


def bare_pickle(path, canary):
    path.write_bytes(pickle.dumps(Touches(canary)))


def inflating_images(path, canary):
    images = np.zeros((300_000, 28, 28), "uint8")
    np.savez_compressed(path, x_train=images)


def inflating_idx(path, canary):
    path.mkdir()
    images = np.zeros((300_000, 28, 28), "uint8")
    for half in ("train", "t10k"):
        file = path / f"{half}-images-idx3-ubyte.gz"
        file.write_bytes(gzip.compress(idx(images), 1))
        file = path / f"{half}-labels-idx1-ubyte.gz"
        file.write_bytes(gzip.compress(idx(images[0, 0])))


def huge_sizes(path, canary):
    path.mkdir()
    content = idx(np.zeros(9, "uint8"), (2**32 - 1,) * 3)
    for half in ("train", "t10k"):
        (path / f"{half}-images-idx3-ubyte").write_bytes(content)
        (path / f"{half}-labels-idx1-ubyte").write_bytes(content)


def png(width, height):
    """Returns a picture of a few bytes that claims to be larger."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(9)))
        + chunk(b"IEND", b"")
    )


def huge_picture(path, canary):
    path.write_bytes(png(60_000, 60_000))


def slightly_too_large_picture(path, canary):
    path.write_bytes(png(14_143, 14_143))


def picture_with_nothing_in_it(path, canary):
    path.write_bytes(png(14_000, 14_000))


def huge_canvas(path, canary):
    Image.new("RGB", (9, 9)).save(path, "WebP", exif=b"Exif\0\0")
    content = bytearray(path.read_bytes())
    content[24:30] = 2 * (30_000).to_bytes(3, "little")
    path.write_bytes(content)


def program_as_picture(path, canary):
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n"
        f"({canary}) (w) file (harmed) writestring\n%%EOF\n"
    )


COMMANDS = {
    **dict.fromkeys(
        (
            lambda_layer,
            lambda_activation,
            unknown_class,
            forged_policy,
            billion_classes,
            unknown_class_in_ensemble,
            billion_classes_in_ensemble,
            huge_loss_of_model_in_ensemble,
            thousands_of_models_in_ensemble,
            traversal,
            absolute_name,
            two_of_one_name,
            inflating_weights,
            external_link,
            external_values,
            virtual_values,
            soft_link,
            inflating_values,
            not_finite,
        ),
        ("evaluate", "{name}.keras"),
    ),
    **dict.fromkeys(
        (
            pickled_labels,
            bare_pickle,
            inflating_images,
            inflating_idx,
            huge_sizes,
        ),
        ("train", "--dataset", "{name}.npz"),
    ),
    **dict.fromkeys(
        (
            huge_picture,
            slightly_too_large_picture,
            picture_with_nothing_in_it,
            huge_canvas,
            program_as_picture,
        ),
        ("predict", "{good}", "{name}.png"),
    ),
}


@pytest.mark.parametrize("make", COMMANDS)
def test_attacks_are_rejected(make, tmp_path, all_survive, capsys, monkeypatch):
    canary = tmp_path / "canary"
    good = tmp_path / "good.keras"
    LeNet5(3, (8, 8, 1)).save(good)
    folder = tmp_path / "attacks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    command = [
        part.format(name=make.__name__, good=good) for part in COMMANDS[make]
    ]
    make(folder / command[-1], canary)
    # Write it after `make`, because Keras runs layers when they are created.
    canary.write_text("alive" * 200)
    before = sorted(tmp_path.rglob("*"))
    with limited_memory():
        code = main(command)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    survived = (
        code == 2
        and command[-1] in error
        and canary.read_text() == "alive" * 200
        and sorted(tmp_path.rglob("*")) == before
    )
    assert survived, (code, error)
    # The rejection must come before the backend allocates the weights, which
    # `tracemalloc` does not see.
    allocates = make.__name__.startswith(("billion", "thousands", "huge_loss"))
    assert not allocates or re.search("expected (sizes|a model)", error)
    all_survive("attack files", [survived])
