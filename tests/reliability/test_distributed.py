"""Several devices or processes train like one device."""

import json
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lenet.saving import load_model
from tests.helpers import BACKEND, needs_tensorflow
from tests.reliability import setups

pytestmark = needs_tensorflow
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="about JAX")


def free_address():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listening.getsockname()[1]}"


def outputs(commands, folder):
    """Returns the exit codes and outputs of concurrent processes."""
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    done = [process.communicate(timeout=180) for process in started]
    return [
        (process.returncode, *printed)
        for process, printed in zip(started, done, strict=True)
    ]


def results_of(setup, folder, addresses=((),)):
    """Returns the results of processes that train together."""
    commands = [
        [setups.__file__, folder, setup, *arguments] for arguments in addresses
    ]
    for code, output, errors in outputs(commands, folder):
        assert code == 0, output + errors
    return [
        json.loads(path.read_text())
        for path in sorted(folder.glob("found*.json"))
    ]


def check(found, folder, interrupt):
    """Compares with one device, and the resumed run with the whole one."""
    weights, histories = setups.train(folder / "one", setups.make_model())
    for weight, same in zip(found["whole"][0], weights, strict=True):
        np.testing.assert_allclose(weight, same, atol=1e-4)
    for history, same in zip(found["whole"][1], histories, strict=True):
        assert set(history) == set(same)
        for name in history:
            np.testing.assert_allclose(history[name], same[name], atol=1e-4)
    assert found["interrupt"] == f"interrupted after {interrupt} steps"
    resumed, whole = found["resumed"], found["whole"]
    np.testing.assert_equal(resumed[0], whole[0])
    # The order in which two replicas add to a mean varies.
    for history, same in zip(resumed[1], whole[1], strict=True):
        assert set(history) == set(same)
        for name in history:
            np.testing.assert_allclose(history[name], same[name], rtol=1e-6)
    expected = {"8.png", "16.png", "best.keras", "history.csv"}
    for name in ("whole", "resumed"):
        written = {path.name for path in (folder / name / "0").iterdir()}
        assert written - {"state.npz"} == expected
    best = load_model(folder / "whole" / "0" / "best.keras")
    assert best.count_params() == sum(weight.size for weight in weights)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")
def test_a_mirrored_strategy_trains_like_one_device(tmp_path, all_survive):
    (found,) = results_of("mirrored", tmp_path)
    check(found, tmp_path, interrupt=7)
    all_survive("MirroredStrategy", [True])


@on_jax
def test_two_devices_train_like_one(tmp_path, all_survive):
    (found,) = results_of("two_devices", tmp_path)
    check(found, tmp_path, interrupt=7)
    all_survive("DataParallel, two devices", [True])


@on_jax
def test_two_processes_train_like_one(tmp_path, all_survive):
    address = free_address()
    found, other = results_of(
        "two_processes", tmp_path, [(address, 0), (address, 1)]
    )
    # The interrupt is requested after 6 steps. The next save is after 10.
    check(found, tmp_path, interrupt=10)
    for name in ("whole", "resumed"):
        assert not list((tmp_path / name / "1").iterdir())
    shares = found.pop("shares"), other.pop("shares")
    assert found == other
    assert all(len(share) == 8 for half in shares for share in half)
    assert sorted(np.ravel(shares)) == list(range(128))
    all_survive("DataParallel, two processes", [True])


@on_jax
def test_the_command_line_trains_in_two_processes(tmp_path):
    def commands(steps):
        address = free_address()
        for process in range(2):
            yield [
                *("-m", "keras_lenet", "train", "--backend", "jax"),
                *("--steps", steps, "--batch-size", "50", "--resume"),
                *("--eval-every", "100", "--eval-size", "25"),
                *("--coordinator", address, "--num-processes", "2"),
                *("--process-id", process),
            ]

    done = outputs(commands(100), tmp_path)
    assert [code for code, _, _ in done] == [0, 0], done
    (_, output, _), (_, other, _) = done
    assert "accuracy on all 360 test images" in output
    assert "step 100: loss" in output
    assert "step 100: loss" not in other and "accuracy" not in other
    model = load_model(tmp_path / "lenet5-run" / "model.keras")
    weights = [keras.ops.convert_to_numpy(w) for w in model.weights]
    assert all(np.isfinite(weight).all() for weight in weights)
