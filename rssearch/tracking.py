"""MLflow: the record that people look at. One writer, the driver.

An experiment for each study, in it one flat run for each trial (nested runs vanish from the UI's chart view) and one
summary run. A run is found again by the trial's content key, so a resumed study never doubles one. Calls are made by a
thread of their own, one `log_batch` a report. If the server is away nothing is lost: the journal on disk holds every
result, and `close` sends what MLflow lacks.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing calls home unless the user turns it on
os.environ.setdefault("DO_NOT_TRACK", "true")
# A server that is away is noticed in seconds; results wait in the journal meanwhile.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from rssearch.journal import Record

_log = logging.getLogger(__name__)

RUN_STATUS = {"finished": "FINISHED", "infeasible": "FINISHED", "failed": "FAILED"}
RETRY_SECONDS = 30.0
_BATCH = 900  # MLflow takes at most 1,000 metrics a batch


def default_uri(storage: str | Path) -> str:
    """The tracking store of a storage folder."""
    return f"sqlite:///{Path(storage).resolve()}/mlflow.db"


class Tracker:
    """Writes one study into MLflow.

    Args:
        uri: the tracking URI.
        study: the experiment's name.
        artifacts: where a new experiment keeps its artifacts if the store is a local database; a server has its own
            place.
    """

    def __init__(self, uri: str, study: str, artifacts: Path) -> None:
        self.uri, self.study = uri, study
        self._artifacts = artifacts
        self._runs: dict[str, str] = {}  # content key -> run id
        self._complete: dict[str, str] = {}  # key -> status, of the runs that have their final metrics
        self._sent: dict[str, set[int]] = {}  # key of an open run -> the epochs that MLflow has
        self._params: dict[str, dict[str, Any]] = {}  # of new runs: they travel with the first metrics
        self._client_: MlflowClient | None = None
        self._experiment = ""
        self._away_since: float | None = None
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    # What the study says. Each returns at once.

    def open(self) -> None:
        """Connect, find the runs of earlier sessions, and close those that a killed driver left RUNNING."""
        self._queue.put(self._close_stale)

    def epoch(self, key: str, title: str, params: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """An epoch of a running trial; the first one makes its run."""
        now = _now()
        self._queue.put(lambda: self._log_epoch(key, title, params, metrics, step, now))

    def ended(self, record: Record) -> None:
        """A trial ended."""
        self._queue.put(lambda: self._log_end(record))

    def summary(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of the whole study, such as the hypervolume after `step` finished trials."""
        now = _now()
        self._queue.put(lambda: self._log_summary(metrics, step, now))

    def close(
        self,
        records: Iterable[Record],
        *,
        status: str,
        pareto: set[str] = frozenset(),  # type: ignore[assignment]
        files: Iterable[Path] = (),
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> int:
        """Send what is missing, mark the front, attach the files to the summary run, and stop.

        Returns:
            How many trials could not be sent because MLflow is away. They are sent by the next session.
        """
        listed, paths = list(records), [path for path in files if path.exists()]
        unsent = [len(listed)]

        def finish() -> None:
            self._sync(listed)
            self._mark(pareto, listed)
            run = self._summary_run()
            for path in paths:
                self._client.log_artifact(run, str(path))
            for name, value in (tags or {}).items():
                self._client.set_tag(run, name, value)
            self._log_summary(metrics or {}, len(listed), _now())
            self._client.set_terminated(run, status)
            for key in self._sent.keys() - {record["key"] for record in listed} - {self._summary_key}:
                self._client.set_terminated(self._runs[key], "KILLED")  # the session ends before the trial
            unsent[0] = 0

        self._away_since = None  # a last try, whatever was before
        self._queue.put(finish)
        self._queue.put(None)
        self._thread.join()
        return unsent[0]

    # What the thread does.

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._away_since is not None and time.monotonic() - self._away_since < RETRY_SECONDS:
                continue  # `_sync` sends from the journal what is dropped here
            try:
                job()
            except Exception as error:  # noqa: BLE001  # whatever a store or a server raises must not end the study
                if self._away_since is None:
                    _log.warning(
                        "MLflow at %s does not take results (%s); they wait in the journal",
                        self.uri,
                        _first_line(error),
                    )
                self._away_since = time.monotonic()
            else:
                self._away_since = None

    @property
    def _client(self) -> MlflowClient:
        if self._client_ is None:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            client = MlflowClient(tracking_uri=self.uri)
            experiment = client.get_experiment_by_name(self.study)
            if experiment is None:
                place = (
                    self._artifacts.resolve().as_uri()
                    if "://" in self.uri and not self.uri.startswith("http")
                    else None
                )
                try:
                    self._experiment = client.create_experiment(self.study, artifact_location=place)
                except MlflowException:  # another driver has just made it
                    experiment = client.get_experiment_by_name(self.study)
            if experiment is not None:
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment.experiment_id)
                self._experiment = experiment.experiment_id
            self._client_ = client
            self._find_runs()
        return self._client_

    def _find_runs(self) -> None:
        """Learn which runs exist. Runs that `--fresh` put away do not count."""
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment], page_token=token)
            for run in page:
                key = run.data.tags.get("rssearch.key")
                if key is None or run.data.tags.get("rssearch.superseded") == "true":
                    continue
                self._runs[key] = run.info.run_id
                if run.data.tags.get("rssearch.complete") == "true":
                    self._complete[key] = run.data.tags.get("rssearch.status", "")
            token = page.token
            if not token:
                return

    def _close_stale(self) -> None:
        for run in self._client.search_runs([self._experiment], filter_string="attributes.status = 'RUNNING'"):
            self._client.set_terminated(run.info.run_id, "KILLED")

    def supersede(self) -> None:
        """Put the study's runs away: they stay in MLflow, tagged, and the study begins anew."""

        def put_away() -> None:
            client = self._client
            for run in self._runs.values():
                client.set_tag(run, "rssearch.superseded", "true")
            self._runs.clear()
            self._complete.clear()

        self._queue.put(put_away)

    def _run(self, key: str, title: str, params: Mapping[str, Any], kind: str = "trial") -> str:
        """The run of a trial, made or opened again."""
        client = self._client
        if key not in self._runs:
            tags = {
                "rssearch.kind": kind,
                "rssearch.key": key,
                "rssearch.study": self.study,
                "rssearch.pareto": "false",
            }
            if kind == "study":
                del tags["rssearch.pareto"]
            run = client.create_run(self._experiment, tags=tags, run_name=title)
            self._runs[key] = run.info.run_id
            self._sent[key], self._params[key] = set(), dict(params)
        elif key not in self._sent:
            client.update_run(self._runs[key], status="RUNNING")
            history = client.get_metric_history(self._runs[key], "epoch")
            self._sent[key] = {m.step for m in history}
        return self._runs[key]

    @property
    def _summary_key(self) -> str:
        return f"study:{self.study}"

    def _summary_run(self) -> str:
        return self._run(self._summary_key, f"study {self.study}", {}, kind="study")

    def _log_epoch(
        self, key: str, title: str, params: Mapping[str, Any], metrics: Mapping[str, float], step: int, now: int
    ) -> None:
        self._run(key, title, params, kind="baseline" if key.startswith("baseline") else "trial")
        if step not in self._sent[key]:
            self._log(key, _metrics(metrics, step, now))
            self._sent[key].add(step)

    def _log(self, key: str, metrics: list[Any], tags: Mapping[str, str] | None = None) -> None:
        """One batch where MLflow's limit allows."""
        params = _params(self._params.pop(key, {}))
        labels = _tags(tags or {})
        for start in range(0, max(1, len(metrics)), _BATCH):
            self._client.log_batch(self._runs[key], metrics[start : start + _BATCH], params, labels)
            params, labels = [], []

    def _log_summary(self, metrics: Mapping[str, float], step: int, now: int) -> None:
        self._summary_run()
        self._log(self._summary_key, _metrics(metrics, step, now))

    def _log_end(self, record: Record) -> None:
        """The final metrics, and those epochs that have not been sent."""
        key = record["key"]
        self._run(key, record["title"], record["params"], record.get("kind", "trial"))
        now, batch = int(record["ended"] * 1000), []
        history = record.get("history") or []
        for epoch in history:
            step = int(epoch.get("epoch", 0))
            if step not in self._sent[key]:
                batch += _metrics(epoch, step, now)
        last = int(history[-1].get("epoch", 0)) if history else 0
        batch += _metrics(record["metrics"] | record.get("best", {}), last, now)
        tags = {"rssearch.status": record["status"], "rssearch.complete": "true"}
        if record.get("reason"):
            tags["rssearch.reason"] = str(record["reason"])[:4000]
        self._log(key, batch, tags)
        self._client.set_terminated(self._runs[key], RUN_STATUS[record["status"]], end_time=now)
        self._sent.pop(key, None)
        self._complete[key] = record["status"]

    def _sync(self, records: Iterable[Record]) -> None:
        for record in records:
            if self._complete.get(record["key"]) != record["status"]:
                self._log_end(record)

    def _mark(self, pareto: set[str], records: Iterable[Record]) -> None:
        """Tag the front's members, after which the UI can be filtered: ``tags.rssearch.pareto = 'true'``."""
        marked = self._client.search_runs([self._experiment], filter_string="tags.`rssearch.pareto` = 'true'")
        before = {run.data.tags.get("rssearch.key", "") for run in marked}
        for key in (before ^ pareto) & self._runs.keys():
            self._client.set_tag(self._runs[key], "rssearch.pareto", "true" if key in pareto else "false")
        for record in records:
            if record["key"] in pareto and record.get("measured"):
                now = int(record["ended"] * 1000)
                self._log(record["key"], _metrics(record["measured"], 0, now))


def _metrics(values: Mapping[str, Any], step: int, now: int) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, float(value), now, step) for name, value in _numbers(values).items()]


def _params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)[:500]) for name, value in values.items()]


def _tags(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in values.items()]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _now() -> int:
    return int(time.time() * 1000)


def serve(uri: str, storage: Path, host: str, port: int) -> int:
    """Run the MLflow UI until it is stopped, and return its exit status.

    Raises:
        InputError: there is no record in the storage.
    """
    import subprocess
    import sys

    from rssearch.errors import InputError

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise InputError(f"there is no MLflow record at {uri}; run a study with --storage {storage} first")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        host,
        "--port",
        str(port),
    ]
    # MLflow's job workers serve its generative-AI features, and outlive the server.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    try:
        return subprocess.run(command, env=os.environ | settings, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return 0
