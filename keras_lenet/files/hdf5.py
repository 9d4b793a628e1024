"""Checks of untrusted HDF5 files."""

import io
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
