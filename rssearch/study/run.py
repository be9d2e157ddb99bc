"""The way of a study, from top to bottom: plan, prepare, search, measure, report."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rssearch.backend import gpu_sharing, nodes
from rssearch.backend.gpu_sharing import FOOTPRINTS
from rssearch.config import plain_yaml
from rssearch.config.schema import Resources, StudyConfig
from rssearch.config.space import Point
from rssearch.cost.latency import metric
from rssearch.errors import DataWarning, InputError, StorageGoneError, TrialFailed
from rssearch.front import references
from rssearch.report import files
from rssearch.sampling.sampler import Outcome, Proposer
from rssearch.storage import shared_folder, uris
from rssearch.storage.journal import Journal, flat
from rssearch.storage.location import check_writable, remove, write_atomic
from rssearch.storage.lock import Held, lock
from rssearch.study.console import PlainConsole
from rssearch.study.definition import StudyDefinition, sample_note
from rssearch.study.early_stopping import EarlyStopping
from rssearch.study.environment import environment
from rssearch.study.planning import Plan, plan
from rssearch.study.progress import Display
from rssearch.study.recorder import Recorder, clear_leftovers
from rssearch.study.unpruned import unpruned
from rssearch.tracking import client, database, views
from rssearch.trial.interface import CHECKPOINTS

if TYPE_CHECKING:
    from rssearch.backend.tune import Stop

__all__ = ["Plan", "flat", "plan", "search"]

_log = logging.getLogger(__name__)

DONE, SOME_FAILED, GONE, INTERRUPTED = 0, 1, 1, 130
_ALIVE_SECONDS = 3.0  # between two looks at a storage that may be deleted

Job = tuple[str, dict[str, Any]]


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
        The exit status: 0 done, 1 some trials failed for good or the storage was deleted, 130 interrupted.

    Raises:
        InputError: the study cannot be run as it is; nothing has been trained.
    """
    from rssearch.backend.tune import Stop, connected, gpu_memories, run_jobs

    definition, console = StudyDefinition(config), console or PlainConsole()
    uri, artifacts = client.home(definition.storage, config.tracking_uri)
    check_writable(definition.storage)
    database.check(uri)
    with ExitStack() as stack:
        stack.enter_context(connected(address, config.resources, verbose=verbose))
        stop = stack.enter_context(Stop().listening())
        display = stack.enter_context(Display(console, verbose=verbose))
        if definition.sampled:
            display.say(sample_note(len(definition.points)))
        data = _read(definition, display)
        stack.enter_context(_alone(definition, stop))
        clear_leftovers(definition)
        token = shared_folder.leave_token(definition.folder)
        nodes.check_nodes(definition.folder, token)
        tracker = client.Tracker(uri, config.study, artifacts / config.study)
        tracker.open()
        tracker.describe(views.experiment_tags(config.study, config.search.objectives, config.space))
        journal = Journal(definition.folder / "trials.jsonl")
        if fresh:
            _start_from_scratch(definition, journal, tracker)
        write_atomic(definition.folder / "study.yaml", plain_yaml.dump(config.masked()))
        write_atomic(definition.folder / "environment.json", environment(data.values()))
        recorder = Recorder(definition, journal, tracker, display)
        session = Stages(definition, recorder, _shared(data), token, stop, run_jobs)
        status = "FINISHED"
        try:
            session.pack(gpu_memories)
            session.prepare()
            session.search()
            session.measure()
        except KeyboardInterrupt:
            status = "KILLED"
        except BaseException:
            if not _close(recorder, "FAILED", token):
                return GONE
            raise
        if not _close(recorder, status, token):
            return GONE
        if status == "KILLED":
            display.say(f"interrupted; `rssearch search` goes on from here ({definition.folder})")
            return INTERRUPTED
    _say_result(recorder, console, uri)
    return SOME_FAILED if recorder.failures() else DONE


def _read(definition: StudyDefinition, display: Display) -> dict[str, Any]:
    """The data that all trials share. Nothing has been written yet, should an image be refused."""
    share = definition.hook("share")
    if share is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # said below, on the study's console
        objects = share(definition.points, definition.config.settings, definition.data_root, display.reading)
    for found in objects.values():
        for note in getattr(found, "notes", ()):
            display.say(f"{found.name}: {note}")
        if skipped := getattr(found, "skipped", ()):
            shown = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
            display.say(f"{found.name}: images that cannot be read and are left out: {len(skipped)} ({shown})")
    return dict(objects)


def _shared(data: dict[str, Any]) -> dict[str, Any]:
    """`data` in Ray's object store; it is emptied, so that one copy is left."""
    from rssearch.backend.object_store import InObjectStore

    return {name: InObjectStore(data.pop(name)) for name in list(data)}


@contextmanager
def _alone(definition: StudyDefinition, stop: Stop) -> Iterator[None]:
    """A lock that only one driver of a study can hold. Raises InputError; a driver that loses it stops."""

    def lost() -> None:
        stop.requested = True

    with ExitStack() as stack:
        try:
            stack.enter_context(lock(definition.folder / ".lock", wait=False, lost=lost))
        except Held:
            raise InputError(
                f"study {definition.config.study} is being run by another process on {definition.folder}"
            ) from None
        yield


def _close(recorder: Recorder, status: str, token: str) -> bool:
    """Close the records of a session; False where their place is gone, which is said and not made again."""
    try:
        shared_folder.check_there(recorder.definition.folder, token)
    except StorageGoneError as error:
        recorder.tracker.abandon()
        recorder.display.say(str(error))
        return False
    recorder.close(status)
    return True


def _start_from_scratch(definition: StudyDefinition, journal: Journal, tracker: client.Tracker) -> None:
    for key in {*journal.records, *map(definition.key, definition.points)}:
        definition.store.remove(CHECKPOINTS, key)
    journal.archive()
    remove(definition.folder, [references.FILE])
    tracker.supersede()


class Stages:
    """The stages of one session of a study.

    Args:
        definition: of the study.
        recorder: hears everything.
        shared: the data, in Ray's object store.
        token: of the session, for `rssearch.storage.shared_folder`; None: all trials run in this process.
        stop: ends the session.
        run_jobs: `rssearch.backend.tune.run_jobs`, or another function that does the same without Ray.
    """

    def __init__(
        self,
        definition: StudyDefinition,
        recorder: Recorder,
        shared: Mapping[str, Any],
        token: str | None,
        stop: Stop,
        run_jobs: Callable[..., None],
    ) -> None:
        self.definition, self.config, self.recorder = definition, definition.config, recorder
        self.shared, self.token, self.stop, self.run_jobs = shared, token, stop, run_jobs
        self.failed_baselines: dict[str, str] = {}
        self.uris = uris.within(self.config.resolved())
        self.resources = self.config.resources
        self._looked = 0.0

    def pack(self, gpu_memories: Callable[[], list[int]]) -> None:
        """Turn ``gpus: auto`` into the share of a GPU that the network with the largest footprint takes.

        A trial that cannot be measured gets a whole GPU; where there is none, trials stay on the CPU.
        """
        if self.config.resources.gpus != "auto":
            return
        memories = gpu_memories()
        alone = self.resources.model_copy(update={"gpus": 1.0})
        points = self.definition.peak_memory_points() if memories else {}
        store = self.definition.store
        todo = {key: point for key, point in points.items() if not store.has(FOOTPRINTS, key)}
        jobs = iter(todo.items())

        def title(_: str, point: Mapping[str, Any]) -> str:
            return f"memory of {self.definition.title(point)}"

        def ended(key: str, point: Point, end: dict[str, Any]) -> None:
            if end["status"] == "finished":
                store.put(FOOTPRINTS, key, {"footprint.json": json.dumps(end["metrics"]).encode()})
            self.recorder.probe_ended(key, title(key, point), end)

        if todo:
            self.recorder.display.start("measuring memory", len(todo))
            self._run(lambda: next(jobs, None), "footprint", title, ended, resources=alone)
        taken = gpu_sharing.recorded(store, points)
        share = 0.0 if not memories else 1.0 if taken is None else gpu_sharing.fraction(taken, min(memories))
        self.resources = self.resources.model_copy(update={"gpus": share})
        self.recorder.display.say(gpu_sharing.describe_share(share, taken, memories))

    def prepare(self) -> None:
        """Make what is missing of the baselines and scores.

        Of a sampled space there may be more of them than there will be trials, or they depend on what is drawn from a
        range: then each trial makes what it needs.
        """
        todo = [p for p in self.definition.sure_preparations() if not p.done]
        few = self.config.search.sampler != "grid" and len(todo) > self.config.search.trials
        if few or not todo:
            return
        self.recorder.display.start("baselines and scores", len(todo))
        titles = {p.key: p.title for p in todo}
        jobs = iter([(p.key, p.point) for p in todo])

        def ended(key: str, point: Point, end: dict[str, Any]) -> None:
            if end["status"] != "finished":
                self.failed_baselines[key] = str(end.get("reason"))
            self.recorder.baseline_ended(key, point, titles[key], end)

        def title(key: str, _: Mapping[str, Any]) -> str:
            return titles[key]

        self._run(lambda: next(jobs, None), "prepare", title, ended)

    def search(self) -> None:
        """Run the trials that the sampler proposes.

        Failed trials are tried again; stopped ones are trained to their end once nothing is stopped early any more.
        """
        self.recorder.fix_references(unpruned(self.definition, self.recorder.references))
        again = {"failed"} if self.definition.early_stopping_objectives else {"failed", "stopped"}
        known = [r for r in self.recorder.records.values() if r["status"] not in again]
        proposer = Proposer(
            self.config.space,
            self.config.search,
            key_of=self.definition.key,
            known=[Outcome(r["key"], r["point"], r["status"], r["metrics"]) for r in known],
            cost=self._cost,
            on_infeasible=lambda o: self.recorder.trial_ended(
                o.key, o.point, {"status": "infeasible", "metrics": o.metrics}
            ),
        )

        def ended(key: str, point: Point, end: dict[str, Any]) -> None:
            if end["status"] == "infeasible":  # as its worker found out before the training
                end = end | {"metrics": self._cost(point) | end["metrics"]}
            if end["status"] == "stopped":
                rule, metrics = self.config.search.early_stopping.rule, self._cost(point) | end["metrics"]
                reason = f"{rule}: not among the best after epoch {self.recorder.step(key, metrics)}"
                end = end | {"metrics": metrics, "reason": reason}
            outcome = proposer.tell(key, end["status"], end.get("metrics") or {})
            if outcome.status == "failed" and end["status"] == "finished":
                shown = ", ".join(f"{n} = {outcome.metrics.get(n)}" for n in self.config.search.objectives)
                end = end | {"reason": f"an objective is missing or not finite: {shown}"}
            self.recorder.trial_ended(key, point, end | {"status": outcome.status})

        def ask() -> Job | None:
            while (job := proposer.ask()) is not None:
                needs = self.definition.preparations([job[1]]) if self.failed_baselines else []
                reasons = [self.failed_baselines[p.key] for p in needs if p.key in self.failed_baselines]
                if not reasons:
                    return job
                ended(*job, {"status": "failed", "reason": f"its baseline failed: {reasons[0]}"})
            return None

        rule = (
            EarlyStopping(self.definition, self.recorder, self._cost)
            if self.definition.early_stopping_objectives
            else None
        )
        counts = Counter(r["status"] for r in known)
        self.recorder.display.start(
            "trials", proposer.total, counts["finished"], infeasible=counts["infeasible"], stopped=counts["stopped"]
        )
        self.recorder.look_at_front(now=True)
        function, should_continue = self.config.trial.partition(":")[2], rule.should_continue if rule else None
        self._run(ask, function, lambda _, point: self.definition.title(point), ended, should_continue=should_continue)

    def _cost(self, point: Point) -> dict[str, Any]:
        try:
            return self.definition.cost(point)
        except (TrialFailed, InputError) as error:  # such as a MACs ratio that is out of reach; the trial will say so
            _log.info("%s: %s", self.definition.title(point), error)
            return {}

    def measure(self) -> None:
        """What only the front's members are worth, one after another with the machine to themselves."""
        if self.definition.hook("measure") is None:
            return
        members = [self.recorder.records[key] for key in self.recorder.front_candidates()]
        todo = [record for record in members if self._lacks(record.get("measured") or {})]
        if not todo:
            return
        self.recorder.display.start("measuring the front", len(todo))
        jobs = iter([(record["key"], record["point"]) for record in todo])

        def ended(key: str, _: Point, end: dict[str, Any]) -> None:
            self.recorder.measured(key, end)

        alone = self.resources.model_copy(update={"max_concurrent": 1, "workers": 1})
        self._run(
            lambda: next(jobs, None), "measure", lambda _, point: self.definition.title(point), ended, resources=alone
        )

    def _look_there(self) -> None:
        if time.monotonic() - self._looked > _ALIVE_SECONDS:
            self._check_there()
            self._looked = time.monotonic()

    def _check_there(self) -> None:
        """Raise StorageGoneError where the study's folder is no longer what this session began in."""
        if self.token is not None:
            shared_folder.check_there(self.definition.folder, self.token)

    def _lacks(self, measured: Mapping[str, Any]) -> bool:
        """Whether a member of the front has not been measured, or lacks a latency that is listed by now."""
        listed = {metric(*pair) for pair in self.config.settings.latency.pairs()}
        timed = any(name.startswith("latency_") for name in measured)  # else its trial's module measures none
        return not measured or (timed and not listed.difference(self.definition.requested) <= measured.keys())

    def _run(
        self,
        ask: Callable[[], Job | None],
        function: str,
        title: Callable[[str, Mapping[str, Any]], str],
        ended: Callable[[str, Point, dict[str, Any]], None],
        resources: Resources | None = None,
        should_continue: Callable[[str, Mapping[str, Any], dict[str, Any]], bool] | None = None,
    ) -> None:
        from rssearch.backend.tune import Listener

        recorder, definition, resources = self.recorder, self.definition, resources or self.resources

        def clean(said: Any) -> Any:  # reasons and notes quote what libraries say
            return uris.hidden_in(said, *self.uris)

        def recorded(key: str, point: Point, end: dict[str, Any]) -> None:
            self._check_there()
            ended(key, point, clean(end))

        listener = Listener(
            started=lambda key, point: recorder.begin(key, title(key, point)),
            epoch=lambda key, point, metrics: recorder.epoch(
                key, title(key, point), definition.params(point), clean(metrics)
            ),
            retried=lambda key, point, reason: recorder.retried(title(key, point), clean(reason)),
            ended=recorded,
            should_continue=should_continue,
            alive=self._look_there,
        )
        target = f"{self.config.trial.partition(':')[0]}:{function}"
        context, verbose = definition.context(self.shared, self.token, resources), recorder.display.verbose
        self.run_jobs(ask, target, context, resources, listener, stop=self.stop, verbose=verbose)


def _say_result(recorder: Recorder, console: Console, uri: str) -> None:
    """The front, and where everything is."""
    definition = recorder.definition
    config, search_ = definition.config, definition.config.search
    console.print(
        files.format_front(
            recorder.rows(),
            search_.objectives,
            "table",
            study=config.study,
            constraints=search_.constraints,
            dimensions=recorder.dimensions(),
            references=recorder.references,
        )
    )
    failed = recorder.failures()
    if failed:
        console.print(f"{len(failed)} trials failed:", highlight=False)
        for record in failed:
            text = f"  {record['key']}  {record['title']}: {record['reason']}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    where = f"--storage {config.storage}" if config.tracking_uri is None else f"--tracking-uri {uri}"
    where = uris.hidden(where, config.storage, uri)
    for text in (
        f"files      {definition.folder}/: front.html, front.png, trials.csv",
        f"MLflow UI  rssearch ui {where}",
    ):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
