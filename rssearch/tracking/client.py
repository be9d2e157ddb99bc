"""MLflow: the record that people look at. One writer for each study, fed by the driver alone.

An experiment for each study, in it one flat run for each trial (nested runs vanish from the UI's chart view) and one
summary run. A run is found again by the trial's content key, so a resumed study never doubles one. If the server is
away nothing is lost: the journal on disk holds every result, and `close` sends what MLflow lacks.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn

from rssearch.errors import InputError
from rssearch.escaping import printable
from rssearch.storage import uris
from rssearch.storage.location import Location
from rssearch.tracking import database, views
from rssearch.tracking.views import TRIALS

if TYPE_CHECKING:
    from rssearch.storage.records import TrialRecord

_log = logging.getLogger(__name__)
# Seconds of waiting for the writer: between two words about it, without a sign of it, and at most.
_WORD, _SILENCE, _LIMIT = 10.0, 120.0, 600.0
APP = "rssearch"  # the entry point of `rssearch.tracking.server`
_PATIENCE = 10.0  # seconds for a server to end by itself


def default_uri(storage: str | Path) -> str:
    """The tracking store of a storage folder."""
    return f"sqlite:///{Path(storage).resolve()}/mlflow.db"


def home(storage: Location, uri: str | None) -> tuple[str, Path]:
    """The tracking store of a storage, and the folder of the artifacts where that is a local database.

    Raises:
        InputError: the storage is an object store, where no database can be, and no other place is given; or the
            secrets of the URI are masked.
    """
    uris.check_whole(uri, "tracking_uri", "--tracking-uri")
    if isinstance(storage, Path):
        return uri or default_uri(storage), storage / "mlartifacts"
    if uri is None or not uri.startswith(("http://", "https://", "sqlite:///")):
        raise InputError(
            f"tracking_uri: {uris.masked(uri or 'null')}: MLflow's database cannot be in {storage}; set tracking_uri "
            "(--tracking-uri) to a server, http://HOST:5000, or to a file of this machine, sqlite:////PATH/mlflow.db"
        )
    return uri, Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"


def start_writer(study: str, place: str, errors: IO[str]) -> subprocess.Popen[str]:
    """Start the process that writes a study: artifacts go to `place`, what goes wrong in it to `errors`."""
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "rssearch.tracking.writer", study, place],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,  # Ctrl-C is for the driver; the writer ends when its input does
    )


class Tracker:
    """Feeds the process that writes one study into MLflow. Every call but `close` returns at once.

    Args:
        uri: the tracking URI.
        study: the experiment's name.
        artifacts: where a new experiment keeps its artifacts if the store is a local database; a server has its own
            place.
    """

    def __init__(self, uri: str, study: str, artifacts: Path) -> None:
        self.uri = uri
        place = str(artifacts.resolve())
        if (file := database.sqlite_path(uri)) is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        self._process = start_writer(study, place, self._errors)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lines.put(json.dumps(uri) + "\n")  # no argument: others see those, and it may have a password
        # A thread of its own waits where the pipe is full; another hears the replies.
        self._feeder = threading.Thread(target=self._feed, name="mlflow feeder", daemon=True)
        self._hearer = threading.Thread(target=self._hear, name="mlflow hearer", daemon=True)
        self._heard = time.monotonic()
        self._sent: dict[str, tuple[str, int | None]] = {}  # key -> status and end of the runs that MLflow holds whole
        self._closed: dict[str, Any] | None = None  # what was wrong at the end
        self._feeder.start()
        self._hearer.start()

    def open(self) -> None:
        """Connect, find the runs of earlier sessions, and close those that a killed driver left RUNNING."""
        self._say("open")

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment, such as its description and its saved views."""
        self._say("describe", tags=dict(tags))

    def supersede(self) -> None:
        """Put the study's runs away: they stay in MLflow, tagged, and the study starts from scratch."""
        self._say("supersede")

    def epoch(self, key: str, title: str, params: Mapping[str, Any], metrics: Mapping[str, Any], step: int) -> None:
        """An epoch of a running trial; the first one makes its run."""
        self._say("epoch", key=key, title=title, params=dict(params), metrics=dict(metrics), step=step, now=_now())

    def ended(self, record: TrialRecord) -> None:
        """A trial ended."""
        self._say("ended", record=record.to_json())

    def summary(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of the whole study, such as the hypervolume after `step` finished trials."""
        self._say("summary", metrics=dict(metrics), step=step, now=_now())

    def close(
        self,
        records: Iterable[TrialRecord],
        *,
        status: str,
        pareto: Iterable[str] = (),
        pictures: Mapping[str, Path] | None = None,
        members: Mapping[str, Iterable[Path]] | None = None,
        files: Iterable[Path] = (),
        metrics: Mapping[str, float] | None = None,
        note: str = "",
    ) -> int:
        """Send what is missing, mark the front, attach pictures to its runs and the files to the summary run, and stop.

        `members` are further files of runs, by their keys: those of trials and of baselines. The summary run's
        description ends with the `note`, in Markdown.

        Returns:
            How many of the trials MLflow lacks, see `left`.
        """
        listed = list(records)
        self._say(
            "close",
            records=[record.to_json() for record in listed],
            status=status,
            pareto=sorted(pareto),
            pictures={key: str(path.resolve()) for key, path in (pictures or {}).items()},
            members={key: [str(path.resolve()) for path in paths] for key, paths in (members or {}).items()},
            files=[str(path.resolve()) for path in files if path.exists()],
            metrics=dict(metrics or {}),
            note=note,
            now=_now(),
        )
        self._end()
        return sum(self._sent.get(r.key) != (r.status, int(r.ended * 1000)) for r in listed)

    def left(self, unsent: int, journal: Location) -> str | None:
        """What to say at the end of a session whose `close` gave this number; None where MLflow has everything."""
        wrong = self._closed or {}
        if not unsent and self._closed == {}:
            return None
        runs = "1 run waits" if unsent == 1 else f"{unsent} runs wait"
        if wrong.get("lasts"):
            missing = f"{runs} in {journal}" if unsent else "every run was sent, but not all files of this session"
            return f"MLflow does not take results, and will not until this is mended: {wrong['why']}; {missing}"
        if unsent:
            return f"MLflow was away: {runs} in {journal}; the next `rssearch search` sends them"
        return "MLflow was away at the end: every run was sent; the next `rssearch search` sends this session's files"

    def abandon(self) -> None:
        """Stop at once; what has not been written is lost to MLflow, as when its place is gone."""
        self._lines.put(None)
        self._process.kill()
        self._feeder.join()
        self._hearer.join()
        self._process.wait()
        self._errors.close()

    def _end(self) -> None:
        """Close the writer's input, and wait until it has written all that it was told, or gives no sign of life."""
        self._lines.put(None)
        self._wait()
        self._feeder.join()
        self._hearer.join()
        if self._process.wait() != 0:
            self._errors.seek(0)
            last = uris.hidden((self._errors.read().strip().splitlines() or ["no message"])[-1], self.uri)
            _log.warning("the writer of MLflow's record died (%s); results wait in the journal", last)
        self._errors.close()

    def _wait(self) -> None:
        begun = said = time.monotonic()
        while self._hearer.is_alive():
            self._hearer.join(0.5)
            now = time.monotonic()
            left = min(begun + _LIMIT, max(begun, self._heard) + _SILENCE) - now
            if left < 0:
                _log.warning("MLflow at %s is too slow: its writer is stopped", uris.masked(self.uri))
                self._process.kill()
                return
            if now - said > _WORD:
                said = now
                runs = f"{len(self._sent)} run{'' if len(self._sent) == 1 else 's'}"
                _log.warning("waiting for MLflow, which has %s by now; at most %d s more", runs, left)

    def _say(self, name: str, **arguments: Any) -> None:
        self._lines.put(json.dumps([name, arguments]) + "\n")

    def _feed(self) -> None:
        assert self._process.stdin is not None
        try:
            while (line := self._lines.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            self._process.stdin.close()
        except BrokenPipeError:  # the writer died; `_end` says why
            return

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply, self._heard = json.loads(line), time.monotonic()
            if "away" in reply:
                why, lasts = reply["away"]["why"], reply["away"]["lasts"]
                then = "they stay in the journal until this is mended" if lasts else "they wait in the journal"
                _log.warning("MLflow at %s does not take results (%s); %s", uris.masked(self.uri), why, then)
            if "sent" in reply:
                key, status, end = reply["sent"]
                self._sent[key] = status, end
            self._closed = reply.get("closed", self._closed)


def _now() -> int:
    return int(time.time() * 1000)


def check_recorded(uri: str, storage: Location) -> None:
    """Make sure that a local database is there and sound, and that its artifacts are where the storage is now.

    Raises:
        InputError: it is not there, or cannot be used.
    """
    if database.is_database(uri):
        database.hurry()
    path = database.sqlite_path(uri)
    if path is None:
        return
    if not path.is_file():
        raise InputError(f"there is no MLflow record at {uris.masked(uri)}; run a study with --storage {storage} first")
    database.check(uri)
    root = home(storage, uri)[1]
    if path.resolve().parent == root.resolve().parent:
        database.settle(uri, root)


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Tell in one sentence, without secrets, what goes wrong where MLflow looks into a tracking store."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a store, a driver of a database or a server raises
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"MLflow cannot open {uris.masked(uri)}: {uris.hidden(text, uri)}") from None


def addresses(uri: str, server: str) -> list[tuple[str, str]]:
    """The studies of a tracking store, and where a server's UI shows their trials.

    Raises:
        InputError: MLflow cannot open the store.
    """
    from mlflow import MlflowClient

    with opening(uri):
        found = MlflowClient(tracking_uri=uri).search_experiments()
    described = [e for e in found if f"mlflow.sharedViewState.{TRIALS}" in e.tags]
    return [(e.name, views.address(server, e.experiment_id)) for e in described]


def serve(uri: str, storage: Location, host: str, port: int) -> int:
    """Say where each study is in the MLflow UI, run it until it is stopped, and return its exit status.

    Raises:
        InputError: there is no record in the storage.
    """
    check_recorded(uri, storage)
    for study, address in addresses(uri, f"http://{host}:{port}"):
        sys.stdout.write(f"{printable(study)}: {address}\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    if any(point.name == APP for point in metadata.entry_points(group="mlflow.app")):
        command += ["--app-name", APP]  # not where the package is on the path without being installed
    # The URI is no argument: others see those. MLflow's job workers serve its generative-AI features.
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return _run_until_stopped(command, os.environ | settings)


def _run_until_stopped(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a program; with Ctrl-C or a signal it ends, and so do all processes that it has started."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in signals}
    process = None
    try:
        process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
        return process.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for number in signals:  # the first one is being obeyed
            signal.signal(number, signal.SIG_IGN)
        if process is not None:
            _end_group(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and what is left of its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
