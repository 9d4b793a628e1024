"""Loading pictures from files."""

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

# The largest camera sensors have 200 megapixels, an A4 page at 1200 dpi 139.
_MAX_PIXELS = 200_000_000

# Above this, every second row and column suffices for a character.
_MAX_UNREDUCED_PIXELS = 2**26

_STRIP_PIXELS = 2**22

# `Image.MAX_IMAGE_PIXELS` is global, so set it in one thread at a time.
_LOCK = threading.Lock()


def load_picture(path: str | os.PathLike[str]) -> Array:
    """Loads a picture from a file.

    The picture is rotated as its EXIF orientation says. A transparent picture
    is placed on white, or on black if its contents would not show on white.
    Grey values of 16 or 32 bits, or floats, are scaled to [0, 255] from the
    smallest of [0, 1], [0, 255] and [0, 65535] that contains them, otherwise
    from their own range. Pictures of more than 67 megapixels are halved in
    height and width.

    Args:
        path: Path of a PNG, JPEG, BMP, GIF, TIFF or WebP file of at most 200
            megapixels.

    Returns:
        uint8 array of shape `(height, width, 3)`: red, green and blue in
        [0, 255].

    Raises:
        FileNotFoundError: If there is no such file.
        keras_lenet.files.FileFormatError: If the file is damaged, too large
            or not such a picture.
    """
    path = Path(path)
    what = f"a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} picture"
    check_kind(path, what, *(f"a {name} picture" for name in _FORMATS))
    with path.open("rb") as stream, parsing(path, what), _max_pixels():
        try:
            # Allow no other formats: Pillow runs external programs for some.
            file = Image.open(stream, formats=_FORMATS)
        except (
            Image.DecompressionBombWarning,
            Image.DecompressionBombError,
        ) as error:
            raise FileFormatError(
                path,
                "at most",
                f"{_MAX_PIXELS:,} pixels",
                error,
                "Reduce its height and width.",
            ) from error
        if math.prod(file.size) > _MAX_UNREDUCED_PIXELS:
            # JPEG decoders can reduce the size themselves.
            file.draft(None, (file.width // 2, file.height // 2))
        file.load()
        factor = 2 if math.prod(file.size) > _MAX_UNREDUCED_PIXELS else 1
        pixels = _read(path, file, factor)
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1:
            image = Image.fromarray(pixels)
            image.getexif()[ExifTags.Base.Orientation] = orientation
            pixels = np.asarray(ImageOps.exif_transpose(image))
        return pixels


@contextlib.contextmanager
def _max_pixels() -> Iterator[None]:
    """Sets the size above which Pillow rejects pictures to `_MAX_PIXELS`."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _read(path: Path, image: Image.Image, factor: int) -> Array:
    """Returns red, green and blue, reduced by `factor` along each axis.

    Strips are converted one at a time: a copy of a whole page in another mode
    would take hundreds of megabytes.
    """
    if image.mode.startswith(("I", "F")):
        image = _as_bytes(path, image)
    background = _background(image) if image.has_transparency_data else None
    height, width = (math.ceil(side / factor) for side in image.size[::-1])
    pixels = np.empty((height, width, 3), "uint8")
    row = 0
    for strip in _strips(image):
        flat = _flatten(strip, background) if background else strip
        part = np.asarray(flat.convert("RGB").reduce(factor))
        pixels[row : row + len(part)] = part
        row += len(part)
    return pixels


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """Yields the picture from top to bottom, in strips of even height."""
    rows = max(2, _STRIP_PIXELS // image.width // 2 * 2)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield image.crop((0, top, image.width, bottom))


def _as_bytes(path: Path, image: Image.Image) -> Image.Image:
    """Scales grey values of more than 8 bits to [0, 255]."""

    def values(strip: Image.Image) -> Array:
        array = np.asarray(strip)
        # Pillow reads unsigned 32-bit integers as signed ones.
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
            raise FileFormatError(
                path, "pixels", "that are finite", "NaN or infinity"
            )
        tops = [top for top in (1.0, 255.0, 65535.0) if high <= top]
        if low >= 0 and tops:
            low, high = 0.0, tops[0]
    unit = (high - low) / 255 or 1
    grey = np.empty(image.size[::-1], "uint8")
    row = 0
    for strip in _strips(image):
        # In float32, multiples of 1 / 255 can be slightly too small.
        part = (values(strip).astype("float64") - low) / unit + 1e-3
        grey[row : row + len(part)] = np.clip(part, 0, 255)
        row += len(part)
    return Image.fromarray(grey)


def _background(image: Image.Image) -> str:
    """Returns the colour on which a transparent picture's contents show."""
    on_white, on_black = 0, 0
    for strip in _strips(image):
        darkest = int(np.asarray(_flatten(strip, "white"))[..., :3].min())
        brightest = int(np.asarray(_flatten(strip, "black"))[..., :3].max())
        on_white = max(on_white, 255 - darkest)
        on_black = max(on_black, brightest)
    # White ink whose edges fade to transparent black shows a little on white.
    return "black" if on_black > 3 * on_white else "white"


def _flatten(image: Image.Image, background: str) -> Image.Image:
    image = image.convert("RGBA")
    under = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(under, image)
