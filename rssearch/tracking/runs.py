"""The runs of one study in MLflow, as `rssearch.tracking.writer` writes them.

Epochs are noted, and sent every few seconds (`flush`) or with the end of their trial: MLflow takes about as long for
one batch of ten epochs as for one of a single epoch. A trial that ends between two looks takes three requests.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssearch.storage import scratch
from rssearch.tracking import database
from rssearch.tracking.entities import metrics_of, params_of, tags_of
from rssearch.tracking.trouble import answers

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "infeasible": "FINISHED", "failed": "FAILED"}
PICTURE = "predictions.png"
_SUMMARY = (
    "What concerns the whole study. **Artifacts**: the front as a page, picture and tables; all trials; the YAML."
)
_PUT_AWAY = {"rssearch.pareto": "superseded", "rssearch.superseded": "true"}  # neither on the front nor beside it
_BATCH = 900  # MLflow takes at most 1,000 metrics a batch


@dataclass
class _Unsent:
    """What MLflow lacks of a run that is under way: values by their step, with the time in milliseconds."""

    title: str
    params: dict[str, Any]
    kind: str
    started: int  # milliseconds since 1970
    values: dict[int, list[tuple[Mapping[str, Any], int]]] = field(default_factory=dict)

    def metrics(self, known: Collection[int] = ()) -> list[Any]:
        """As MLflow takes them, but those of steps that it has."""
        new = [(step, *each) for step, several in self.values.items() if step not in known for each in several]
        return [metric for step, values, now in new for metric in metrics_of(values, step, now)]


class Writer:
    """The runs of one study; the arguments are those of `rssearch.tracking.Tracker`.

    `tell` hears of every step, and with it of the runs that MLflow holds whole: key, status and end.
    """

    def __init__(self, uri: str, study: str, artifacts: Path, tell: Callable[..., None] = lambda **_: None) -> None:
        self.uri, self.study = uri, study
        self._artifacts = artifacts
        self.tell = tell
        self._runs: dict[str, str] = {}  # content key -> run id
        self._complete: dict[
            str, tuple[str, int | None]
        ] = {}  # key -> status and end, of runs with their final metrics
        self._sent: dict[str, set[int]] = {}  # key of an open run -> the epochs that MLflow has
        self._params: dict[str, dict[str, Any]] = {}  # of open runs: they travel with the first metrics
        self.unsent: dict[str, _Unsent] = {}  # by key
        self._client_: MlflowClient | None = None
        self._experiment = ""
        self._new, self._superseding = True, False

    def close(
        self,
        records: list[dict[str, Any]],
        status: str,
        pareto: list[str],
        pictures: dict[str, str],
        files: list[str],
        metrics: dict[str, float],
        note: str,
        now: int,
        members: dict[str, list[str]] | None = None,
    ) -> None:
        """Send what is missing, mark the front, attach pictures, files and a note, and end all runs."""
        self.disconnect()  # a run that a slow server made after all is found now
        self._sync(records)
        self._mark(set(pareto), records)
        self._attach(pictures)
        self._attach_members(members or {})
        run = self._summary_run()
        for path in files:
            self._client.log_artifact(run, path)
            self.tell()
        self.summary(metrics, len(records), now)
        self._send(self._summary_key)
        self._client.set_tag(run, "mlflow.note.content", "\n\n".join(filter(None, [_SUMMARY, note])))
        self._client.set_terminated(run, status)
        self._end_open_runs()  # the session ends before these trials

    def disconnect(self) -> None:
        """Forget what MLflow has: the next use connects and looks.

        After an error nobody knows whether the last request was carried out.
        """
        self._client_ = None
        for known in (self._runs, self._complete, self._sent, self._params):
            known.clear()

    @property
    def _client(self) -> MlflowClient:
        if self._client_ is None:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException

            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            self._open_database()
            client = MlflowClient(tracking_uri=self.uri)
            experiment = client.get_experiment_by_name(self.study)
            if experiment is None:
                place = self._artifacts.resolve().as_uri() if database.is_database(self.uri) else None
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
            if self._superseding:
                self.supersede()
            if self._new:
                self._end_open_runs()
                self._new = False
        return self._client_

    def _open_database(self) -> None:
        """Make a database, and let its artifacts be where the storage is; a server does so itself."""
        if not database.is_database(self.uri):
            return
        database.hurry()
        if self._new:  # one that is deleted under a session is for the next one to make
            database.make(self.uri)
        path, root = database.sqlite_path(self.uri), self._artifacts.parent
        whole = path is not None and path.resolve().parent == root.resolve().parent  # it belongs to the storage
        database.settle(self.uri, root, None if whole else self.study)

    def _find_runs(self) -> None:
        """Learn which runs exist. Runs that `--fresh` put away do not count.

        A trial has two runs if a request that had timed out was carried out later; the second one is deleted.
        """
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment], order_by=["start_time ASC"], page_token=token)
            for run in page:
                key = run.data.tags.get("rssearch.key")
                if key is None or run.data.tags.get("rssearch.superseded") == "true":
                    continue
                complete = run.data.tags.get("rssearch.complete") == "true"
                if key in self._runs and (key in self._complete or not complete):
                    self._client.delete_run(run.info.run_id)
                    continue
                if key in self._runs:
                    self._client.delete_run(self._runs[key])
                self._runs[key] = run.info.run_id
                if complete:
                    self._complete[key] = (run.data.tags.get("rssearch.status", ""), run.info.end_time)
                    self.tell(sent=[key, *self._complete[key]])
            self.tell()
            token = page.token
            if not token:
                return

    def open(self) -> None:
        """Connect, and close the runs that a killed driver left RUNNING."""
        assert self._client

    def describe(self, tags: dict[str, str]) -> None:
        """Set tags of the experiment, where they are not as they should be."""
        known = self._client.get_experiment(self._experiment).tags
        for name, value in tags.items():
            if known.get(name) != value:
                self._client.set_experiment_tag(self._experiment, name, value)

    def _end_open_runs(self) -> None:
        """Close what is RUNNING: a study has one driver, and this is not yet, or no longer, its work."""
        for run in self._client.search_runs([self._experiment], filter_string="attributes.status = 'RUNNING'"):
            self._client.set_terminated(run.info.run_id, "KILLED")

    def supersede(self) -> None:
        """Put the study's runs away: they stay in MLflow, tagged, and the study starts from scratch."""
        self._superseding = True  # at the next connection, where this one fails
        client = self._client
        for run in self._runs.values():
            for name, value in _PUT_AWAY.items():
                client.set_tag(run, name, value)
        self._superseding = False
        for known in (self._runs, self._complete, self._sent, self._params):
            known.clear()

    def _run(
        self, key: str, title: str, params: Mapping[str, Any], kind: str = "trial", started: int | None = None
    ) -> str:
        """The run of a trial, made or opened again; `started` in milliseconds, if not now."""
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
                tags["mlflow.note.content"] = _SUMMARY
            run = client.create_run(self._experiment, start_time=started, tags=tags, run_name=title)
            self._runs[key] = run.info.run_id
            self._sent[key], self._params[key] = set(), dict(params)
        elif key not in self._sent:
            client.update_run(self._runs[key], status="RUNNING")
            history = client.get_metric_history(self._runs[key], "epoch")
            self._sent[key], self._params[key] = {m.step for m in history}, dict(params)
        return self._runs[key]

    @property
    def _summary_key(self) -> str:
        return f"study:{self.study}"

    def _summary_run(self) -> str:
        return self._run(self._summary_key, f"study {self.study}", {}, kind="study")

    def epoch(
        self, key: str, title: str, params: Mapping[str, Any], metrics: Mapping[str, float], step: int, now: int
    ) -> None:
        """Note an epoch of a running trial; the first one makes its run."""
        kind = "baseline" if key.startswith("baseline") else "trial"
        noted = self.unsent.setdefault(key, _Unsent(title, dict(params), kind, now))
        noted.values.setdefault(step, [(metrics, now)])

    def summary(self, metrics: Mapping[str, float], step: int, now: int) -> None:
        """Note metrics of the whole study, such as the hypervolume after `step` finished trials."""
        noted = self.unsent.setdefault(self._summary_key, _Unsent(f"study {self.study}", {}, "study", now))
        noted.values.setdefault(step, []).append((metrics, now))

    def flush(self) -> None:
        """Send what is noted, one batch for each run."""
        self._each(self._send, list(self.unsent))

    def forget_epochs(self) -> None:
        """Send no epochs that are noted: the end of a trial brings them again."""
        self.unsent = {key: noted for key, noted in self.unsent.items() if key == self._summary_key}

    def _send(self, key: str) -> None:
        noted = self.unsent[key]
        with database.one_transaction(self._client):
            self._run(key, noted.title, noted.params, noted.kind, noted.started)
            if metrics := noted.metrics(self._sent[key] if key != self._summary_key else ()):
                self._log(key, metrics)
        self._sent[key].update(noted.values)
        del self.unsent[key]
        self.tell()

    def _log(self, key: str, metrics: list[Any], tags: Mapping[str, str] | None = None) -> None:
        """One batch where MLflow's limit allows."""
        params, labels = params_of(self._params.get(key, {})), tags_of(tags or {})
        for start in range(0, max(1, len(metrics)), _BATCH):
            last = start + _BATCH >= len(metrics)  # a run is complete once all of it is there
            self._client.log_batch(self._runs[key], metrics[start : start + _BATCH], params, labels if last else [])
            params = []
        self._params.pop(key, None)

    def ended(self, record: Mapping[str, Any]) -> None:
        """The final metrics of a trial, and those of its epochs that have not been sent."""
        with database.one_transaction(self._client):
            key, now = self._end_run(record)
        self._sent.pop(key, None)
        self.unsent.pop(key, None)
        self._complete[key] = record["status"], now
        self.tell(sent=[key, record["status"], now])

    def _end_run(self, record: Mapping[str, Any]) -> tuple[str, int]:
        key = record["key"]
        started = _milliseconds(record["started"] or record["ended"])
        noted = self.unsent.get(key) or _Unsent(record["title"], record["params"], record.get("kind", "trial"), started)
        self._run(key, noted.title, noted.params, noted.kind, started)
        now, batch = _milliseconds(record["ended"]), noted.metrics(self._sent[key])
        sent = self._sent[key] | noted.values.keys()
        history = record.get("history") or []
        for epoch in history:
            step = int(epoch.get("epoch", 0))
            if step not in sent:
                batch += metrics_of(epoch, step, now - 1)  # of two values of a step MLflow shows the later one
        # MLflow shows the value of the last step, and may know epochs that a killed driver did not write down.
        last = max([*(int(epoch.get("epoch", 0)) for epoch in history), *sent], default=0)
        batch += metrics_of(record["metrics"] | record.get("best", {}), last, now)
        tags = {"rssearch.status": record["status"], "rssearch.complete": "true"}
        if record.get("reason"):
            tags["rssearch.reason"] = str(record["reason"])[:4000]
        self._log(key, batch, tags)
        self._client.set_terminated(self._runs[key], RUN_STATUS[record["status"]], end_time=now)
        return key, now

    def _sync(self, records: Iterable[Mapping[str, Any]]) -> None:
        assert self._client  # which finds the runs that are there
        known = self._complete
        self._each(self.ended, [r for r in records if known.get(r["key"]) != (r["status"], _milliseconds(r["ended"]))])

    def _each(self, send: Callable[[Any], None], things: Iterable[Any]) -> None:
        """Send one after another; those behind one that MLflow refuses, too. Raises the last refusal."""
        refused: Exception | None = None
        for thing in things:
            try:
                send(thing)
            except Exception as error:
                if not answers(error):
                    raise
                refused = error
        if refused is not None:
            raise refused

    def _mark(self, pareto: set[str], records: Iterable[Mapping[str, Any]]) -> None:
        """Tag the front's members, after which the UI can be filtered: ``tags.rssearch.pareto = 'true'``."""
        marked = self._client.search_runs([self._experiment], filter_string="tags.`rssearch.pareto` = 'true'")
        before = {run.data.tags.get("rssearch.key", "") for run in marked}
        for key in (before ^ pareto) & self._runs.keys():
            self._client.set_tag(self._runs[key], "rssearch.pareto", "true" if key in pareto else "false")
        for record in records:
            if record["key"] in pareto and record.get("measured"):
                now = _milliseconds(record["ended"])
                self._log(record["key"], metrics_of(record["measured"], 0, now))

    def _attach(self, pictures: Mapping[str, str]) -> None:
        """Attach to the runs of these trials the picture of what they predict, where it is not there yet."""
        for key, path in pictures.items():
            run = self._runs[key]
            if PICTURE not in {file.path for file in self._client.list_artifacts(run)}:
                with scratch.folder("rssearch-picture-") as folder:  # MLflow keeps a file under its own name
                    named = shutil.copyfile(path, folder / PICTURE)
                    self._client.log_artifact(run, str(named))
            self.tell()

    def _attach_members(self, members: Mapping[str, Iterable[str]]) -> None:
        """Attach to the runs of trials and baselines what they do with the test split, where it is not there yet."""
        for key, paths in members.items():
            if (run := self._runs.get(key)) is None:  # a baseline of another study
                continue
            there = {file.path for file in self._client.list_artifacts(run)}
            for path in (path for path in paths if Path(path).name not in there):
                self._client.log_artifact(run, path)
            self.tell()


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
