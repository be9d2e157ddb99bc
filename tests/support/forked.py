"""Processes that are forked from one that has imported what they need, instead of being started.

The writer of MLflow's record takes five seconds of CPU to import MLflow, and half of one to write a small study: over a
hundred tests start one. What runs is the same `main`, in a process of its own with its own arguments, environment and
streams. `tests/tracking/test_client.py` has tests of the real command, and so have those of the command line.

`rssearch` itself takes as long to import Ray Tune and torch. It is forked where one is killed twenty times, where eight
run at once, and where the commands of a how-to are run: there a script of that name stands for it (`script`).

Workers of Ray import Ray twice, and torch: four seconds of CPU, and each study has its own. A Ray that is started by a
process of the tests, or by a forked command, forks them: it calls `tests/support/ray_worker.py`, which has the process
forked that does what Ray's own script does, and waits for it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

PROJECT = Path(__file__).parents[2]
WRITER, COMMAND = "rssearch.tracking.writer", "tests.support.forked_command"
WRITERS, COMMANDS = "FORKED_WRITERS", "FORKED_COMMANDS"  # variables with the descriptor of a source
RAY_WORKER, RAY_WORKERS = "tests.support.forked_ray_worker", "FORKED_RAY_WORKERS"  # a variable with the path of one
_DOOR = "door:"  # before the descriptor of a socket that others connect to
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
COMMAND_IMPORTS = (
    COMMAND,
    "onnx",
    "rssearch.backend.tune",
    "rssearch.bundle.exporting",
    "rssearch.report.files",
    "rssearch.study.run",
    "rssearch.trials.prune",
    "torchvision",
)
RAY_WORKER_IMPORTS = (
    RAY_WORKER,
    "ray._private.workers.default_worker",
    "ray.tune",
    "ray.train.torch",
    "rssearch.backend.trainable",
    "rssearch.study.run",
    "rssearch.trials.channel_nas",
    "rssearch.trials.prune",
    "torchvision",
)


class Forked:
    """A process, with what the tests use of `subprocess.Popen`."""

    def __init__(
        self,
        source: Source,
        module: str,
        arguments: Sequence[str],
        streams: Sequence[int],
        *,
        cwd: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self._status, theirs = socket.socketpair()
        about = {
            "module": module,
            "arguments": [*arguments],
            "cwd": cwd or os.getcwd(),
            "environment": {**os.environ, **(more or {})},
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
    def start(
        cls, imports: Sequence[str], *known: Source, also: Sequence[int] = (), more: Mapping[str, str] | None = None
    ) -> Source:
        """A new one that imports modules first; what it forks can ask those that are known."""
        # A request is one message: several processes may ask.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), *imports]
            given = [theirs.fileno(), *(each.number for each in known), *also]
            environment = {**os.environ, **(more or {})}
            process = subprocess.Popen(command, pass_fds=given, cwd=PROJECT, env=environment, start_new_session=True)
        atexit.register(process.wait)
        atexit.register(ours.close)  # first
        return cls(ours)

    @classmethod
    def open_to_all(cls, imports: Sequence[str], path: Path) -> Source:
        """A new one that whoever knows the path of its socket can ask, see `tests/support/ray_worker.py`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(str(path))
            door.listen(64)
            os.set_inheritable(door.fileno(), True)
            # Ray's own code reads them when it is imported: no job yet, and whose end a worker is to look out for.
            more = {"RAY_JOB_ID": "f" * 8, "RAY_RAYLET_PID": str(os.getpid())}
            return cls.start([f"{_DOOR}{door.fileno()}", *imports], also=[door.fileno()], more=more)

    @classmethod
    def inherited(cls, number: str) -> Source:
        """One that the process that has started this one knew by this number."""
        return cls(socket.socket(fileno=int(number)))

    @property
    def number(self) -> int:
        return self._control.fileno()

    def ask(self, about: dict[str, Any], descriptors: list[int]) -> None:
        text = json.dumps(about).encode()
        with self._asking:
            assert socket.send_fds(self._control, [text], descriptors) == len(text)


@cache
def writers() -> Source:
    """The source of writers of this process."""
    return Source.start(WRITER_IMPORTS)


@cache
def commands() -> Source:
    """The source of commands of this process."""
    return Source.start(COMMAND_IMPORTS, writers())


@cache
def ray_workers() -> str:
    """Where this process's source of Ray's workers can be asked."""
    folder = tempfile.mkdtemp(prefix="rssearch-forked-")
    atexit.register(shutil.rmtree, folder)
    path = Path(folder) / "workers"
    Source.open_to_all(RAY_WORKER_IMPORTS, path)
    return str(path)


@cache
def fork_ray_workers(path: str) -> None:
    """Let each Ray that this process starts from now on fork its workers.

    Args:
        path: from `ray_workers`.
    """
    from ray._private.parameter import RayParams

    os.environ[RAY_WORKERS] = path
    update = RayParams.update_if_absent

    def changed(self: RayParams, **given: Any) -> None:
        if "setup_worker_path" in given:
            given["setup_worker_path"] = str(PROJECT / "tests" / "support" / "ray_worker.py")
        update(self, **given)

    RayParams.update_if_absent = changed  # type: ignore[method-assign]


def start_writer(study: str, place: str, errors: IO[str]) -> ForkedWriter:
    """In place of `rssearch.tracking.client.start_writer`."""
    return ForkedWriter(writers(), study, place, errors)


def start_driver(arguments: Sequence[str], console: IO[bytes]) -> Forked:
    """`rssearch search` with these arguments, in the project's folder."""
    with open(os.devnull) as nothing:
        streams = [nothing.fileno(), console.fileno(), console.fileno()]
        more = {WRITERS: str(writers().number), RAY_WORKERS: ray_workers()}
        return Forked(commands(), COMMAND, ["search", *arguments], streams, cwd=str(PROJECT), more=more)


# `rssearch`, as a shell finds it: it asks for a process, hands signals on to it, and ends as it ends.
_SCRIPT = f"""#!{sys.executable} -I
import os, signal, sys
sys.path.insert(0, {str(PROJECT)!r})
from tests.support.forked import COMMAND, COMMANDS, Forked, Source
source = Source.inherited(os.environ.pop(COMMANDS))
process = Forked(source, COMMAND, sys.argv[1:], [0, 1, 2])
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, lambda number, _: process.send_signal(number))
sys.exit(process.wait())
"""


def script(folder: Path) -> tuple[dict[str, str], list[int]]:
    """Put a script `rssearch` into a folder; the variables and descriptors that it needs."""
    path = folder / "rssearch"
    path.write_text(_SCRIPT)
    path.chmod(0o755)
    numbers = {WRITERS: writers().number, COMMANDS: commands().number}
    found = {name: str(number) for name, number in numbers.items()} | {RAY_WORKERS: ray_workers()}
    return found, list(numbers.values())


def _serve(control: socket.socket, door: socket.socket | None) -> None:
    """Fork a process for each request, until nobody can ask any more."""
    assert threading.active_count() == 1, threading.enumerate()  # a fork has none of the others
    gc.collect()
    gc.freeze()  # so that the pages stay shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets those that have ended
    while True:
        asking, *_ = select.select([control, *([door] if door else [])], [], [])
        own = [each for each in (control, door) if each]
        if control in asking:
            text, descriptors, *_ = socket.recv_fds(control, 2**20, 4)
            if not text:
                return
        else:
            assert door is not None
            asked, _ = door.accept()
            text, descriptors, *_ = socket.recv_fds(asked, 2**20, 4)
            descriptors.append(asked.detach())
        if text and os.fork() == 0:
            for each in own:
                each.close()
            _keep(json.loads(text), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(about: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Fork the process, say its number, and how it ended. One that is `bound` ends with who asked for it."""
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
        watched = _watched(pid) if about.get("bound") else None
        if watched is not None and watched not in select.select([watched, status], [], [])[0]:
            os.kill(pid, signal.SIGKILL)
        _, ended = os.waitpid(pid, 0)
        os.write(status, os.waitstatus_to_exitcode(ended).to_bytes(4, "big", signed=True))
    os._exit(0)


def _watched(pid: int) -> int | None:
    """A descriptor that can be read once a child has ended; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _become(about: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the process that was asked for."""
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # As those of a new process they stay open when others take their place.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
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
    open_door = None
    for name in sys.argv[2:]:
        if name.startswith(_DOOR):
            open_door = socket.socket(fileno=int(name.removeprefix(_DOOR)))
        else:
            importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])), open_door)
