import os
import stat
import subprocess
import sys

import pytest

from keras_lenet.files.atomic import atomic_write


def test_the_old_file_remains_if_writing_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be flushed")
def test_the_file_is_flushed_before_its_folder(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old")
    flushed = []

    def fsync(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append(("folder" if folder else "file", path.read_text()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert flushed == [("file", "old"), ("folder", "new")]


def test_only_leftovers_of_a_killed_process_are_removed(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    left = tmp_path / f".file.{killed.pid}-new.txt"
    others = [
        f".file.{os.getppid()}-new.txt",
        f".file.{killed.pid}-new.png",
        f".other.{killed.pid}-new.txt",
        f"file.{killed.pid}-new.txt",
    ]
    for name in (left.name, *others):
        (tmp_path / name).write_text("")
    with atomic_write(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"file.txt", *others}


@pytest.mark.skipif(os.name != "posix", reason="needs rights for links")
def test_a_link_stays_and_its_target_keeps_its_mode(tmp_path):
    target = tmp_path / "target.txt"
    target.write_text("old")
    target.chmod(0o640)
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
