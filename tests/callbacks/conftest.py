import pytest

from tests.callbacks.helpers import DATA


@pytest.fixture
def data():
    return DATA


@pytest.fixture
def path(tmp_path):
    return tmp_path / "training.npz"
