import pytest


@pytest.fixture
def images(generator):
    return generator.integers(0, 256, (23, 28, 28, 1)).astype("uint8")


@pytest.fixture
def labels(generator):
    return generator.integers(0, 10, 23)
