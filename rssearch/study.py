"""The way of a study, from top to bottom: plan, prepare, search, measure, report."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from rssearch import report, tracking
from rssearch.config import Resources, StudyConfig
from rssearch.environment import environment
from rssearch.errors import InputError, TrialFailed
from rssearch.journal import Journal, Record
from rssearch.progress import Display, best_text, duration
from rssearch.space import Choice, Point, contains, content_key, corners, grid, grid_size
from rssearch.store import Store, write_atomic
from rssearch.trial import CHECKPOINTS, Context, Preparation, Session, resolve

_log = logging.getLogger(__name__)

MODELS = "models"
_NOT_IN_KEY = ("download", "memory_share", "keep_models")  # settings that do not change a trial's result
_GRID_LIMIT = 100_000
_REPORT_SECONDS = 5.0  # between two writings of trials.csv while trials end
_DONE, _SOME_FAILED, _INTERRUPTED = 0, 1, 130


class Study:
    """A study on its way: its question, its trial's module, its folder and its record."""

    def __init__(self, config: StudyConfig) -> None:
        """Resolve the trial and check every point. Raises InputError; nothing is written."""
        self.config = config
        self.function, self.module = resolve(config.trial)
        self.storage = Path(config.storage).expanduser().resolve()
        self.data_root = Path(config.data_root).expanduser().resolve()
        self.folder = self.storage / config.study
        self.store = Store(self.storage)
        from rssearch.searcher import check_sampler

        check_sampler(config.search, config.space)
        size = grid_size(config.space)
        if config.search.sampler == "grid" and size is not None and size > _GRID_LIMIT:
            raise InputError(f"space: the grid has {size} cells, more than {_GRID_LIMIT}; take another sampler")
        self.points = list(grid(config.space) if size is not None and size <= _GRID_LIMIT else corners(config.space))
        check = self.hook("check")
        for point in self.points:
            if check is not None:
                check(point, config.settings)
            self.key(point)

    def hook(self, name: str) -> Callable[..., Any] | None:
        """A function that the trial's module offers, or None."""
        found = getattr(self.module, name, None)
        return found if callable(found) else None

    def key(self, point: Point) -> str:
        """The content key of a trial: equal when everything that determines its result is equal."""
        settings = self.config.settings.model_dump(mode="json", exclude=set(_NOT_IN_KEY))
        identity = self.hook("identity")
        more = identity(point, self.config.settings, self.data_root) if identity else None
        return content_key({"trial": self.config.trial, "point": point, "settings": settings, "more": more})

    def title(self, point: Mapping[str, Any]) -> str:
        """A point in a few words: names as they are, numbers with their dimension, constants left out."""
        words = []
        for name, dimension in self.config.space.items():
            if isinstance(dimension, Choice) and len(dimension.values) == 1 and name not in ("model", "method"):
                continue
            value = point.get(name)
            words.append(str(value) if isinstance(value, str) else f"{name}={value}")
        return " ".join(words) or self.config.study

    def context(self, shared: Mapping[str, Any] | None = None) -> Context:
        """What the workers get."""
        needs = self.config.resources
        return Context(
            study=self.config.study,
            storage=str(self.storage),
            data_root=str(self.data_root),
            settings=self.config.settings,
            cpus=needs.cpus,
            gpus=needs.gpus,
            shared=shared or {},
        )

    def cost(self, point: Point) -> dict[str, Any]:
        """What is known of a trial before it is trained; empty where nothing is."""
        hook = self.hook("cost")
        return dict(hook(point, Session(self.context(), "", point))) if hook else {}

    def preparations(self, points: Iterable[Point]) -> list[Preparation]:
        """What the points need to be there before they start."""
        hook = self.hook("preparations")
        return list(hook(points, self.config.settings, self.data_root, self.store)) if hook else []

    def current(self, journal: Journal) -> list[Record]:
        """The records that answer today's question: in the space, with today's settings, data and code."""
        trials = [r for r in journal.records.values() if r.get("kind", "trial") == "trial"]
        return [r for r in trials if contains(self.config.space, r["point"]) and self.key(r["point"]) == r["key"]]


# plan


@dataclass(frozen=True)
class Plan:
    """What would run, and what it would cost."""

    study: str
    sampler: str
    trials: int
    finished: int
    baselines: int
    baselines_ready: int
    scores_to_compute: int
    macs: tuple[int, int] | None
    macs_unknown: int
    infeasible: int
    hours: float | None
    hours_basis: str
    resolved: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For the console."""
        unknown = f"; {self.macs_unknown} depend on scores that are not computed yet" if self.macs_unknown else ""
        macs = f"{_mega(self.macs[0])} to {_mega(self.macs[1])}{unknown}" if self.macs else "not known before the trials"
        refused = f", {self.infeasible} of them infeasible by their cost" if self.infeasible else ""
        hours = "unknown" if self.hours is None else f"about {duration(self.hours * 3600)} ({self.hours_basis})"
        return [
            f"study      {self.study} ({self.sampler})",
            f"trials     {self.trials}, {self.finished} finished{refused}",
            f"baselines  {self.baselines}, {self.baselines_ready} ready; scores to compute: {self.scores_to_compute}",
            f"MACs       {macs}",
            f"compute    {hours}",
        ]


def plan(config: StudyConfig) -> Plan:
    """Look at a study without training anything or writing anything.

    Raises:
        InputError: the study cannot be run as it is.
    """
    from rssearch.searcher import violations

    study = Study(config)
    journal = Journal(study.folder / "trials.jsonl")
    finished = [r for r in study.current(journal) if r["status"] == "finished"]
    budget = len(study.points) if config.search.sampler == "grid" else config.search.trials
    needed = study.preparations(study.points)
    known, unknown, infeasible = [], 0, 0
    for point in study.points:
        try:
            metrics = study.cost(point)
        except (TrialFailed, InputError):
            metrics, infeasible = {}, infeasible + 1
        if "macs" in metrics:
            known.append(int(metrics["macs"]))
            infeasible += any(v > 0 for v in violations(config.search.constraints, metrics).values())
        else:
            unknown += 1
    hours, basis = _estimate(study, finished, budget - len(finished), needed)
    return Plan(
        study=config.study,
        sampler=config.search.sampler,
        trials=budget,
        finished=len(finished),
        baselines=len(needed),
        baselines_ready=sum(not p.parts.get("baselines") for p in needed),
        scores_to_compute=sum(p.parts.get("scores", 0) for p in needed),
        macs=(min(known), max(known)) if known else None,
        macs_unknown=unknown if study.hook("cost") else 0,
        infeasible=infeasible,
        hours=hours,
        hours_basis=basis,
        resolved=config.resolved(),
    )


def _estimate(study: Study, finished: list[Record], left: int, needed: list[Preparation]) -> tuple[float | None, str]:
    """Hours of compute (of one slot) for the trials that are left and the baselines that are not ready."""
    settings, estimate = study.config.settings, study.hook("estimate")
    times = [r["ended"] - r["started"] for r in finished if r.get("started")]
    if estimate is None:
        return (sum(times) / len(times) * left / 3600, "from past trials") if times else (None, "")

    def probe(point: Point) -> float:
        return float(estimate(point, Session(study.context(), "", point)))

    epochs = settings.train.epochs / max(1, settings.finetune.epochs)
    todo = [p for p in needed if p.parts.get("baselines")]
    before = sum(probe(p.point) * epochs for p in todo) if settings.finetune.epochs else 0.0
    if times:
        trial, basis = sum(times) / len(times), "from past trials"
    else:
        sample = {p.point.get("model"): p.point for p in needed} or {None: study.points[0]}
        trial, basis = sum(map(probe, sample.values())) / len(sample), "from a timing probe on this machine"
    return (before + trial * max(0, left)) / 3600, basis


def _mega(macs: int) -> str:
    return f"{macs / 1e9:.3g} G" if macs >= 1e9 else f"{macs / 1e6:.3g} M"


# search


def search(
    config: StudyConfig,
    *,
    address: str | None = None,
    fresh: bool = False,
    verbose: bool = False,
    console: Console | None = None,
) -> int:
    """Run a study, or go on with it.

    Args:
        config: the study.
        address: of a Ray cluster; None: that of the environment or of this machine, or else a new local one.
        fresh: put the record of earlier sessions away (it is kept) and begin anew. Baselines and scores are reused.
        verbose: let Ray and Optuna speak.
        console: where to print.

    Returns:
        The exit status: 0 done, 1 some trials failed for good, 130 interrupted.

    Raises:
        InputError: the study cannot be run as it is; nothing has been trained.
    """
    from rssearch.runner import connected, stopped_by_sigterm

    study = Study(config)
    console = console or Console()
    with ExitStack() as stack:
        study.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(study.folder / ".lock", timeout=0)
        try:
            stack.enter_context(lock)
        except Timeout:
            raise InputError(f"study {config.study} is being run by another process on {study.folder}") from None
        uri = config.tracking_uri or tracking.default_uri(study.storage)
        tracker = tracking.Tracker(uri, config.study, study.storage / "mlartifacts" / config.study)
        tracker.open()
        running = _Running(study, tracker, stack.enter_context(Display(console)), fresh=fresh, verbose=verbose)
        try:
            stack.enter_context(stopped_by_sigterm())
            stack.enter_context(connected(address, config.resources, verbose=verbose))
            running.prepare()
            running.search()
            running.measure()
        except KeyboardInterrupt:
            running.close("KILLED")
            console.print(f"interrupted; `rssearch search` goes on from here ({study.folder})", highlight=False)
            return _INTERRUPTED
        except BaseException:
            running.close("FAILED")
            raise
        running.close("FINISHED")
    running.say_result(console, uri)
    return _SOME_FAILED if running.failures() else _DONE


class _Running:
    """One session of a study. Hears of its trials, and writes them to the journal, MLflow and the report."""

    def __init__(self, study: Study, tracker: tracking.Tracker, display: Display, *, fresh: bool, verbose: bool) -> None:
        self.study, self.config, self.tracker, self.display = study, study.config, tracker, display
        self.verbose = verbose
        self.journal = Journal(study.folder / "trials.jsonl")
        if fresh:
            self._begin_anew()
        self.shared: dict[str, Any] = {}
        self.failed_preparations: dict[str, str] = {}
        self.volumes: list[tuple[int, float]] = []
        self._live: dict[str, dict[str, Any]] = {}
        self._written = 0.0
        write_atomic(study.folder / "study.yaml", yaml.safe_dump(self.config.resolved(), sort_keys=False))
        write_atomic(study.folder / "environment.json", environment())

    def _begin_anew(self) -> None:
        for record in self.journal.records.values():
            self.study.store.remove(CHECKPOINTS, record["key"])
        for point in self.study.points:
            self.study.store.remove(CHECKPOINTS, self.study.key(point))
        self.journal.archive()
        self.tracker.supersede()

    # prepare

    def prepare(self) -> None:
        """Share the data, and make what is missing of the baselines and scores."""
        share = self.study.hook("share")
        if share is not None:
            import ray

            self.display.start("reading images", 0)
            objects = share(self.study.points, self.config.settings, self.study.data_root, self._reading)
            for found in objects.values():
                self._say_skipped(found)
            self.shared = {name: ray.put(value) for name, value in objects.items()}
            del objects
        todo = [p for p in self.study.preparations(self.study.points) if not p.done]
        if not todo:
            return
        self.display.start("baselines and scores", len(todo))
        titles = {p.key: p.title for p in todo}
        queue = iter([(p.key, p.point) for p in todo])
        self._run(lambda: next(queue, None), "prepare", _Baselines(self, titles))

    def _reading(self, name: str, done: int, total: int) -> None:
        self.display.phase, self.display.total, self.display.done = f"reading {name}", total, done

    def _say_skipped(self, images: Any) -> None:
        skipped = getattr(images, "skipped", ())
        if skipped:
            shown = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
            self.display.say(f"{images.name}: {len(skipped)} images cannot be read and are left out: {shown}")

    # search

    def search(self) -> None:
        """Run the trials that the sampler proposes."""
        from rssearch.searcher import Outcome, Proposer

        records = [r for r in self.study.current(self.journal) if r["status"] != "failed"]
        self.proposer = Proposer(
            self.config.space,
            self.config.search,
            key_of=self.study.key,
            known=[Outcome(r["key"], r["point"], r["status"], r["metrics"]) for r in records],
            cost=self._cost,
            on_infeasible=self._infeasible,
        )
        done = sum(r["status"] == "finished" for r in records)
        self.display.start("trials", self.proposer.total, done)
        self.display.infeasible = len(records) - done
        self._show_best()
        self._run(self._ask, self.config.trial.partition(":")[2], _Trials(self))

    def _cost(self, point: Point) -> dict[str, Any]:
        try:
            return self.study.cost(point)
        except (TrialFailed, InputError) as error:  # such as a MACs ratio that is out of reach; the trial itself will say so
            _log.info("%s: %s", self.study.title(point), error)
            return {}

    def _ask(self) -> tuple[str, dict[str, Any]] | None:
        while (job := self.proposer.ask()) is not None:
            key, point = job
            blocked = [p.key for p in self.study.preparations([point]) if p.key in self.failed_preparations]
            if not blocked:
                return job
            reason = f"its baseline failed: {self.failed_preparations[blocked[0]]}"
            self.end(key, point, {"status": "failed", "reason": reason})
        return None

    def _infeasible(self, outcome: Any) -> None:
        self._record(outcome.key, outcome.point, {"status": "infeasible", "metrics": outcome.metrics})

    def end(self, key: str, point: Point, end: dict[str, Any]) -> None:
        """A trial ended."""
        metrics = end.get("metrics") or {}
        history = metrics.pop("history", None)
        outcome = self.proposer.tell(key, end["status"], metrics)
        reason = end.get("reason")
        if outcome.status == "failed" and end["status"] == "finished":
            shown = ", ".join(f"{n} = {metrics.get(n)}" for n in self.config.search.objectives)
            reason = f"an objective is missing or not finite: {shown}"
        self._record(key, point, {**end, "status": outcome.status, "reason": reason, "metrics": metrics, "history": history})

    def _record(self, key: str, point: Point, end: dict[str, Any]) -> None:
        live = self._live.pop(key, {})
        now = time.time()
        history = end.get("history") or live.get("history") or []
        record = {
            "kind": "trial",
            "key": key,
            "title": self.study.title(point),
            "point": point,
            "params": {**point, "input_size": self.config.settings.input_size},
            "status": end["status"],
            "reason": end.get("reason"),
            "metrics": _plain(end.get("metrics") or {}),
            "history": [_plain(epoch) for epoch in history],
            "best": self._best_of(history),
            "started": live.get("started", now),
            "ended": now,
            "measured": None,
        }
        self.journal.add(record)
        self.study.store.remove(CHECKPOINTS, key)
        self.tracker.ended(record)
        self.display.ended(key, record["status"])
        if record["status"] == "failed":
            self.display.say(f"failed: {record['title']}: {record['reason']}")
            if self.verbose and end.get("traceback"):
                self.display.say(end["traceback"])
        for note in end.get("notes", ()):
            self.display.say(f"{record['title']}: {note}")
        self._show_best()
        if now - self._written > _REPORT_SECONDS:
            self._write_csv()

    def _best_of(self, history: list[dict[str, Any]]) -> dict[str, float]:
        """The best value of each objective that is known for every epoch."""
        best = {}
        for name, direction in self.config.search.objectives.items():
            values = [e[name] for e in history if isinstance(e.get(name), int | float)]
            if values:
                best[f"best/{name}"] = max(values) if direction == "max" else min(values)
        return best

    def _show_best(self) -> None:
        trials = self.rows()
        finished = sum(row["status"] == "finished" for row in trials)
        if not finished:
            return
        found = report.fronts(trials, self.config.search.objectives, self.config.search.constraints)
        volumes = [f.relative_hypervolume for f in found if f.relative_hypervolume is not None]
        name = next(iter(self.config.search.objectives))
        members = [row for front in found for row in front.members]
        if members:
            pick = max if self.config.search.objectives[name] == "max" else min
            self.display.best = best_text(pick(members, key=lambda row: row[name]), name)
        if volumes:
            volume = sum(volumes) / len(volumes)
            self.display.hypervolume = volume
            if not self.volumes or self.volumes[-1][0] < finished:
                self.volumes.append((finished, volume))
                self.tracker.summary({"hypervolume": volume, "trials_finished": finished}, finished)

    # measure

    def measure(self) -> None:
        """What only the front's members are worth, one after another with the machine to themselves."""
        hook = self.study.hook("measure")
        members = [] if hook is None else self.front()
        todo = [self.journal.records[row["key"]] for row in members]
        todo = [record for record in todo if not record.get("measured")]
        if not todo:
            return
        self.display.start("measuring the front", len(todo))
        queue = iter([(record["key"], record["point"]) for record in todo])
        self._run(lambda: next(queue, None), "measure", _Measured(self), alone=True)

    def front(self) -> list[dict[str, Any]]:
        """The rows of the front's members."""
        return report.front_rows(self.rows(), self.config.search.objectives, self.config.search.constraints)

    # report

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each trial of today's question."""
        return [flat(record) for record in self.study.current(self.journal)]

    def failures(self) -> list[dict[str, Any]]:
        """The rows of the trials that failed."""
        return [row for row in self.rows() if row["status"] == "failed"]

    def _write_csv(self) -> None:
        self._written = time.time()
        report.write_trials_csv(self.study.folder / "trials.csv", self.rows())

    def close(self, status: str) -> None:
        """Write the report, send what MLflow lacks, and keep the weights that are asked for."""
        self._write_csv()
        rows, search = self.rows(), self.config.search
        files = report.write_front(
            self.study.folder, rows, search.objectives, study=self.config.study, constraints=search.constraints
        )
        pareto = {row["key"] for row in self.front()}
        if status == "FINISHED" and self.config.settings.keep_models == "front":
            for row in rows:
                if row["key"] not in pareto:
                    self.study.store.remove(MODELS, row["key"])
        counts = {s: sum(row["status"] == s for row in rows) for s in ("finished", "failed", "infeasible")}
        known = {row["key"] for row in rows}
        sent = [r for r in self.journal.records.values() if r["key"] in known or r.get("kind") == "baseline"]
        folder = self.study.folder
        unsent = self.tracker.close(
            sent,
            status=status,
            pareto=pareto,
            files=[folder / "study.yaml", folder / "environment.json", folder / "trials.csv", *files],
            metrics={f"trials_{name}": count for name, count in counts.items()} | {"front_size": len(pareto)},
        )
        if unsent:
            self.display.say(
                f"MLflow was away: {unsent} runs wait in {self.journal.path}; the next `rssearch search` sends them"
            )

    def say_result(self, console: Console, uri: str) -> None:
        """The front, and where everything is."""
        rows, search = self.rows(), self.config.search
        console.print(report.format_front(rows, search.objectives, "table", study=self.config.study, constraints=search.constraints))
        failed = self.failures()
        if failed:
            console.print(f"{len(failed)} trials failed:", highlight=False)
            for row in failed:
                console.print(f"  {row['key']}  {self.study.title(row)}: {row['reason']}", highlight=False, soft_wrap=True)
        at = f"--storage {self.config.storage}" if uri == tracking.default_uri(self.study.storage) else f"--tracking-uri {uri}"
        console.print(f"files      {self.study.folder}/front.html, front.png, trials.csv", highlight=False, soft_wrap=True)
        console.print(f"MLflow UI  rssearch ui {at}", highlight=False, soft_wrap=True)

    # the machinery

    def _run(self, ask: Callable[[], Any], function: str, listener: Any, *, alone: bool = False) -> None:
        from rssearch.runner import run_jobs

        resources: Resources = self.config.resources
        if alone:
            resources = resources.model_copy(update={"max_concurrent": 1})
        target = f"{self.config.trial.partition(':')[0]}:{function}"
        run_jobs(ask, target, self.study.context(self.shared), resources, listener, verbose=self.verbose)

    def begin(self, key: str, title: str) -> None:
        """A job is on a worker."""
        self._live.setdefault(key, {"started": time.time(), "history": [], "title": title})
        self.display.running(key, title)

    def epoch(self, key: str, title: str, params: Mapping[str, Any], metrics: dict[str, Any]) -> None:
        """A job reported an epoch."""
        plain = _plain(metrics)
        live = self._live.setdefault(key, {"started": time.time(), "history": [], "title": title})
        live["history"].append(plain)
        step = int(plain.get("epoch") or len(live["history"]))
        self.tracker.epoch(key, title, params, plain, step)
        accuracy = plain.get("val_accuracy")
        detail = f"epoch {step}" + (f", val_accuracy {accuracy:.3f}" if isinstance(accuracy, float) else "")
        self.display.running(key, title, detail)


class _Trials:
    """Hears of trials."""

    def __init__(self, running: _Running) -> None:
        self.running = running
        self.points: dict[str, Point] = {}

    def started(self, key: str, point: Mapping[str, Any]) -> None:
        self.points[key] = dict(point)
        self.running.begin(key, self.running.study.title(point))

    def epoch(self, key: str, metrics: dict[str, Any]) -> None:
        point = self.points[key]
        params = {**point, "input_size": self.running.config.settings.input_size}
        self.running.epoch(key, self.running.study.title(point), params, metrics)

    def retried(self, key: str, reason: str) -> None:
        title = self.running.study.title(self.points.get(key, {}))
        self.running.display.say(f"{title}: its worker died ({reason}); it goes on from its last checkpoint")

    def ended(self, key: str, end: dict[str, Any]) -> None:
        point = self.points.pop(key, None) or self.running.proposer.point_of(key)
        self.running.end(key, point, end)


class _Baselines(_Trials):
    """Hears of baselines."""

    def __init__(self, running: _Running, titles: Mapping[str, str]) -> None:
        super().__init__(running)
        self.titles = titles

    def started(self, key: str, point: Mapping[str, Any]) -> None:
        self.points[key] = dict(point)
        self.running.begin(key, self.titles[key])

    def epoch(self, key: str, metrics: dict[str, Any]) -> None:
        self.running.epoch(key, self.titles[key], self._params(key), metrics)

    def _params(self, key: str) -> dict[str, Any]:
        return {n: self.points[key][n] for n in ("dataset", "model", "seed") if n in self.points[key]}

    def ended(self, key: str, end: dict[str, Any]) -> None:
        running, metrics = self.running, end.get("metrics") or {}
        live = running._live.pop(key, {})  # noqa: SLF001
        running.display.ended(key, end["status"])
        if end["status"] != "finished":
            running.failed_preparations[key] = str(end.get("reason"))
            running.display.say(f"failed: {self.titles[key]}: {end.get('reason')}")
        for note in end.get("notes", ()):
            running.display.say(f"{self.titles[key]}: {note}")
        if not live.get("history"):
            return  # it was in the store already; only scores were computed
        history = metrics.pop("history", None) or live["history"]
        record = {
            "kind": "baseline",
            "key": key,
            "title": self.titles[key],
            "point": self.points[key],
            "params": self._params(key),
            "status": end["status"],
            "reason": end.get("reason"),
            "metrics": _plain(metrics),
            "history": [_plain(epoch) for epoch in history],
            "started": live.get("started"),
            "ended": time.time(),
        }
        running.journal.add(record)
        running.tracker.ended(record)


class _Measured(_Trials):
    """Hears of measurements."""

    def ended(self, key: str, end: dict[str, Any]) -> None:
        running = self.running
        running._live.pop(key, None)  # noqa: SLF001
        running.display.ended(key, end["status"])
        record = running.journal.records[key]
        if end["status"] == "finished":
            running.journal.add({"key": key, "measured": _plain(end["metrics"] or {})})
        else:
            running.display.say(f"not measured: {record['title']}: {end.get('reason')}")


def flat(record: Record) -> dict[str, Any]:
    """A record as one row of trials.csv."""
    row = {"key": record["key"], "status": record["status"], **record["point"], **record["metrics"]}
    row |= record.get("measured") or {}
    return row | {"reason": record.get("reason")}


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON takes them; what is not finite becomes None."""
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in metrics.items()}
