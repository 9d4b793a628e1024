"""Compiled programs that the command line keeps."""

import importlib.metadata
import os
from pathlib import Path

import pytest

from keras_lenet.cli.program_cache import use_program_cache
from tests.helpers import once

pytestmark = once

NAMES = ("JAX_COMPILATION_CACHE_DIR", "TF_XLA_FLAGS")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"KERAS_HOME": str(tmp_path / "keras")})
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.7.0")
    return tmp_path / "keras"


def test_programs_are_kept_in_the_folder_of_keras(home):
    use_program_cache()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir() and home in folder.parents
    assert os.environ["TF_XLA_FLAGS"].endswith(f"={folder}")


def test_jax_loads_no_programs_where_they_would_be_wrong(home, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6.2")
    use_program_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    assert "TF_XLA_FLAGS" in os.environ


def test_what_the_user_set_stays(home):
    for name in NAMES:
        os.environ[name] = "mine"
    use_program_cache()
    assert [os.environ[name] for name in NAMES] == ["mine", "mine"]


def test_a_home_that_is_a_file_is_no_error(home):
    home.write_text("no folder")
    use_program_cache()
    assert not os.environ.keys() & set(NAMES)
