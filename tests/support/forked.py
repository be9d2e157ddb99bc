"""Processes that are forked from one that has imported what they need, instead of being started.

The writer of MLflow's record takes five seconds of CPU to import MLflow, and half of one to write a small study: over a
hundred tests start one. What runs is the same `main`, in a process of its own with its own arguments, environment and
streams. `tests/tracking/test_client.py` has tests of the real command, and so has every study that a test runs by a
command of its own. A driver takes as long to import Ray Tune, and is forked where one is killed twenty times.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

PROJECT = Path(__file__).parents[2]
WRITER, DRIVER = "rssearch.tracking.writer", "tests.support.forked_driver"
# What they import when they are at work.
WRITER_IMPORTS = (
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
DRIVER_IMPORTS = (DRIVER, "rssearch.backend.tune", "rssearch.study.run")


class Forked:
    """A process, with what the tests use of `subprocess.Popen`."""

    def __init__(
        self, source: Source, module: str, arguments: Sequence[str], streams: Sequence[int], cwd: str | None = None
    ) -> None:
        self._status, theirs = socket.socketpair()
        about = {
            "module": module,
            "arguments": [*arguments],
            "cwd": cwd or os.getcwd(),
            "environment": dict(os.environ),
        }
        with theirs:
            source.ask(about, [*streams, theirs.fileno()])
        self.pid = self._number() or 0
        assert self.pid, "the process that it should be forked from has died"
        self.returncode: int | None = None

    def _number(self) -> int | None:
        found = self._status.recv(4, socket.MSG_WAITALL)
        return int.from_bytes(found, "big", signed=True) if len(found) == 4 else None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            ended = self._number()
            self.returncode = -signal.SIGKILL if ended is None else ended  # None: with its whole family
            self._status.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedWriter(Forked):
    """A writer of MLflow's record, with pipes to its streams."""

    def __init__(self, source: Source, study: str, place: str, errors: IO[str]) -> None:
        taken, given = os.pipe()
        heard, said = os.pipe()
        try:
            super().__init__(source, WRITER, [study, place], [taken, said, errors.fileno()])
        finally:
            os.close(taken)
            os.close(said)
        self.stdin, self.stdout = open(given, "w"), open(heard)  # noqa: SIM115

    def wait(self, timeout: float | None = None) -> int:
        ended = super().wait(timeout)
        self.stdout.close()
        return ended


class Source:
    """The process that others are forked from. It ends with the one that has made it."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._asking = control, threading.Lock()

    @classmethod
    def start(cls, imports: Sequence[str]) -> Source:
        """A new one that imports modules first."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), *imports]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=PROJECT, start_new_session=True)
        atexit.register(process.wait)
        atexit.register(ours.close)  # first
        return cls(ours)

    def ask(self, about: dict[str, Any], descriptors: list[int]) -> None:
        text = json.dumps(about).encode()
        with self._asking:
            socket.send_fds(self._control, [len(text).to_bytes(4, "big")], descriptors)
            self._control.sendall(text)


@cache
def source(imports: Sequence[str]) -> Source:
    """The one of this process for some modules."""
    return Source.start(imports)


def start_writer(study: str, place: str, errors: IO[str]) -> ForkedWriter:
    """In place of `rssearch.tracking.client.start_writer`."""
    return ForkedWriter(source(WRITER_IMPORTS), study, place, errors)


def start_driver(arguments: Sequence[str], console: IO[bytes]) -> Forked:
    """`rssearch search` with these arguments."""
    with open(os.devnull) as nothing:
        streams = [nothing.fileno(), console.fileno(), console.fileno()]
        return Forked(source(DRIVER_IMPORTS), DRIVER, arguments, streams, str(PROJECT))


def _serve(control: socket.socket) -> None:
    """Fork a process for each request, until nobody can ask any more."""
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
    with suppress(OSError):  # who asked is gone
        os.write(status, pid.to_bytes(4, "big"))
        _, ended = os.waitpid(pid, 0)
        os.write(status, os.waitstatus_to_exitcode(ended).to_bytes(4, "big", signed=True))
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
    for name in sys.argv[2:]:
        importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))
