"""Compares results of any kind."""

import keras
import numpy as np

TOLERANCE = 1e-5


def assert_same(received, expected, atol=TOLERANCE, path="result"):
    """Asserts that two results agree, numbers up to a tolerance.

    Args:
        received: Nested dicts, lists and tuples of arrays, tensors, numbers,
            strings, types, `History`, `None`.
        expected: The same.
        atol: Number. How far apart numbers may be, absolute or relative.
        path: String. Where the results are, for the message.
    """
    received, expected = _as_plain(received), _as_plain(expected)
    assert type(received) is type(expected), (
        f"{path}: {received!r} instead of {expected!r}"
    )
    if isinstance(expected, dict):
        assert sorted(map(str, received)) == sorted(map(str, expected)), path
        for key, value in expected.items():
            assert_same(received[key], value, atol, f"{path}[{key!r}]")
    elif isinstance(expected, list):
        assert len(received) == len(expected), (
            f"{path}: {_shortened(received)} instead of {_shortened(expected)}"
        )
        for index, value in enumerate(expected):
            assert_same(received[index], value, atol, f"{path}[{index}]")
    elif isinstance(expected, np.ndarray):
        for name in ("shape", "dtype"):
            values = getattr(received, name), getattr(expected, name)
            assert values[0] == values[1], f"{path}: {name} {values}"
        if expected.dtype.kind in "OSUV":
            assert (received == expected).all(), path
        else:
            _assert_close(
                received.astype("float64"),
                expected.astype("float64"),
                atol,
                path,
            )
    elif isinstance(expected, float):
        _assert_close(np.array(received), np.array(expected), atol, path)
    else:
        assert received == expected, (
            f"{path}: {received!r} instead of {expected!r}"
        )


def _as_plain(value):
    """Returns a dict, list, array, float or what it is."""
    if isinstance(value, keras.callbacks.History):
        return {"history": value.history, "epoch": value.epoch}
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, float, np.number)):
        return float(value)
    if keras.ops.is_tensor(value) or isinstance(value, keras.Variable):
        value = keras.ops.convert_to_numpy(value)
    if isinstance(value, np.ndarray) and value.dtype == "bfloat16":
        return value.astype("float32")
    return value


def _assert_close(received, expected, atol, path):
    close = np.isclose(received, expected, atol, atol, equal_nan=True)
    if close.all():
        return
    at = np.unravel_index(close.argmin(), close.shape)
    raise AssertionError(
        f"{path}: {received[at]} instead of {expected[at]}, and so "
        f"{(~close).sum()} of {close.size} numbers"
    )


def _shortened(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}..."
