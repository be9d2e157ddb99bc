"""Temporary files and folders: what a killed process left of them is cleared by the next one.

Each is locked by the operating system as long as its process lives. Whoever gets the lock of one knows that nobody uses
it, on any machine that shares the folder.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RANDOM = "[a-z0-9_]{8}"  # what `tempfile` puts at the end of a name
_FILE = re.compile(rf"\.(.+)\.{_RANDOM}")


@contextmanager
def folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """An empty folder, gone at the end of the block. Those of the same prefix that killed processes left go first.

    Args:
        prefix: of its name; it says whose it is.
        parent: where it is; None: where the system keeps temporary files.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    clear_folders(prefix, place)
    handle, made = _made(lambda: _opened(tempfile.mkdtemp(prefix=prefix, dir=place)))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(handle)


def file(target: Path) -> tuple[int, Path]:
    """A new file in the folder of `target`, open for writing, to be renamed to it: its descriptor and path.

    It is in use until the descriptor is closed.
    """
    return _made(lambda: tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}."))


def clear_folders(prefix: str, place: Path) -> None:
    """Remove what killed processes left of `folder`."""
    name = re.compile(re.escape(prefix) + _RANDOM)
    for path in _left(place, lambda found: name.fullmatch(found) is not None):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def clear_files(place: Path, ours: Callable[[str], bool]) -> None:
    """Remove what killed processes left of `file` in a folder.

    Args:
        place: the folder; it need not exist.
        ours: whether files of a name, that of the target, are ours to remove.
    """
    for path in _left(place, lambda name: (found := _FILE.fullmatch(name)) is not None and ours(found[1])):
        with suppress(OSError):
            path.unlink()


def _made(make: Callable[[], tuple[int, str]]) -> tuple[int, Path]:
    """Make something and lock it; again where somebody took it for a leftover in between."""
    while True:
        try:
            handle, path = make()
        except FileNotFoundError as error:
            if error.filename is not None and Path(error.filename).parent.is_dir():
                continue  # a folder that was made, and taken for a leftover before it was opened
            raise
        with suppress(OSError):  # a file system without locks: then nobody clears anything
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(path):
            return handle, Path(path)
        os.close(handle)


def _opened(path: str) -> tuple[int, str]:
    return os.open(path, os.O_RDONLY), path


def _left(place: Path, ours: Callable[[str], bool]) -> Iterator[Path]:
    """What lies in a folder, is ours, and is used by nobody; locked while the caller has it."""
    try:
        found = [entry for entry in os.scandir(place) if ours(entry.name)]
    except OSError:
        return
    for entry in found:
        try:
            if entry.is_symlink() or entry.stat().st_uid != os.getuid():
                continue
            mode = os.O_RDWR if entry.is_file() else os.O_RDONLY  # NFS locks what is open for writing
            handle = os.open(entry.path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(entry.path)
        except OSError:  # in use, or not ours to remove
            continue
        finally:
            os.close(handle)
