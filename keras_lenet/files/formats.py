"""Detecting kinds of files, and reporting errors in them."""

import codecs
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Reject data above this compression ratio, unless they are small.
_MAX_RATIO = 100
_SMALL = 2**24

GZIP = b"\x1f\x8b"

_TEXTS = {
    "an empty file": rb"\Z",
    "a web page": rb"(?i)[\xef\xbb\xbf \t\r\n]*(?=<).*<(html|!doctype html)",
    "a Git LFS pointer": rb"version https://git-lfs",
}

_SIGNATURES = {
    "a zip archive": rb"PK(\x03\x04|\x05\x06)",
    "a gzip file": re.escape(GZIP),
    "an HDF5 file": rb"\x89HDF\r\n\x1a\n",
    "a PDF file": rb"%PDF",
    "a PNG picture": rb"\x89PNG\r\n\x1a\n",
    "a JPEG picture": rb"\xff\xd8\xff",
    "a BMP picture": rb"BM",
    "a GIF picture": rb"GIF8",
    # A plus marks BigTIFF.
    "a TIFF picture": rb"II[*+]\0|MM\0[*+]",
    "a WebP picture": rb"RIFF.{4}WEBP",
    "an AVIF picture": rb".{4}ftypavi[fs]",
    "an HEIC picture": rb".{4}ftyp(heic|heix|hevc|mif1|msf1)",
    # The third byte is the data type.
    "an IDX file": rb"\0\0[\x08\x09\x0b-\x0e]",
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
    """Raised if a file is damaged or is not what it should be.

    Attributes:
        path: Path of the file.
        field: String. The part of the file that is wrong.
        expected: What that part should be.
        received: What it is, or the error that it causes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        field: str,
        expected: Any,
        received: Any,
        advice: str = _DAMAGED,
    ) -> None:
        # Messages of wrapped errors may bring their own full stop.
        super().__init__(
            f"{os.fspath(path)}: expected {f'{field} {expected}'.rstrip()}. "
            f"Received: {str(received).removesuffix('.')}. {advice}"
        )
        self.path: Path = Path(path)
        self.field = field
        self.expected = expected
        self.received = received


def check_inflation(path: Path, field: str, size: int, stored: int) -> None:
    """Rejects data that take much more memory than they take in the file."""
    if size > max(_SMALL, stored * _MAX_RATIO):
        raise FileFormatError(
            path,
            field,
            f"of at most {_MAX_RATIO} times their compressed size, "
            f"{stored} bytes",
            f"{size} bytes",
        )


def check_kind(path: Path, what: str, *expected: str) -> None:
    """Rejects a file that begins like another kind of file than `expected`.

    Files of unknown kinds pass; their reader reports errors in more detail.
    Kinds are "text" and the keys of `_TEXTS` and `_SIGNATURES`.

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
    """Returns the kind of a file from its first bytes, or `None`."""

    def find(patterns: dict[str, bytes]) -> str | None:
        for kind, pattern in patterns.items():
            if re.match(pattern, start, re.DOTALL):
                return kind
        return None

    return find(_TEXTS) or ("text" if _is_text(start) else find(_SIGNATURES))


def _is_text(start: bytes) -> bool:
    try:
        # `bytes.decode` would reject a last character that is cut off.
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(
        letter.isprintable() or letter in "\t\r\n\ufeff" for letter in text
    )


@contextlib.contextmanager
def parsing(path: Path, what: str) -> Iterator[None]:
    """Turns any error that a damaged file causes into a `FileFormatError`."""
    try:
        yield
    except FileFormatError:
        raise
    except Exception as error:
        received = repr(error)
        raise FileFormatError(path, what, "that is intact", received) from error
