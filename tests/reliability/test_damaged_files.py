"""Damaged files are rejected."""

import gzip

import numpy as np

from keras_lenet import LeNet5
from keras_lenet.files import FileFormatError
from keras_lenet.files.arrays import (
    read_arrays,
    read_idx,
    read_npz,
    write_arrays,
)
from keras_lenet.saving import load_model
from tests.helpers import on_default_backend
from tests.reliability.helpers import idx, limited_memory

pytestmark = on_default_backend


def mutate(content, generator):
    """Returns the content with a random kind of damage."""
    content = bytearray(content)
    kind = generator.integers(6)
    # Put half of the damage into the header, where it has most effect.
    end = min(len(content), 64) if generator.random() < 0.5 else len(content)
    at = int(generator.integers(end))
    if kind == 0:
        content[at] ^= 1 << generator.integers(8)
    elif kind == 1:
        content[at] = generator.integers(256)
    elif kind == 2:
        content[at : at + 4] = generator.bytes(4)
    elif kind == 3:
        del content[at:]
    elif kind == 4:
        content[at:at] = generator.bytes(int(generator.integers(1, 30)))
    else:
        del content[at : at + int(generator.integers(1, 30))]
    return bytes(content)


def read_or_reject(read, *arguments):
    """Returns the content, or `None` if it is rejected with a good error."""
    try:
        return read(*arguments)
    except FileFormatError as error:
        text = str(error)
        assert "expected" in text and "Received: " in text
        assert str(error.path) in text
        return None


def test_damaged_idx_files_are_rejected(tmp_path, full, all_survive, generator):
    images = generator.integers(0, 256, (9, 5, 7)).astype("uint8")
    plain = idx(images)
    cases = [plain[:size] for size in range(len(plain))]
    packed = [gzip.compress(plain, level) for level in (0, 6)]
    packed.append(packed[0][:3] + b"\x18" + packed[0][4:])
    packed_cases = [p[:size] for p in packed for size in range(len(p))]
    number = (1_000_000 if full else 20_000) - len(cases) - len(packed_cases)
    path = tmp_path / "images"
    outcomes = []
    with limited_memory():
        for content in cases:
            path.write_bytes(content)
            outcomes.append(read_or_reject(read_idx, path, 3) is None)
        for _ in range(number // 2):
            content = mutate(plain, generator)
            path.write_bytes(content)
            array = read_or_reject(read_idx, path, 3)
            # There is no checksum, so damaged pixels cannot be detected.
            fine = content[4:16] == plain[4:16] and len(content) == len(plain)
            outcomes.append(array is None or fine or idx(array) == content)
        path = tmp_path / "images.gz"
        for content in packed_cases:
            path.write_bytes(content)
            outcomes.append(read_or_reject(read_idx, path, 3) is None)
        for index in range(number - number // 2):
            path.write_bytes(mutate(packed[index % 2], generator))
            array = read_or_reject(read_idx, path, 3)
            outcomes.append(array is None or np.array_equal(array, images))
    all_survive("malformed IDX and gzip files", outcomes)


def test_damaged_npz_and_keras_files_are_rejected(
    tmp_path, full, all_survive, generator
):
    arrays = {
        "a": generator.random((3, 4)).astype("float32"),
        "b/c": generator.integers(0, 256, 50).astype("uint8"),
    }
    path = tmp_path / "state.npz"
    write_arrays(path, arrays, {"step": 1})
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    outcomes = []
    with limited_memory():
        for name, read in (
            ("state.npz", lambda path: read_arrays(path)[0]),
            ("packed.npz", read_npz),
        ):
            content = (tmp_path / name).read_bytes()
            for _ in range(4000 if full else 400):
                path.write_bytes(mutate(content, generator))
                found = read_or_reject(read, path)
                # Only files of this package have a known list of arrays.
                whole = name != "state.npz" or set(found or arrays) == set(
                    arrays
                )
                outcomes.append(
                    found is None
                    or (
                        whole
                        and all(
                            np.array_equal(found[k], arrays[k]) for k in found
                        )
                    )
                )

    model = LeNet5(3, (8, 8, 1))
    path = tmp_path / "model.keras"
    model.save(path)
    content = path.read_bytes()
    for _ in range(2000 if full else 200):
        path.write_bytes(mutate(content, generator))
        found = read_or_reject(load_model, path)
        outcomes.append(
            found is None
            or all(
                np.array_equal(a, b)
                for a, b in zip(
                    found.get_weights(), model.get_weights(), strict=True
                )
            )
        )
    all_survive("malformed npz, state and .keras files", outcomes)
