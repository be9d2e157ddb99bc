"""Processes that are forked from one that has imported what they need, instead of being started.

The writer of MLflow's record takes five seconds of CPU to import MLflow, and half of one to write a small study: over a
hundred tests start one. What runs is the same `main`, in a process of its own with its own arguments, environment and
streams. `tests/tracking/test_client.py` has tests of the real command, and so has every study that a test runs by a
command of its own.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NoReturn

PROJECT = Path(__file__).parents[2]
WRITER = "rssearch.tracking.writer"
# What the writer imports when it opens a database.
IMPORTS = (
    WRITER,
    "alembic.command",
    "filelock",
    "mlflow",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking._tracking_service.client",
    "sqlalchemy.dialects.sqlite",
)


class Forked:
    """A process, as `subprocess.Popen` has one: with text in its standard input and output."""

    def __init__(self, source: Source, module: str, arguments: Sequence[str], errors: int) -> None:
        ours, theirs = socket.socketpair()
        taken, given = os.pipe()
        heard, said = os.pipe()
        about = {"module": module, "arguments": [*arguments], "cwd": os.getcwd(), "environment": dict(os.environ)}
        try:
            source.ask(about, [taken, said, errors, theirs.fileno()])
        finally:
            os.close(taken)
            os.close(said)
            theirs.close()
        self._status = ours.makefile("r")
        ours.close()
        self.stdin, self.stdout = open(given, "w"), open(heard)  # noqa: SIM115
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            # Nothing comes where the whole family was killed.
            self.returncode = int(self._status.readline() or -signal.SIGKILL)
            self._status.close()
            self.stdout.close()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Source:
    """The process that others are forked from. It ends with the one that has made it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=PROJECT, start_new_session=True)
        theirs.close()
        self._control, self._asking = ours, threading.Lock()
        atexit.register(self.end)

    def ask(self, about: dict[str, Any], descriptors: list[int]) -> None:
        text = json.dumps(about).encode()
        with self._asking:
            socket.send_fds(self._control, [len(text).to_bytes(4, "big")], descriptors)
            self._control.sendall(text)

    def end(self) -> None:
        self._control.close()
        self._process.wait()


@lru_cache(maxsize=1)
def source() -> Source:
    """The one of this process."""
    return Source()


def start_writer(study: str, place: str, errors: IO[str]) -> Forked:
    """In place of `rssearch.tracking.client.start_writer`."""
    return Forked(source(), WRITER, [study, place], errors.fileno())


def _serve(control: socket.socket) -> None:
    """Fork a process for each request, until nobody can ask any more."""
    for name in IMPORTS:
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()  # a fork has none of the others
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets those that have ended
    while True:
        head, descriptors, *_ = socket.recv_fds(control, 4, 4)
        if not head:
            return
        about = json.loads(control.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        if os.fork() == 0:
            control.close()
            _keep(about, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(about: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Fork the process, say its number, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = descriptors.pop()
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _become(about, descriptors)
    for descriptor in descriptors:  # they are to be closed once the process has ended
        os.close(descriptor)
    with suppress(BrokenPipeError):
        os.write(status, f"{pid}\n".encode())
        _, ended = os.waitpid(pid, 0)
        os.write(status, f"{os.waitstatus_to_exitcode(ended)}\n".encode())
    os._exit(0)


def _become(about: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the process that was asked for."""
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(about["cwd"])
    os.environ.clear()
    os.environ.update(about["environment"])
    tempfile.tempdir = None  # it is found in the environment
    sys.argv = [about["module"], *about["arguments"]]
    status = _ended(sys.modules[about["module"]].main)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _ended(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
