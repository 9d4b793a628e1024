"""Checks of untrusted HDF5 files."""

import io
import os
from pathlib import Path
from typing import Any

from keras_lenet.files.formats import FileFormatError


def check_hdf5(path: Path, content: bytes) -> None:
    """Rejects HDF5 content that links to other files or expands in memory."""
    import h5py

    def check(group: Any) -> None:
        for name in group:
            field = f"weights{group.name}/{name}"
            link = group.get(name, getlink=True)
            if type(link) is not h5py.HardLink:
                raise FileFormatError(
                    path, field, "in the file itself", type(link).__name__
                )
            part = group[name]
            if isinstance(part, h5py.Group):
                check(part)
            elif (
                part.is_virtual
                or part.external
                or part.compression
                or part.nbytes > len(content)
            ):
                raise FileFormatError(
                    path, field, "stored in full, without compression", part
                )

    with h5py.File(io.BytesIO(content)) as file:
        check(file)


def has_optimizer_state(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file of weights has the state of an optimizer."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        group = file.get("optimizer/vars")
        # Before the first step, there are only its steps and learning rate.
        return isinstance(group, h5py.Group) and len(group) > 2
