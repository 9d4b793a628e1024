"""Reading and writing files of arrays: `.npz` and IDX."""

import gzip
import json
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_lenet.files.atomic import atomic_write
from keras_lenet.files.formats import (
    GZIP,
    FileFormatError,
    check_inflation,
    check_kind,
    parsing,
)
from keras_lenet.types import Array

_FACTS = "facts"
_CHUNK = 2**20


def write_arrays(
    path: str | os.PathLike[str], arrays: dict[str, Array], facts: Any
) -> None:
    """Writes arrays and `facts`, a JSON value, to an `.npz` file atomically."""
    text = json.dumps({"names": sorted(arrays), "facts": facts}).encode()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{_FACTS: np.frombuffer(text, "uint8")}, **arrays)  # type: ignore[arg-type]


def read_arrays(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Array], Any]:
    """Reads the arrays and the facts that `write_arrays` has written."""
    arrays = read_npz(path)
    with parsing(Path(path), "a file of keras_lenet"):
        text = json.loads(arrays.pop(_FACTS).tobytes())
        # If the zip directory is damaged, entries can be missing.
        if text["names"] != sorted(arrays):
            raise FileFormatError(
                path, "the arrays", text["names"], sorted(arrays)
            )
        return arrays, text["facts"]


def read_npz(
    path: str | os.PathLike[str], strings: bool = False
) -> dict[str, Array]:
    """Reads an `.npz` file of arrays of numbers, and of `strings` if allowed.

    Unlike `numpy.load`, this bounds memory, and raises a `FileFormatError`
    whatever the damage.
    """
    path = Path(path)
    check_kind(path, "an `.npz` file", "a zip archive")
    with path.open("rb") as file, parsing(path, "an `.npz` file"):
        arrays = {}
        with zipfile.ZipFile(file) as archive:
            for entry in checked_entries(path, archive):
                name = entry.filename
                if not name.endswith(".npy"):
                    raise FileFormatError(path, "arrays", "only", name)
                with archive.open(entry) as member:
                    array = _read_npy(path, entry, member, strings)
                arrays[name.removesuffix(".npy")] = array
    return arrays


def checked_entries(
    path: Path, archive: zipfile.ZipFile
) -> list[zipfile.ZipInfo]:
    """Returns the entries of the zip file `path` if all are safe to read."""
    entries = archive.infolist()
    size = path.stat().st_size
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise FileFormatError(
                path,
                entry.filename,
                "stored or deflated, without encryption",
                "something else",
            )
    # Compare the sum with the file's size: entries may overlap in a zip bomb.
    total = sum(entry.file_size for entry in entries)
    check_inflation(path, "the entries", total, size)
    return entries


def _read_npy(
    path: Path, entry: zipfile.ZipInfo, member: IO[bytes], strings: bool
) -> Array:
    """Reads an array in the format that `numpy.lib.format` documents."""
    name = entry.filename
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    reader = readers.get(np.lib.format.read_magic(member))
    if reader is None:
        raise FileFormatError(path, name, "of format 1.0 or 2.0", "another")
    shape, fortran_order, dtype = reader(member)
    if dtype.kind not in ("biufU" if strings else "biuf"):
        expected = "of numbers or strings" if strings else "of numbers"
        raise FileFormatError(path, name, expected, f"dtype {dtype}")
    size = math.prod(shape) * dtype.itemsize
    left = entry.file_size - member.tell()
    if min(shape, default=0) < 0 or size != left:
        raise FileFormatError(
            path, name, f"of {size} bytes for shape {shape}", left
        )
    values = _read_exactly(path, name, size, member)
    array = values.view(dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")


def read_idx(path: str | os.PathLike[str], rank: int) -> Array:
    """Reads an IDX file of bytes with `rank` axes, with or without gzip.

    The format, described at the end of http://yann.lecun.com/exdb/mnist/, is a
    magic number with data type and rank, the sizes of the axes, the values.
    """
    path = Path(path)
    check_kind(path, "an IDX file", "an IDX file", "a gzip file")
    magic = bytes((0, 0, 8, rank))
    with path.open("rb") as plain, parsing(path, "an IDX file"):
        stored = path.stat().st_size
        compressed = plain.read(len(GZIP)) == GZIP
        plain.seek(0)
        file: Any = gzip.GzipFile(fileobj=plain) if compressed else plain
        header = file.read(4 + 4 * rank)
        if header[:4] != magic[: len(header)] or not header:
            raise FileFormatError(
                path, "the magic number", magic.hex(), header[:4].hex()
            )
        if len(header) < 4 + 4 * rank:
            raise FileFormatError(
                path, "a header of bytes", 4 + 4 * rank, len(header)
            )
        shape = tuple(int(n) for n in np.frombuffer(header[4:], ">u4"))
        if 0 in shape:
            raise FileFormatError(path, "sizes", "of at least 1", shape)
        size = math.prod(shape)
        if compressed:
            check_inflation(path, "values", size, stored)
        elif size != stored - len(header):
            raise FileFormatError(
                path,
                "values",
                f"of {size} bytes for sizes {shape}",
                stored - len(header),
            )
        values = _read_exactly(path, "values", size, file)
    return values.reshape(shape)


def _read_exactly(path: Path, field: str, size: int, file: Any) -> Array:
    values = np.empty(size, "uint8")
    count = 0
    while count < size and (chunk := file.read(min(_CHUNK, size - count))):
        values[count : count + len(chunk)] = np.frombuffer(chunk, "uint8")
        count += len(chunk)
    # Reading beyond the end makes `gzip` and `zipfile` verify the checksum.
    if count < size or file.read(1):
        received = count if count < size else "more"
        raise FileFormatError(path, field, f"of {size} bytes", received)
    return values
