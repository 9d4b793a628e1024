"""A file is all of the old or all of the new, whatever happens."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import once
from faults import failing_calls, load, save

FOLDER = Path(__file__).parent

pytestmark = once

SAVES = """
import sys
import numpy as np
from keras_lenet.files import write_arrays

number = int(sys.argv[2])
while True:
    arrays = {f"a/{i}": np.full(20_000, number) for i in range(4)}
    write_arrays(sys.argv[1], arrays, {"number": number})
    print(number, flush=True)
    number += 1
"""

# Dies as if killed in the n-th system call of a save.
DIES = """
import sys
sys.path.insert(0, sys.argv[1])
from faults import failing_calls, save
with failing_calls(int(sys.argv[3]), None):
    save(sys.argv[2], 2)
"""


def test_a_kill_while_saving_loses_nothing(
    tmp_path, full, all_survive, generator
):
    path = tmp_path / "state.npz"
    outcomes = []
    number = 1
    for _ in range(1000 if full else 60):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(generator.random() * 0.03)
        process.kill()
        printed = process.communicate()[0].split()
        least = int(printed[-1]) if printed else number
        # What was reported as saved is there, or the one after it.
        outcomes.append(load(path) in (least, least + 1))
        number = least + 2
    all_survive("kill -9 while saving in a loop", outcomes)
    save(path, 0)
    assert list(tmp_path.iterdir()) == [path]


def test_no_system_call_that_fails_costs_the_file(tmp_path, all_survive):
    path = tmp_path / "state.npz"
    number_of_calls = 1000
    with failing_calls(number_of_calls, errno.EIO) as calls:
        save(path, 0)
    number_of_calls -= calls.left
    assert number_of_calls > 10

    outcomes = []
    for number in range(1, number_of_calls + 1):
        for error in (errno.ENOSPC, errno.EIO):
            save(path, 1)
            with pytest.raises(OSError), failing_calls(number, error):
                save(path, 2)
            outcomes.append(load(path) in (1, 2))
            outcomes[-1] &= list(tmp_path.iterdir()) == [path]
    all_survive("a system call of a save fails", outcomes)

    outcomes = []
    for number in range(1, number_of_calls + 1):
        save(path, 1)
        command = [sys.executable, "-c", DIES, FOLDER, path, str(number)]
        done = subprocess.run(command)
        outcomes.append(
            done.returncode == -signal.SIGKILL and load(path) in (1, 2)
        )
    all_survive("killed in a system call of a save", outcomes)
