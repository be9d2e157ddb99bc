"""PostgreSQL and MLflow as real servers of this machine, for tests; each is ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.forked import Forked

PATIENCE = 180.0  # seconds; a loaded machine is slow


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_until(ready: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, f"{what}: {log.read_text(errors='replace')[-3000:]}"
        time.sleep(0.1)


def end_family(process: subprocess.Popen[bytes] | Forked, number: signal.Signals) -> None:
    """Signal a process, and see to it that its children are gone, too."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=0.5)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=10)


class Server:
    """A process that can be stopped and started again on the same port and files."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, start_new_session=True, env=self.environment()
            )
        process = self._process

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            return self.answers()

        wait_until(ready, f"{self.name} does not answer", self.log)

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            end_family(self._process, number)
        self._process = None


class Postgres(Server):
    """PostgreSQL with an empty database. It refuses to run as root, and is another user's then."""

    name = "postgres"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = folder / "data"
        self.user = [] if os.geteuid() != 0 else ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if self.user:
            self._let_in()
            shutil.chown(folder, "nobody", "nogroup")
        how = ["--username=mlflow", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        initdb = [*self.user, _postgres("initdb"), "-D", str(self.data), *how]
        done = subprocess.run(initdb, cwd=folder, capture_output=True, text=True, env=self.environment(), check=False)
        assert done.returncode == 0, done.stderr

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg://mlflow@127.0.0.1:{self.port}/postgres"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C", "HOME": str(self.folder)}

    def _let_in(self) -> None:
        """Pytest's folders are for their owner alone, and another run of it makes them so again."""
        for parent in (self.folder, *self.folder.parents):
            if parent.stat().st_uid == 0 and parent != Path("/") and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)

    def command(self) -> list[str]:
        if self.user:
            self._let_in()
        settings = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder), "-F"]
        return [*self.user, _postgres("postgres"), "-D", str(self.data), *settings]

    def answers(self) -> bool:
        import psycopg

        try:
            self.rows("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="mlflow", dbname="postgres", connect_timeout=10
        ) as connection:
            return connection.execute(query).fetchall()

    def database(self, name: str) -> str:
        """The URI of a new, empty database."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": "mlflow", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.uri.removesuffix("postgres") + name


class MlflowServer(Server):
    """MLflow's tracking server, which keeps artifacts in a folder of its own."""

    name = "mlflow"

    def __init__(self, folder: Path, store: str) -> None:
        super().__init__(folder)
        self.store = store

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def command(self) -> list[str]:
        where = ["--backend-store-uri", self.store, "--artifacts-destination", str(self.folder / "artifacts")]
        how = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "2"]
        return [sys.executable, "-m", "mlflow", "server", *where, *how]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=10) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _postgres(program: str) -> str:
    """The path of a program of PostgreSQL, which Debian keeps out of PATH."""
    places = [shutil.which(program), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}")))]
    found = [place for place in places if place]
    if not found:
        pytest.skip(f"{program} of PostgreSQL is not installed")
    return found[-1]
