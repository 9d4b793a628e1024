"""Reading pictures from files."""

import contextlib
import math
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from keras_lenet.files.formats import FileFormatError, check_kind, parsing
from keras_lenet.types import Array

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WebP")


# The largest sensors of cameras have 200 megapixels, an A4 page of 1200 dpi
# 139.
_MOST_PIXELS = 200_000_000


# Above this, half of the rows and columns are enough for a character.
_ENOUGH_PIXELS = 2**26


_STRIP_PIXELS = 2**22


# `Image.MAX_IMAGE_PIXELS` belongs to the whole process.
_LOCK = threading.Lock()


def load_picture(path: str | os.PathLike[str]) -> Array:
    """Reads a picture from a file.

    The picture is turned as the camera says. A transparent picture is put on
    white, or on black if nothing drawn on it would show on white. Grey values
    of 16 or 32 bits or floats are scaled to [0, 255] from the smallest of
    [0, 1], [0, 255] and [0, 65535] that holds them, others from their own
    range. A picture of more than 67 megapixels is halved in height and width.

    Args:
        path: Path of a PNG, JPEG, BMP, GIF, TIFF or WebP file of at most 200
            megapixels.

    Returns:
        uint8 array of shape `(height, width, 3)`, red, green and blue in
        [0, 255].

    Raises:
        FileNotFoundError: When there is no such file.
        keras_lenet.files.FileFormatError: When it is something else, damaged
            or too large.
    """
    path = Path(path)
    what = f"a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} picture"
    check_kind(path, what, *(f"a {name} picture" for name in _FORMATS))
    with path.open("rb") as stream, parsing(path, what), _large_allowed():
        try:
            # Pillow starts other programs to read some other formats.
            file = Image.open(stream, formats=_FORMATS)
        except (
            Image.DecompressionBombWarning,
            Image.DecompressionBombError,
        ) as error:
            raise FileFormatError(
                path,
                "at most",
                f"{_MOST_PIXELS:,} pixels",
                str(error).rstrip("."),
                "Reduce its height and width.",
            ) from error
        if math.prod(file.size) > _ENOUGH_PIXELS:
            # JPEG can be decoded smaller.
            file.draft(None, (file.width // 2, file.height // 2))
        file.load()
        factor = 2 if math.prod(file.size) > _ENOUGH_PIXELS else 1
        pixels = _read(path, file, factor)
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1:
            image = Image.fromarray(pixels)
            image.getexif()[ExifTags.Base.Orientation] = orientation
            pixels = np.asarray(ImageOps.exif_transpose(image))
        return pixels


@contextlib.contextmanager
def _large_allowed() -> Iterator[None]:
    """Makes Pillow refuse pictures above `_MOST_PIXELS`, and none below."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = _MOST_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _read(path: Path, image: Image.Image, factor: int) -> Array:
    """Returns red, green and blue, with `factor` times fewer rows and columns.

    Strips are converted one by one, since a copy of a whole page in another
    mode takes hundreds of megabytes.
    """
    if image.mode.startswith(("I", "F")):
        image = _as_bytes(path, image)
    transparent = image.has_transparency_data
    paper = _paper(image) if transparent else "white"
    height, width = (math.ceil(side / factor) for side in image.size[::-1])
    pixels = np.empty((height, width, 3), "uint8")
    row = 0
    for strip in _strips(image):
        strip = _put_on(paper, strip) if transparent else strip.convert("RGB")
        part = np.asarray(strip.reduce(factor))
        pixels[row : row + len(part)] = part
        row += len(part)
    return pixels


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """Yields the picture from top to bottom, an even number of rows each."""
    rows = max(2, _STRIP_PIXELS // image.width // 2 * 2)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield image.crop((0, top, image.width, bottom))


def _as_bytes(path: Path, image: Image.Image) -> Image.Image:
    """Scales grey values of more than 8 bits to [0, 255]."""

    def values(strip: Image.Image) -> Array:
        array = np.asarray(strip)
        # Pillow reads unsigned integers of 32 bits as signed ones.
        return array.view("uint32") if unsigned else array

    tags = getattr(image, "tag_v2", {})
    sample_format = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))
    unsigned = image.mode == "I" and bool(tags) and sample_format[0] == 1
    low, high = 0.0, 65535.0
    if image.mode in ("I", "F"):
        arrays = map(values, _strips(image))
        ranges = np.array([(array.min(), array.max()) for array in arrays])
        low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
        if not math.isfinite(high - low):
            raise FileFormatError(path, "pixels", "that are finite", "others")
        tops = [top for top in (1.0, 255.0, 65535.0) if high <= top]
        if low >= 0 and tops:
            low, high = 0.0, tops[0]
    unit = (high - low) / 255 or 1
    grey = np.empty(image.size[::-1], "uint8")
    row = 0
    for strip in _strips(image):
        # Multiples of 1 / 255 can lie just below them in float32.
        part = (values(strip).astype("float64") - low) / unit + 1e-3
        grey[row : row + len(part)] = np.clip(part, 0, 255)
        row += len(part)
    return Image.fromarray(grey)


def _paper(image: Image.Image) -> str:
    """Returns the colour that shows what is on a transparent picture."""
    on_white, on_black = 0, 0
    for strip in _strips(image):
        darkest = int(np.asarray(_put_on("white", strip)).min())
        brightest = int(np.asarray(_put_on("black", strip)).max())
        on_white = max(on_white, 255 - darkest)
        on_black = max(on_black, brightest)
    # White ink whose edges fade to transparent black shows a little on white.
    return "black" if on_black > 3 * on_white else "white"


def _put_on(paper: str, image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    under = Image.new("RGBA", image.size, paper)
    return Image.alpha_composite(under, image).convert("RGB")
