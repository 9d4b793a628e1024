"""Checks of HDF5 files that anybody may have written."""

import io
from pathlib import Path
from typing import Any

from keras_lenet.files.formats import FileFormatError


def check_hdf5(path: Path, content: bytes) -> None:
    """Checks that nothing leads out of an HDF5 file or unfolds in memory.

    Args:
        path: Path of the file.
        content: Bytes of its HDF5 part.

    Raises:
        FileFormatError: When something does.
    """
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
                    path, field, "with its numbers as they are", part
                )

    with h5py.File(io.BytesIO(content)) as file:
        check(file)
