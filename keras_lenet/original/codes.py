"""The connection table and the output codes of the 1998 paper."""

from typing import Any

import numpy as np

# The maps of S2 that each map of C3 sees (table I).
TABLE = tuple(
    tuple(map(int, sources))
    for sources in (
        "012 123 234 345 045 015 0123 1234 2345 0345 0145 0125 0134 1245 0235 "
        "012345"
    ).split()
)

# The codes of the digits (figure 3), 7x12 pixels: `#` is 1 and `.` is -1.
_CODES = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def codes() -> np.ndarray[Any, Any]:
    """Returns the codes of the ten digits.

    The codes are drawings of the digits
    (https://doi.org/10.1109/5.726791, figure 3), so similar digits have similar
    codes.

    Returns:
        float32 array of shape `(10, 84)`, values 1 and -1: the 12 rows of 7
        pixels of each digit.

    Example:

    >>> from keras_lenet.original import codes
    >>> codes().shape, codes()[0, :7].astype(int).tolist()
    ((10, 84), [-1, 1, 1, 1, 1, 1, -1])
    """
    rows = [map(list, row.split()) for row in _CODES.split("\n") if row]
    is_ink = np.array([list(row) for row in rows]) == "#"
    pixels = np.where(is_ink, 1, -1).astype("float32")
    return np.asarray(pixels.transpose(1, 0, 2).reshape(10, 84))
