"""Failing system calls and kills while a file is saved.

    python faults.py killed_while_saving|killed_in_calls PATH NUMBER

This forks, so it must run in a process without TensorFlow.
"""

import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from keras_lenet.files import arrays as array_files


def load(path):
    """Returns the number in a file, and asserts that one save wrote it all."""
    arrays, facts = array_files.read_arrays(path)
    numbers = {int(n) for array in arrays.values() for n in np.unique(array)}
    assert numbers == {facts["number"]} and len(arrays) == 4
    return facts["number"]


def save(path, number, size=2_000):
    arrays = {f"a/{i}": np.full(size, number) for i in range(4)}
    array_files.write_arrays(path, arrays, {"number": number})


class failing_calls:
    """Fails the n-th system call, or kills the process in it."""

    def __init__(self, number, error):
        self.left = number
        self.error = error

    def count(self):
        self.left -= 1
        if self.left == 0:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.error, os.strerror(self.error))

    def __enter__(self):
        failing = self

        class File(io.FileIO):
            def write(self, data):
                # A full disk or a killed process leaves a partial write.
                if failing.left == 1:
                    super().write(bytes(data)[: len(data) // 2])
                failing.count()
                return super().write(data)

        def opened(path, mode="r", *args, **kwargs):
            failing.count()
            if "w" not in mode or "b" not in mode:
                return self.open(path, mode, *args, **kwargs)
            return io.BufferedWriter(File(path, mode))

        def counted(function):
            def call(*args, **kwargs):
                failing.count()
                return function(*args, **kwargs)

            return call

        self.open, io.open = io.open, opened
        self.functions = {
            name: getattr(os, name)
            for name in ("open", "fsync", "close", "replace", "chmod")
        }
        for name, function in self.functions.items():
            setattr(os, name, counted(function))
        return self

    def __exit__(self, *_):
        io.open = self.open
        for name, function in self.functions.items():
            setattr(os, name, function)


def killed_while_saving(path, times):
    """Returns, for each kill, whether a complete file was left."""
    outcomes = []
    number = 1
    for _ in range(times):
        reads, reports = os.pipe()
        process = os.fork()
        while process == 0:
            save(path, number, size=20_000)
            os.write(reports, number.to_bytes(4, "big"))
            number += 1
        os.close(reports)
        reported = os.read(reads, 4)
        time.sleep(random.random() * 0.03)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        while more := os.read(reads, 4):
            reported = more
        os.close(reads)
        number = int.from_bytes(reported, "big")
        # The file holds the last reported save, or the one after it.
        outcomes.append(load(path) in (number, number + 1))
        number += 2
    return outcomes


def killed_in_calls(path, number_of_calls):
    """Returns, for a kill in each call, whether a complete file was left."""
    outcomes = []
    for number in range(1, number_of_calls + 1):
        save(path, 1)
        process = os.fork()
        if process == 0:
            with failing_calls(number, None):
                save(path, 2)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        killed = os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        outcomes.append(killed and load(path) in (1, 2))
    return outcomes


if __name__ == "__main__":
    inject, path, number = sys.argv[1:]
    print(json.dumps(globals()[inject](Path(path), int(number))))
