"""Writing files atomically."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


def check_file(path: Path, name: str, suffix: str = "") -> None:
    """Checks, before any work is done, that `path` can be written to.

    `name` is the name of the argument, for the error message.
    """
    if (
        path.is_dir()
        or not os.access(path.parent, os.W_OK | os.X_OK)
        or not path.name.endswith(suffix)
    ):
        ending = f" whose name ends in {suffix}" if suffix else ""
        raise ValueError(
            f"`{name}` must be a file{ending}, in a folder that exists and can "
            f"be written to. Received: {name}={str(path)!r}"
        )


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to, then replaces `path` with it.

    If the process, the disk or the machine fails, `path` still holds either
    all of the old or all of the new content. The next write of the same file
    removes what a killed process has left behind. The folder must exist.

    Example:

    >>> folder = getfixture("tmp_path")
    >>> with atomic_write(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    # Replace the target of a link, not the link.
    path = Path(os.path.realpath(path))
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-new{path.suffix}")
    try:
        yield temporary
        if path.exists():
            shutil.copymode(path, temporary)
        flush(temporary)
        temporary.replace(path)
        # Without this, the new name may not survive a power failure.
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    for file in path.parent.iterdir():
        match = re.fullmatch(rf"\.{stem}\.(\d+)-new{suffix}", file.name)
        if match and not _is_running(int(match[1])):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    # Windows cannot flush folders.
    if is_folder and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
