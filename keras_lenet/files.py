"""Writing files so that nothing is lost, and reading files of anybody.

What is read may be damaged or made to do harm: sizes are compared with what
is really there before memory is taken, checksums are checked, and nothing is
ever executed.
"""

import codecs
import contextlib
import gzip
import io
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# What `BestModelCheckpoint` adds to the entries of a `.keras` file.
BEST_VALUE = "best_value.json"

_FACTS = "facts"
# Of what compression makes smaller than this, one refuses more than that.
_MOST_INFLATION = 100
_ALWAYS_ALLOWED = 2**24
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
_SIGNATURES = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    _GZIP: "a gzip file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"%PDF": "a PDF file",
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"BM": "a BMP picture",
    b"GIF8": "a GIF picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    # What follows is BigTIFF.
    b"II+\0": "a TIFF picture",
    b"MM\0+": "a TIFF picture",
    # Their third byte is the type of the values.
    **{bytes((0, 0, code)): "an IDX file" for code in (8, 9, 11, 12, 13, 14)},
}
# The brands of files that consist of boxes, as MP4 does.
_BRANDS = {
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
    b"heic": "an HEIC picture",
    b"heix": "an HEIC picture",
    b"hevc": "an HEIC picture",
    b"mif1": "an HEIC picture",
    b"msf1": "an HEIC picture",
}
_ADVICE = {
    "a web page": "Download the file itself.",
    "a Git LFS pointer": "Download the file itself.",
    "a gzip file": "Unpack it.",
    "a zip archive": "Unpack it.",
    "an AVIF picture": "Save it as PNG or JPEG.",
    "an HEIC picture": "Save it as PNG or JPEG.",
    "a PDF file": "Save the page as PNG or JPEG.",
}
_DAMAGED = "The file is damaged, or not what it should be."


class FileFormatError(ValueError):
    """Says what is wrong with a file, e.g. that it is damaged.

    Attributes:
        path: Path of the file.
        field: String. What in the file is wrong.
        expected: What it should be.
        received: What it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        field: str,
        expected: Any,
        received: Any,
        advice: str = _DAMAGED,
    ) -> None:
        super().__init__(
            f"{os.fspath(path)}: expected {f'{field} {expected}'.rstrip()}. "
            f"Received: {received}. {advice}"
        )
        self.path = Path(path)
        self.field = field
        self.expected = expected
        self.received = received


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a path to write to, and replaces `path` once that has succeeded.

    Whatever happens, to the process, the disk or the machine, `path` holds
    either all of the old or all of the new. What a killed process has left
    behind is removed when the same file is written the next time.

    Args:
        path: Path of the file to write. Its folder must exist.

    Yields:
        The path of a temporary file beside it, with the same suffix.

    Example:

    >>> folder = getfixture("tmp_path")
    >>> with replacing(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    # Where it is a link, what it points to is replaced, not the link.
    path = Path(os.path.realpath(path))
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-new{path.suffix}")
    try:
        yield temporary
        if path.exists():
            shutil.copymode(path, temporary)
        flush(temporary)
        temporary.replace(path)
        # Or the new name may not have reached the disk.
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    for file in path.parent.iterdir():
        match = re.fullmatch(rf"\.{stem}\.(\d+)-new{suffix}", file.name)
        if match and not _is_running(int(match[1])):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk.

    Args:
        path: Path of the file or the folder.
    """
    is_folder = path.is_dir()
    # Windows cannot.
    if is_folder and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_arrays(
    path: str | os.PathLike[str], arrays: dict[str, Array], facts: Any
) -> None:
    """Writes arrays, and what JSON can hold, into an `.npz` file, atomically.

    Args:
        path: Path of the file to write. Its folder must exist.
        arrays: Dict of names to arrays of numbers.
        facts: Dicts, lists, strings, numbers and `None`.
    """
    text = json.dumps({"names": sorted(arrays), "facts": facts}).encode()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{_FACTS: np.frombuffer(text, "uint8")}, **arrays)  # type: ignore[arg-type]


def read_arrays(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Array], Any]:
    """Reads what `write_arrays` wrote.

    Args:
        path: Path of the file.

    Returns:
        The arrays by name, and the facts.

    Raises:
        FileFormatError: When it is something else, or damaged.
    """
    arrays = read_npz(path)
    with parsing(Path(path), "a file of keras_lenet"):
        text = json.loads(arrays.pop(_FACTS).tobytes())
        # Of a damaged list of contents a part can be missing.
        if text["names"] != sorted(arrays):
            raise FileFormatError(
                path, "the arrays", text["names"], sorted(arrays)
            )
        return arrays, text["facts"]


def read_npz(
    path: str | os.PathLike[str], strings: bool = False
) -> dict[str, Array]:
    """Reads an `.npz` file of arrays of numbers.

    Args:
        path: Path of the file.
        strings: Boolean. Whether arrays of strings are read, too. Defaults to
            `False`.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: When there is no such file.
        FileFormatError: When it is something else, or damaged.
    """
    path = Path(path)
    check_kind(path, "an `.npz` file", "a zip archive")
    with path.open("rb") as file, parsing(path, "an `.npz` file"):
        arrays = {}
        with zipfile.ZipFile(file) as archive:
            for entry in checked_entries(path, archive):
                if not entry.filename.endswith(".npy"):
                    raise FileFormatError(
                        path, "arrays", "only", entry.filename
                    )
                with archive.open(entry) as member:
                    array = _read_npy(path, entry, member, strings)
                arrays[entry.filename.removesuffix(".npy")] = array
    return arrays


def checked_entries(
    path: Path, archive: zipfile.ZipFile
) -> list[zipfile.ZipInfo]:
    """Returns the entries of a zip file if they can be read safely.

    Args:
        path: Path of the file.
        archive: The same, open.

    Returns:
        List of `zipfile.ZipInfo`.

    Raises:
        FileFormatError: When one is encrypted or of an unknown compression,
            or one or all inflate to much more than they are.
    """
    entries = archive.infolist()
    size = path.stat().st_size
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise FileFormatError(
                path, entry.filename, "stored or deflated", "something else"
            )
    # What several entries share counts once.
    total = sum(entry.file_size for entry in entries)
    check_inflation(path, "the entries", total, size)
    return entries


def _read_npy(
    path: Path, entry: zipfile.ZipInfo, member: IO[bytes], strings: bool
) -> Array:
    """Reads an array; its format is described in `numpy.lib.format`."""
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
    """Reads a file in MNIST's format, IDX, of bytes.

    The format is described at the end of http://yann.lecun.com/exdb/mnist/: a
    magic number with data type and rank, the sizes, the values. The file may
    be compressed with gzip, whatever its name.

    Args:
        path: Path of the file.
        rank: Integer. How many axes the array should have.

    Returns:
        uint8 array.

    Raises:
        FileNotFoundError: When there is no such file.
        FileFormatError: When it is something else, or damaged.
    """
    path = Path(path)
    check_kind(path, "an IDX file", "an IDX file", "a gzip file")
    magic = bytes((0, 0, 8, rank))
    with path.open("rb") as plain, parsing(path, "an IDX file"):
        stored = path.stat().st_size
        compressed = plain.read(len(_GZIP)) == _GZIP
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


def check_inflation(
    path: Path,
    field: str,
    size: int,
    stored: int,
) -> None:
    """Refuses what would take much more memory than there are bytes for it.

    Args:
        path: Path of the file.
        field: String. What in the file it is.
        size: Integer. How many bytes it would take.
        stored: Integer. How many bytes of the file it has.

    Raises:
        FileFormatError: When it would, and is not small.
    """
    if size > max(_ALWAYS_ALLOWED, stored * _MOST_INFLATION):
        raise FileFormatError(
            path,
            field,
            f"of at most {_MOST_INFLATION} times their compressed size, "
            f"{stored} bytes",
            f"{size} bytes",
        )


def check_kind(path: Path, what: str, *expected: str) -> None:
    """Checks that a file begins as the expected kinds of files do.

    A file of no known kind passes, so that its reader can say more.

    Args:
        path: Path of the file.
        what: String. What the file should be, e.g. "a `.keras` file".
        *expected: Strings. The kinds it may be: "a zip archive", "a gzip
            file", "an HDF5 file", "an IDX file", "text", "a PNG picture" and
            the like.

    Raises:
        FileNotFoundError: When there is no such file.
        FileFormatError: When it is of another kind, e.g. a web page or empty.

    Example:

    >>> path = getfixture("tmp_path") / "model.keras"
    >>> _ = path.write_text("<!DOCTYPE html><title>Not Found</title>")
    >>> try:
    ...     check_kind(path, "a `.keras` file", "a zip archive")
    ... except FileFormatError as error:
    ...     error.received
    'a web page'
    """
    with path.open("rb") as file:
        kind = _kind(file.read(1024))
    if kind is not None and kind not in expected:
        raise FileFormatError(path, what, "", kind, _ADVICE.get(kind, _DAMAGED))


def _kind(start: bytes) -> str | None:
    """Returns what kind of file begins like this, if that is known."""
    if not start:
        return "an empty file"
    tags = start.lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower()
    if tags.startswith(b"<") and re.search(rb"<(html|!doctype html)", tags):
        return "a web page"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if _is_text(start):
        return "text"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "a WebP picture"
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12])
    return next(
        (
            kind
            for signature, kind in _SIGNATURES.items()
            if start.startswith(signature)
        ),
        None,
    )


def _is_text(start: bytes) -> bool:
    try:
        # A decoder that waits for more if the last character is cut off.
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(
        letter.isprintable() or letter in "\t\r\n\ufeff" for letter in text
    )


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


def _read_exactly(path: Path, field: str, size: int, file: Any) -> Array:
    values = np.empty(size, "uint8")
    count = 0
    while count < size and (chunk := file.read(min(_CHUNK, size - count))):
        values[count : count + len(chunk)] = np.frombuffer(chunk, "uint8")
        count += len(chunk)
    # Only at the end the checksum is compared.
    if count < size or file.read(1):
        received = count if count < size else "more"
        raise FileFormatError(path, field, f"of {size} bytes", received)
    return values


@contextlib.contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Makes one kind of error of the many that a damaged file can cause.

    Args:
        path: Path of the file.
        what: String. What the file should be.
    """
    try:
        yield
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(path, what, "that is whole", repr(error)) from (
            error
        )
