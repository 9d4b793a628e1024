"""System calls that fail while a file is saved.

This is imported by many processes, so it imports little.
"""

import io
import os
import signal

import numpy as np

from keras_lenet import files


def load(path):
    """Returns what a file holds, which must be of one save."""
    arrays, facts = files.read_arrays(path)
    numbers = {int(n) for array in arrays.values() for n in np.unique(array)}
    assert numbers == {facts["number"]} and len(arrays) == 4
    return facts["number"]


def save(path, number):
    arrays = {f"a/{i}": np.full(2_000, number) for i in range(4)}
    files.write_arrays(path, arrays, {"number": number})


class failing_calls:
    """Lets the n-th system call fail, or the process die in it."""

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
                # A disk that is full, or a process that dies, takes a part.
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
