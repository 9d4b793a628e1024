"""A file holds all of the old or all of the new content."""

import errno
import json
import subprocess
import sys

import pytest

from tests.helpers import on_default_backend
from tests.reliability import faults
from tests.reliability.faults import failing_calls, load, save

pytestmark = on_default_backend


def inject(kills, path, number):
    command = [sys.executable, faults.__file__, kills, str(path), str(number)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def test_a_kill_while_saving_keeps_the_file(tmp_path, full, all_survive):
    path = tmp_path / "state.npz"
    outcomes = inject("killed_while_saving", path, 1000 if full else 60)
    all_survive("kill -9 while saving in a loop", outcomes)
    save(path, 0)
    assert list(tmp_path.iterdir()) == [path]


# NumPy 2.0 leaves a `ZipFile` open if `savez` fails.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*ZipFile")
def test_a_failing_system_call_keeps_the_file(tmp_path, all_survive):
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

    outcomes = inject("killed_in_calls", path, number_of_calls)
    all_survive("killed in a system call of a save", outcomes)
