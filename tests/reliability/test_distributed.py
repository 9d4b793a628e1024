"""Several devices and several processes train as one does."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import BACKEND, needs_tensorflow

from keras_lenet.models import load_model

pytestmark = needs_tensorflow

# Trains 16 steps; what it became and which images it saw go to a file.
TRAINS = """
import json, pathlib, sys, warnings
import keras
import numpy as np
# Of several processes Keras does not know how long the data are.
warnings.filterwarnings("ignore", "Your input ran out of data")

def train(folder, name, stop):
    from keras_lenet import (
        BestModelCheckpoint,
        HeldOutEvaluation,
        LeNet5,
        ResumableTraining,
        SamplePredictions,
        datasets,
    )
    folder = pathlib.Path(folder)
    generator = np.random.default_rng(98)
    images = generator.integers(0, 256, (128, 12, 12, 1)).astype("uint8")
    # Every image can be told by its first pixels.
    images[:, 0, 0, 0] = np.arange(128)
    labels = generator.integers(0, 3, 128)
    keras.utils.set_random_seed(1)
    data = datasets.image_dataset_from_array(
        images, labels, 16, shuffle=True, seed=5, drop_remainder=True
    )
    class Stops(keras.callbacks.Callback):
        left = stop

        def on_train_batch_begin(self, batch, logs=None):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1

    model = LeNet5(3, (12, 12, 1))
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    held_out = HeldOutEvaluation(
        (images[:40], labels[:40]),
        3,
        sample_size=15,
        seed=2,
        batch_size=8,
        filename=folder / "history.csv",
        strict=True,
    )
    callbacks = [
        held_out,
        SamplePredictions(
            images[:3], labels[:3], 8, folder / "{step}.png", strict=True
        ),
        BestModelCheckpoint(folder / "best.keras", strict=True),
        ResumableTraining(
            folder / "state.npz", data, freq=1, verbose=0, strict=True
        ),
        Stops(),
    ]
    try:
        history = model.fit(
            data, epochs=2, callbacks=callbacks, verbose=0, shuffle=False
        ).history
    except KeyboardInterrupt:
        return
    np.savez(
        folder / f"{name}.npz",
        *[keras.ops.convert_to_numpy(weight) for weight in model.weights],
        histories=json.dumps([history, held_out.history]),
    )
"""

ONE = TRAINS + "train(sys.argv[1], '0', int(sys.argv[2]))"

MIRRORED = (
    """
import sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
scope.__enter__()
"""
    + ONE
)

PARALLEL = (
    """
import keras, jax
keras.distribution.set_distribution(keras.distribution.DataParallel())
assert len(jax.devices()) == 2
"""
    + ONE
)

PROCESS = (
    """
import sys, jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[3], 2, int(sys.argv[4]))
import keras
keras.distribution.set_distribution(keras.distribution.DataParallel())
"""
    + TRAINS
    + "train(sys.argv[1], sys.argv[4], int(sys.argv[2]))"
)


def run(code, folder, stop=-1, processes=1, **environment):
    """Runs code in processes that begin at the same time."""
    folder.mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder, str(stop), address, str(i)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]
    for process in started:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def results(folder, name="0"):
    with np.load(folder / f"{name}.npz") as saved:
        weights = [saved[f"arr_{i}"] for i in range(10)]
        return weights, json.loads(str(saved["histories"]))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one device makes of it."""
    folder = tmp_path_factory.mktemp("one")
    run(ONE, folder)
    return results(folder)


def check_one_setup(code, folder, one, all_survive, family, **kwargs):
    """Compares with one device, and an interrupted training with a whole."""
    cache = folder / "compiled"
    kwargs |= {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    run(code, folder / "whole", **kwargs)
    run(code, folder / "resumed", stop=11, **kwargs)
    assert not (folder / "resumed" / "0.npz").exists()
    run(code, folder / "resumed", **kwargs)
    whole, resumed = (results(folder / name) for name in ("whole", "resumed"))
    for weight, same in zip(whole[0], one[0], strict=True):
        np.testing.assert_allclose(weight, same, atol=1e-4)
    for history, same in zip(whole[1], one[1], strict=True):
        assert set(history) == set(same)
        for name in history:
            np.testing.assert_allclose(history[name], same[name], atol=1e-4)
    np.testing.assert_equal(resumed, whole)
    written = {path.name for path in (folder / "whole").iterdir()}
    expected = {"8.png", "16.png", "best.keras", "history.csv", "state.npz"}
    assert written - {"0.npz", "1.npz"} == expected
    best = load_model(folder / "whole" / "best.keras")
    assert best.count_params() == sum(weight.size for weight in whole[0])
    all_survive(family, [True])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
def test_a_mirrored_strategy_trains_as_one_device(tmp_path, one, all_survive):
    check_one_setup(MIRRORED, tmp_path, one, all_survive, "MirroredStrategy")


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_two_devices_train_as_one(tmp_path, one, all_survive):
    flags = "--xla_force_host_platform_device_count=2"
    family = "DataParallel, two devices"
    check_one_setup(
        PARALLEL, tmp_path, one, all_survive, family, XLA_FLAGS=flags
    )


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_two_processes_train_as_one(tmp_path, one, all_survive):
    family = "DataParallel, two processes"
    check_one_setup(PROCESS, tmp_path, one, all_survive, family, processes=2)
    first, other = (results(tmp_path / "whole", name) for name in "01")
    np.testing.assert_equal(first, other)


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_every_image_goes_to_one_of_two_processes(tmp_path):
    code = """
import sys, jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[3], 2, int(sys.argv[4]))
import keras, numpy as np
from keras_lenet import datasets
distribution = keras.distribution.DataParallel()
data = datasets.image_dataset_from_array(
    np.arange(128, dtype="uint8").reshape(128, 1, 1),
    np.arange(128),
    16,
    shuffle=True,
    seed=5,
    drop_remainder=True,
)
parts = [labels.numpy() for _, labels in distribution.distribute_dataset(data)]
np.save(f"{sys.argv[1]}/{sys.argv[4]}.npy", parts)
"""
    run(code, tmp_path, processes=2)
    parts = [np.load(tmp_path / f"{i}.npy") for i in range(2)]
    assert [part.shape for part in parts] == [(8, 8)] * 2
    assert sorted(np.ravel(parts)) == list(range(128))


@pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
def test_the_command_line_trains_in_two_processes(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "keras_lenet", "train"),
                *("--backend", "jax", "--steps", "20", "--batch-size", "50"),
                *("--eval-every", "10", "--eval-size", "25"),
                *("--coordinator", address, "--num-processes", "2"),
                *("--process-id", str(i)),
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    done = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], done
    (output, _), (other, _) = done
    assert "accuracy on all 360 test images" in output
    assert "step 20 - loss" in output
    assert "step 20 - loss" not in other and "accuracy" not in other
    model = load_model(tmp_path / "lenet5-run" / "model.keras")
    weights = [keras.ops.convert_to_numpy(w) for w in model.weights]
    assert all(np.isfinite(weight).all() for weight in weights)
