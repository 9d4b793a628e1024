"""What the tests of damaged and malicious files share."""

import struct
import tracemalloc

MEBIBYTE = 2**20


def idx(array, sizes=None):
    sizes = array.shape if sizes is None else sizes
    header = struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)
    return header + array.tobytes()


class limited_memory:
    """Asserts that little memory is allocated."""

    def __enter__(self):
        tracemalloc.start()

    def __exit__(self, *_):
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * MEBIBYTE
