"""A training that was interrupted becomes the one that was not."""

import csv
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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
        resumed = train(path, again, freq="epoch", verbose=0)
        outcomes.append(are_same(resumed, whole))
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

    def run(folder):
        arguments = [*command, "--output", folder, "--resume"]
        return subprocess.Popen(
            arguments,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run_and_kill(folder, times):
        outcomes = []
        for _ in range(times):
            process = run(folder)
            # Anywhere in the first steps that it makes, or goes on with.
            lines = generator.integers(1, 12)
            for line in process.stdout:
                lines -= line.startswith("step ")
                if not lines:
                    break
            process.kill()
            process.communicate()
            outcomes.append(process.returncode == -signal.SIGKILL)
        process = run(folder)
        process.communicate()
        return [process.returncode == 0, *outcomes]

    # At the same time, for there is more than one core.
    times = {"whole": 0, "first": 30 if full else 3, "other": 20 if full else 2}
    with ThreadPoolExecutor() as pool:
        ended = dict(
            zip(
                times,
                pool.map(run_and_kill, times, times.values()),
                strict=True,
            )
        )
    outcomes = []
    for folder in ("first", "other"):
        same = are_same(results(folder), results("whole"))
        outcomes += [same and end for end in ended[folder][1:]]
    assert all(end[0] for end in ended.values())
    all_survive("command line killed by kill -9 and resumed", outcomes)
