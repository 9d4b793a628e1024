"""The arithmetic of LiteRT's integer kernels.

Reimplemented from the description in https://arxiv.org/abs/1712.05877, section
2.2, so that a C program gives the same bits as LiteRT for Microcontrollers.
"""

import math

import numpy as np

from keras_lenet.types import Array

# Differences of logits have 5 bits before the point, and 26 after it.
_INTEGER_BITS = 5
_ONE = 2**31 - 1


def as_multiplier(factor: float) -> tuple[int, int]:
    """Returns integers: `factor` is `multiplier * 2**(shift - 31)`."""
    fraction, shift = math.frexp(factor)
    multiplier = round(fraction * 2**31)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def exps(scale: float) -> Array:
    """Returns the exponentials that softmax uses.

    Args:
        scale: Float. The scale of the logits.

    Returns:
        int32 array of 256 values: `2**31 * exp(-scale * i)`, as the kernel
        rounds it, and 0 where it takes the difference `i` for infinite.
    """
    factor = min(scale * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1)
    multiplier, shift = as_multiplier(factor)
    radius = (2**_INTEGER_BITS - 1) * 2 ** (31 - _INTEGER_BITS) // 2**shift
    return np.array(
        [
            _exp(_product(-i * 2**shift, multiplier)) if i <= radius else 0
            for i in range(256)
        ],
        "int32",
    )


def _product(a: int, b: int) -> int:
    """Returns `a * b / 2**31`, rounded half away from zero."""
    doubled = a * b
    nudge = 2**30 if doubled >= 0 else 1 - 2**30
    total = doubled + nudge
    return total // 2**31 if total >= 0 else -(-total // 2**31)


def _shift_right(x: int, bits: int) -> int:
    """Returns `x / 2**bits`, rounded half away from zero."""
    mask = 2**bits - 1
    return (x >> bits) + int((x & mask) > (mask >> 1) + (x < 0))


def _exp(x: int) -> int:
    """Returns `exp(x / 2**26)`, times `2**31`, for `x <= 0`."""
    if x == 0:
        return _ONE
    bits = 31 - _INTEGER_BITS
    quarter = 2 ** (bits - 2)
    rest = (x & (quarter - 1)) - quarter
    result = _exp_of_quarter(max(rest * 2**_INTEGER_BITS, -(2**31)))
    remainder = rest - x
    # exp(-1/4), exp(-1/2), exp(-1), ... exp(-16), times 2**31.
    for exponent, factor in zip(
        range(-2, _INTEGER_BITS),
        (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242),
        strict=True,
    ):
        if remainder & 2 ** (bits + exponent):
            result = _product(result, factor)
    return result


def _exp_of_quarter(x: int) -> int:
    """Returns `exp(x)` for x from -1/4 to 0, by a series around -1/8."""
    x += 2**28
    x2 = _product(x, x)
    x3, x4 = _product(x2, x), _product(x2, x2)
    third = 715827883
    series = _shift_right(
        _product(_shift_right(x4, 2) + x3, third) + x2,
        1,
    )
    # exp(-1/8), times 2**31.
    middle = 1895147668
    return min(middle + _product(middle, x + series), _ONE)
