"""An interrupted and resumed run equals an uninterrupted one."""

import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lenet import cli
from keras_lenet.saving import load_model
from tests.callbacks.helpers import IMAGES, LABELS, are_same, make_model
from tests.callbacks.helpers import train_resumable as train
from tests.helpers import BACKEND, needs_tensorflow


class Copies(keras.callbacks.Callback):
    """Keeps a copy of a file for every step."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.steps:
            shutil.copy(self.path, f"{self.path}.{self.steps}")
        self.steps += 1


@needs_tensorflow
def test_a_run_resumes_after_every_step(tmp_path, full, all_survive, generator):
    path = tmp_path / "training.npz"
    # Resume with one model, because tracing takes most of the time.
    model = make_model()
    whole = train(path, model, after=[Copies(path)])
    assert whole["held out"]["step"] == [*range(0, 33, 4), 33]

    outcomes = []
    for step in range(1, 33):
        shutil.copy(f"{path}.{step}", path)
        again = make_model() if full or step == 16 else model
        for weight in again.weights:
            weight.assign(generator.random(weight.shape))
        resumed = train(path, again, freq="epoch", verbose=0)
        outcomes.append(are_same(resumed, whole))
    all_survive("interrupted at every step and resumed", outcomes)


@pytest.mark.starts_first
@needs_tensorflow
def test_the_command_line_survives_being_killed(
    tmp_path, full, all_survive, generator
):
    if BACKEND != "tensorflow" and not full:
        pytest.skip("takes long, runs on TensorFlow")
    data = tmp_path / "data.npz"
    np.savez(
        data,
        **{"x_train": IMAGES, "y_train": LABELS},
        **{"x_test": IMAGES[:60], "y_test": LABELS[:60]},
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = [
        *("train", "--dataset", str(data), "--batch-size", "10"),
        *("--steps", "400", "--eval-every", "10", "--eval-size", "30"),
    ]
    assert cli.main([*arguments, "--output", str(whole)]) == 0

    def resume():
        command = [sys.executable, "-m", "keras_lenet", *arguments]
        return subprocess.Popen(
            [*command, "--output", str(killed), "--resume"],
            # A kill would leave a half-written cache.
            env=os.environ | {"TF_XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    outcomes = []
    for _ in range(50 if full else 2):
        process = resume()
        # Kill it in one of the first steps after it starts or resumes.
        lines = generator.integers(1, 12)
        for line in process.stdout:
            lines -= line.startswith("step ")
            if not lines:
                break
        process.kill()
        process.communicate()
        outcomes.append(process.returncode == -signal.SIGKILL)
    process = resume()
    process.communicate()
    assert process.returncode == 0

    def results(folder):
        model = load_model(folder / "model.keras")
        weights = [keras.ops.convert_to_numpy(w) for w in model.weights]
        return weights, (folder / "history.csv").read_text()

    assert are_same(results(killed), results(whole))
    all_survive("command line killed by kill -9 and resumed", outcomes)
