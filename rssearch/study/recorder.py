"""What happens in a study, written down: the journal, MLflow, the display, trials.csv, the report."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rssearch.front import references, seeds
from rssearch.front.trials import Row, front_rows, fronts
from rssearch.metrics import human, title_of
from rssearch.report import files as report
from rssearch.report.tables import cut_table
from rssearch.storage import scratch
from rssearch.storage.journal import Journal, dimension_columns, flat
from rssearch.storage.location import Location, local_copies, names, remove, write_atomic
from rssearch.storage.records import Status, TrialRecord
from rssearch.study import devices, member_files
from rssearch.study.definition import StudyDefinition
from rssearch.study.progress import Display, best_text
from rssearch.tracking.client import Tracker
from rssearch.trial.interface import CHECKPOINTS, DEPLOYED, PREDICTIONS
from rssearch.trial.jobs import Job, Outcome

MODELS = "models"
_OURS = re.compile(
    r"study\.yaml|environment\.json|(trials|means|per_class)\.csv|front\.\w+"
)  # in the folder of a study
_REPORT_SECONDS = 5.0  # between two writings of trials.csv while trials end
_FRONT_SECONDS = 0.5  # between two looks at the front
_NOTE = 4000  # letters; MLflow takes 5,000 in a description
_SHARE = 0.05  # of the time, at most, for each of the two: both take longer with every trial


def clear_leftovers(definition: StudyDefinition) -> None:
    """Remove the temporary files of sessions that were killed while they wrote, unless somebody uses them."""
    if isinstance(definition.folder, Path):
        scratch.clear_files(definition.folder, lambda name: _OURS.fullmatch(name) is not None)
        scratch.clear_files(definition.folder / PREDICTIONS, lambda name: name.endswith(".png"))
    member_files.clear(definition.folder)
    definition.store.clear_leftovers()


BASELINE_FAILED = "its baseline failed"  # how the reason of a trial begins that could not start for it


class Recorder:
    """Takes every event of a session once, and keeps all records of it in step."""

    def __init__(self, definition: StudyDefinition, journal: Journal, tracker: Tracker, display: Display) -> None:
        self.definition, self.journal, self.tracker, self.display = definition, journal, tracker, display
        self.records: dict[str, TrialRecord] = {r.key: r for r in definition.current(journal)}
        self.interrupted: dict[str, TrialRecord] = {r.key: r for r in definition.current(journal, "running")}
        objectives, scale = definition.config.search.objectives, references.scale(definition.config)
        self.references = references.read(definition.folder, objectives, scale)
        self._live: dict[str, dict[str, Any]] = {}
        self._front_pace, self._csv_pace = _Pace(_FRONT_SECONDS), _Pace(_REPORT_SECONDS)
        self._finished_seen = -1
        self._members = self.front()

    # events

    def begin(self, key: str, title: str) -> None:
        """A job is on a worker."""
        self._alive(key)
        self.display.running(key, title)

    def _alive(self, key: str) -> dict[str, Any]:
        """What is known of a running job; its epochs begin with those of an interrupted session."""
        before = self.interrupted[key].history if key in self.interrupted else []
        return self._live.setdefault(key, {"started": time.time(), "history": [*before]})

    def step(self, key: str, metrics: Mapping[str, Any]) -> int:
        """The number of an epoch that a job reports now."""
        return int(metrics.get("epoch") or len(self._alive(key)["history"]) + 1)

    def record_rung(self, job: Job, metrics: Mapping[str, Any]) -> None:
        """A trial continues after a rung: what it was compared by is kept, should the session end before the trial."""
        history = [*self._alive(job.key)["history"], _plain(metrics)]
        if job.key in self.journal.records:
            self.journal.extend(job.key, history=history)
        else:
            self.journal.add(TrialRecord(job.key, job.point, kind="running", history=history))

    def epoch(
        self, key: str, title: str, params: Mapping[str, Any], metrics: Mapping[str, Any], epochs: int | None = None
    ) -> None:
        """A job reported an epoch, of so many where that is known."""
        plain, step = _plain(metrics), self.step(key, metrics)
        history = self._alive(key)["history"]
        while history and history[-1].get("epoch", 0) >= step:  # a worker died, and its trial went some epochs back
            history.pop()
        history.append(plain)
        self.tracker.epoch(key, title, params, plain, step)
        known = [name for name in ("val_accuracy", "val_miou", "val_map") if isinstance(plain.get(name), float)]
        shown = "".join(f", {name} {plain[name]:.3f}" for name in known)
        of = f"/{epochs}" if epochs else ""
        self.display.running(key, title, f"epoch {step}{of}{shown}", step, epochs)

    def trial_ended(self, job: Job, outcome: Outcome) -> None:
        """A trial ended: finished, stopped, failed or infeasible."""
        title = self.definition.title(job.point)
        self._record("trial", job, title, self.definition.params(job.point), outcome)
        self.records[job.key] = self.definition.completed(self.journal.records[job.key])
        self.look_at_front(now=self.display.left <= 1)
        self.display.ended(job.key, outcome.status)
        if outcome.status is Status.FAILED:
            known = str(outcome.reason).startswith(BASELINE_FAILED)  # said when the baseline failed
            self.display.say(f"failed: {title}: {BASELINE_FAILED if known else outcome.reason}")
        if outcome.status is Status.FINISHED:
            self.display.say(self._finished(self.records[job.key]))
        self._notes(title, outcome)
        if self._csv_pace.is_due():
            self._write_csv()

    def _finished(self, record: TrialRecord) -> str:
        """A finished trial in a line: its point, its objectives, and whether it is on the front by now."""
        search, row = self.definition.config.search, flat(record)
        # What the new trial does not dominate stays, so that nobody looks at all trials again.
        self._members = front_rows([*self._members, row], search.objectives, search.constraints)
        known = ", ".join(f"{_in_a_sentence(title_of(n))} {human(n, row[n])}" for n in search.objectives if n in row)
        on_front = ", on the front" if any(member["key"] == record.key for member in self._members) else ""
        done = f"{self.display.done}/{self.display.total}"
        return f"trial {done} finished: {record.title}: {known}{on_front}"

    def baseline_ended(self, job: Job, title: str, outcome: Outcome) -> None:
        """A baseline and its scores are there, or will not be."""
        if self._live.get(job.key, {}).get("history"):  # else it was in the store, and only scores were computed
            params = {name: value for name, value in job.point.items() if name in ("dataset", "model", "seed")}
            self._record("baseline", job, title, params, outcome)
        self._closed(job, title, outcome, "failed")

    def measured(self, job: Job, outcome: Outcome) -> None:
        """A member of the front was measured."""
        if outcome.status is Status.FINISHED:
            known = self.records[job.key].measured or {}
            on_devices = {name: value for name, value in known.items() if devices.is_on(name)}
            self.journal.extend(job.key, measured=on_devices | _plain(outcome.metrics))
            self.records[job.key] = self.definition.completed(self.journal.records[job.key])
        self._closed(job, self.records[job.key].title, outcome, "not measured")

    def measured_on_device(self, key: str, metrics: Mapping[str, Any]) -> None:
        """A device has measured a trial."""
        self.journal.extend(key, measured={**(self.records[key].measured or {}), **_plain(metrics)})
        record = self.records[key] = self.definition.completed(self.journal.records[key])
        config = self.definition.config
        if not any(devices.waiting(config, name, [record]) for name in config.devices):
            self.definition.store.remove(DEPLOYED, key)

    def probe_ended(self, job: Job, title: str, outcome: Outcome) -> None:
        """A job ended that measured something and leaves no record."""
        self._closed(job, title, outcome, "not found")

    def _closed(self, job: Job, title: str, outcome: Outcome, otherwise: str) -> None:
        """A job that is no trial is over; `otherwise` says what that means where it did not finish."""
        self._live.pop(job.key, None)
        self.display.ended(job.key, outcome.status)
        if outcome.status is not Status.FINISHED:
            self.display.say(f"{otherwise}: {title}: {outcome.reason}")
        self._notes(title, outcome)

    def retried(self, title: str, reason: str) -> None:
        """A job's worker died, and the job resumes elsewhere."""
        self.display.say(f"{title}: its worker died ({reason}); it resumes from its last checkpoint")

    def _record(self, kind: str, job: Job, title: str, params: Mapping[str, Any], outcome: Outcome) -> None:
        live, now = self._live.pop(job.key, {}), time.time()
        metrics = dict(outcome.metrics)
        history = metrics.pop("history", None) or live.get("history") or []
        record = TrialRecord(
            key=job.key,
            point=job.point,
            status=outcome.status,
            kind=kind,
            title=title,
            params=dict(params),
            reason=outcome.reason,
            metrics=_plain(metrics),
            history=[_plain(epoch) for epoch in history],
            best=self._best_of(history),
            started=live.get("started", now),
            ended=now,
        )
        self.journal.add(record)
        self.definition.store.remove(CHECKPOINTS, job.key)
        self.tracker.ended(record)

    def _best_of(self, history: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The best value of each objective over the epochs that reported it."""
        best = {}
        for name, direction in self.definition.config.search.objectives.items():
            values = [e[name] for e in history if _is_number(e.get(name))]
            if values:
                best[f"best/{name}"] = max(values) if direction == "max" else min(values)
        return best

    def _notes(self, title: str, outcome: Outcome) -> None:
        for note in outcome.notes:
            self.display.say(f"{title}: {note}")
        if outcome.traceback and self.display.verbose:
            self.display.say(outcome.traceback)

    # the state of the study

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each trial that belongs to the study."""
        return [flat(record) for record in self.records.values()]

    def dimensions(self) -> list[str]:
        """The columns of the space's dimensions."""
        return dimension_columns(self.definition.config.space, self.rows())

    def front(self) -> list[dict[str, Any]]:
        """The rows of the front's members."""
        search = self.definition.config.search
        return front_rows(self.rows(), search.objectives, search.constraints)

    def fix_references(self, unpruned: Iterable[Row] = ()) -> None:
        """Keep what is known by now of what hypervolumes are measured from; what is kept already stays."""
        config, search = self.definition.config, self.definition.config.search
        found = references.fixed(self.references, self.rows(), search.objectives, search.constraints, unpruned)
        if found != self.references:
            references.write(self.definition.folder, found, search.objectives, references.scale(config))
        self.references = found

    def front_candidates(self) -> list[str]:
        """Keys of the front's members and, where seeds vary, of all trials of the configurations on the front of means.

        Their test split is read, and their weights and pictures are kept.
        """
        search, rows = self.definition.config.search, self.rows()
        means = front_rows(seeds.shown(rows, self.dimensions()), search.objectives, search.constraints)
        keys = [key for row in means for key in row.get("keys", [row["key"]])]
        return list(dict.fromkeys([*(row["key"] for row in self.front()), *keys]))

    def failures(self) -> list[TrialRecord]:
        """The records of the trials that failed."""
        return [record for record in self.records.values() if record.status is Status.FAILED]

    def look_at_front(self, *, now: bool = False) -> None:
        """Show the best trial and the hypervolume, and put it on the summary run."""
        if now or self._front_pace.is_due():
            with self._front_pace:
                self._show_front()

    def _show_front(self) -> None:
        search, rows = self.definition.config.search, self.rows()
        finished = sum(row["status"] == "finished" for row in rows)
        found = fronts(rows, search.objectives, search.constraints, self.references)
        members = [row for front in found for row in front.members]
        if not members:
            return
        name, direction = next(iter(search.objectives.items()))
        self.display.best = best_text((max if direction == "max" else min)(members, key=lambda row: row[name]), name)
        volumes = [front.relative_hypervolume for front in found if front.relative_hypervolume is not None]
        if volumes:
            self.display.hypervolume = sum(volumes) / len(volumes)
            if finished != self._finished_seen:
                best = {
                    f"best/{name}": (max if direction == "max" else min)(row[name] for row in members)
                    for name, direction in search.objectives.items()
                }
                seen = {"hypervolume": self.display.hypervolume, "trials_finished": finished}
                self.tracker.summary(seen | best, finished)
        self._finished_seen = finished

    def _write_csv(self) -> None:
        with self._csv_pace:
            report.write_trials_csv(self.definition.folder / "trials.csv", self.rows())

    def _write_pictures(self, keys: Collection[str]) -> dict[str, Location]:
        """What the best trials predict, from the store into the study's folder; others' pictures leave it."""
        folder = self.definition.folder / PREDICTIONS
        pictures: dict[str, Location] = {}
        for key in sorted(keys):
            if self.records[key].measured and (files := self.definition.store.get(PREDICTIONS, key)):
                pictures[key] = folder / f"{key}.png"
                write_atomic(pictures[key], files["predictions.png"])
        remove(folder, {*names(folder)}.difference(path.name for path in pictures.values()))
        return pictures

    def _note(self, rows: Sequence[Row]) -> str:
        """What the summary run says of the front: its table, or the beginning of it where MLflow takes no more."""
        search = self.definition.config.search
        lines = report.format_front(
            rows,
            search.objectives,
            "md",
            study=self.definition.config.study,
            constraints=search.constraints,
            dimensions=self.dimensions(),
            references=self.references,
        )
        assert isinstance(lines, str)
        return cut_table(lines, _NOTE)

    def _others(self) -> set[str]:
        """Trials of the other studies in this storage: what several have is stored once, and may be on their front."""
        own, storage = self.definition.folder, self.definition.folder.parent
        folders = [path.parent for path in storage.glob("*/study.yaml") if path.parent.name != own.name]
        return {key for folder in folders for key in Journal(folder / self.journal.path.name).records}

    def close(self, status: str) -> None:
        """Write the report, send what MLflow lacks, and keep the weights that are asked for."""
        self.fix_references()
        self.look_at_front(now=True)
        self._write_csv()
        config, folder, rows = self.definition.config, self.definition.folder, self.rows()
        pareto = {row["key"] for row in self.front()}
        worth = {*self.front_candidates()}
        pictures = self._write_pictures(worth)
        details = member_files.write(folder, self.definition.store, [self.records[key] for key in sorted(worth)])
        listed = member_files.write_per_class(folder, [flat(self.records[key]) for key in self.front_candidates()])
        files = report.write_front(
            folder,
            rows,
            config.search.objectives,
            study=config.study,
            constraints=config.search.constraints,
            dimensions=self.dimensions(),
            references=self.references,
            folder=folder,
        )
        if status == "FINISHED" and config.settings.keep_models == "front":
            waiting = {key for name in config.devices for key in devices.waiting(config, name, self.records.values())}
            for key in self.records.keys() - worth - waiting - self._others():
                self.definition.store.remove(MODELS, key)
        counts = {s: sum(row["status"] == s for row in rows) for s in Status}
        baselines = [r for r in self.journal.records.values() if r.kind == "baseline"]
        listed += [folder / "study.yaml", folder / "environment.json", folder / "trials.csv", *files]
        with local_copies(listed) as attached, local_copies(pictures.values()) as drawn, ExitStack() as copies:
            members = {key: copies.enter_context(local_copies(paths)) for key, paths in details.items()}
            unsent = self.tracker.close(
                [*self.records.values(), *baselines],
                status=status,
                pareto=pareto,
                pictures=dict(zip(pictures, drawn, strict=True)),
                members=members,
                files=attached,
                metrics={f"trials_{name}": count for name, count in counts.items()} | {"front_size": len(pareto)},
                note=self._note(rows),
            )
        if left := self.tracker.left(unsent, self.journal.path):
            self.display.say(left)


class _Pace:
    """When the work of a `with` block is due again: after some seconds, and after a multiple of what it took."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._begun, self._due = seconds, 0.0, 0.0

    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        self._due = now + max(self._seconds, (now - self._begun) / _SHARE)


def _in_a_sentence(title: str) -> str:
    """A title within a sentence: Validation accuracy, but MACs."""
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON takes them; what is not finite becomes None."""
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in metrics.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
