"""A training that was interrupted becomes the one that was not."""

import csv
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
from conftest import needs_tensorflow
from test_checkpoints import IMAGES, LABELS, are_same, make_model, train

from keras_lenet.models import load_model


class Copies(keras.callbacks.Callback):
    """Copies a file before every step."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.steps:
            shutil.copy(self.path, f"{self.path}.{self.steps}")
        self.steps += 1


@needs_tensorflow
def test_it_goes_on_from_every_step_as_if_nothing_had_been(
    tmp_path, full, all_survive, generator
):
    path = tmp_path / "training.npz"
    # To trace it again and again is what takes the time.
    model = make_model()
    whole = train(path, model, after=[Copies(path)])
    assert whole["held out"]["step"] == [*range(0, 33, 4), 33]

    outcomes = []
    for step in range(1, 33):
        shutil.copy(f"{path}.{step}", path)
        again = make_model() if full or step % 11 == 5 else model
        for weight in again.weights:
            weight.assign(generator.random(weight.shape))
        outcomes.append(are_same(train(path, again), whole))
    all_survive("interrupted at every step and resumed", outcomes)


@needs_tensorflow
def test_the_command_line_survives_being_killed(
    tmp_path, full, all_survive, generator
):
    np.savez(
        tmp_path / "data.npz",
        **{"x_train": IMAGES, "y_train": LABELS},
        **{"x_test": IMAGES[:60], "y_test": LABELS[:60]},
    )
    command = [
        *(sys.executable, "-m", "keras_lenet", "train"),
        *("--dataset", "data.npz", "--batch-size", "10", "--recipe", "fast"),
        *("--steps", "400", "--eval-every", "10", "--eval-size", "30"),
    ]

    def results(folder):
        model = load_model(tmp_path / folder / "model.keras")
        with (tmp_path / folder / "history.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        return [keras.ops.convert_to_numpy(w) for w in model.weights], rows

    whole = subprocess.Popen(
        [*command, "--output", "whole"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    outcomes = []
    killed = [*command, "--output", "killed", "--resume"]
    for _ in range(50 if full else 5):
        process = subprocess.Popen(
            killed,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # Anywhere in the first steps that it makes, or goes on with.
        lines = generator.integers(1, 12)
        for line in process.stdout:
            lines -= line.startswith("step ")
            if not lines:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        outcomes.append(process.returncode == -signal.SIGKILL)
    subprocess.run(killed, cwd=tmp_path, check=True, capture_output=True)
    assert whole.wait() == 0
    same = are_same(results("killed"), results("whole"))
    all_survive(
        "command line killed by kill -9 and resumed",
        [outcome and same for outcome in outcomes],
    )
