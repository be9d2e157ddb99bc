"""Turns of the trials on one machine: many may train at the same time, but one that measures is alone.

Two files in the machine's temporary folder, locked by the operating system (flock), which frees the locks of a process
that dies. Who trains has a share of ``turn``; who measures has all of it, and closes the ``gate`` meanwhile, so that
those who give up their share at the end of an epoch do not take it again before the waiting one has measured.

Nobody may wait for another trial while it has a share. So a share is held around the training alone, and not while a
trial waits for a baseline that another one trains.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def home() -> Path:
    """The folder of the two files: one for each user of the machine."""
    return Path(tempfile.gettempdir()) / f"rssearch-turns-{os.getuid()}"


@contextmanager
def training(folder: Path | None = None) -> Iterator[Callable[[], None]]:
    """Have a share of the machine; waits while another trial measures.

    Yields:
        What gives those who want to measure their turn, called between two epochs.
    """
    folder = folder or home()
    with _file(folder, "turn") as turn:

        def enter() -> None:
            with _file(folder, "gate") as gate:
                fcntl.flock(gate, fcntl.LOCK_SH)
                fcntl.flock(turn, fcntl.LOCK_SH)

        def yield_turn() -> None:
            fcntl.flock(turn, fcntl.LOCK_UN)
            enter()

        enter()
        yield yield_turn


@contextmanager
def measuring(folder: Path | None = None) -> Iterator[None]:
    """Have the machine alone, among those that take turns; waits until those who train end their epoch."""
    folder = folder or home()
    with _file(folder, "gate") as gate, _file(folder, "turn") as turn:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@contextmanager
def _file(folder: Path, name: str) -> Iterator[IO[bytes]]:
    """A file to lock; it is unlocked when it is closed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab") as file:
        yield file
        fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file as well
