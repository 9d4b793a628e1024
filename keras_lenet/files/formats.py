"""What kind of file a file is, and errors in files."""

import codecs
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of what compression makes smaller than this, one refuses more than that.
_MOST_INFLATION = 100


_ALWAYS_ALLOWED = 2**24


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
