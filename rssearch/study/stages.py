"""The stages of one session of a study: pack, search, measure."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rssearch.agent.desk import Ended
from rssearch.backend import gpu_sharing
from rssearch.backend.gpu_sharing import FOOTPRINTS
from rssearch.config.schema import Resources
from rssearch.config.space import Point
from rssearch.cost.latency import metric
from rssearch.errors import InputError, TrialFailed
from rssearch.sampling.sampler import Proposer
from rssearch.storage import shared_folder, uris
from rssearch.storage.records import Status, TrialRecord
from rssearch.study import devices
from rssearch.study.definition import StudyDefinition
from rssearch.study.early_stopping import early_stopping
from rssearch.study.job_queue import JobQueue
from rssearch.study.recorder import BASELINE_FAILED, Recorder
from rssearch.study.unpruned import unpruned
from rssearch.trial.interface import Preparation
from rssearch.trial.jobs import LATER, Job, Outcome

if TYPE_CHECKING:
    from rssearch.backend.stop import Stop

__all__ = ["Stages"]

_log = logging.getLogger(__name__)

_ALIVE_SECONDS = 3.0  # between two looks at a storage that may be deleted
_INDEPENDENT = ("grid", "random", "qmc")  # their proposals are the same, whatever is known
_WAITING, _WAITING_GUESSES = 1000, 10  # trials that are asked for while they wait for a baseline


@dataclass(frozen=True)
class Kind:
    """What is done for the jobs of one function.

    Attributes:
        title: of a job.
        ended: it ended.
        epochs: how many it reports; None: not known.
        should_continue: whether it may continue after an epoch; None: always.
    """

    title: Callable[[Job], str]
    ended: Callable[[Job, Outcome], None]
    epochs: Callable[[Job], int | None] = lambda _: None
    should_continue: Callable[[Job, dict[str, Any]], bool] | None = None


class Stages:
    """The stages of one session of a study.

    Args:
        definition: of the study.
        recorder: records everything.
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
        self._tried: set[str] = set()  # to be measured in this session
        self._last_check = -math.inf

    def pack(self, nodes: Sequence[Mapping[str, float]], gpu_memories: Callable[[], list[int]]) -> None:
        """Settle how many GPUs a trial takes, and say what of the cluster's is used.

        Args:
            nodes: the resources of each node.
            gpu_memories: bytes of each kind of GPU in the cluster, for ``gpus: auto``.
        """
        if self.resources.gpus is None:
            share = gpu_sharing.default_share(nodes, self.resources)
            self.resources = self.resources.model_copy(update={"gpus": share or None})
        elif self.resources.gpus == "auto":
            self._share_gpus(gpu_memories)
        if use := gpu_sharing.describe_use(nodes, self.resources):
            self.recorder.display.say(use)

    def _share_gpus(self, gpu_memories: Callable[[], list[int]]) -> None:
        """Turn ``gpus: auto`` into the share of a GPU that the network with the largest footprint takes.

        A trial that cannot be measured gets a whole GPU; where there is none, trials stay on the CPU.
        """
        memories = gpu_memories()
        alone = self.resources.model_copy(update={"gpus": 1.0})
        points = self.definition.peak_memory_points() if memories else {}
        store = self.definition.store
        todo = [Job(key, point, "footprint") for key, point in points.items() if not store.has(FOOTPRINTS, key)]

        def title(job: Job) -> str:
            return f"memory of {self.definition.title(job.point)}"

        def ended(job: Job, outcome: Outcome) -> None:
            if outcome.status is Status.FINISHED:
                store.put(FOOTPRINTS, job.key, {"footprint.json": json.dumps(outcome.metrics).encode()})
            self.recorder.probe_ended(job, title(job), outcome)

        if todo:
            self.recorder.display.start("measuring memory", len(todo))
            self._run(_one_by_one(todo), {"footprint": Kind(title, ended)}, resources=alone)
        taken = gpu_sharing.recorded(store, points)
        share = 0.0 if not memories else 1.0 if taken is None else gpu_sharing.fraction(taken, min(memories))
        self.resources = self.resources.model_copy(update={"gpus": share})
        self.recorder.display.say(gpu_sharing.describe_share(share, taken, memories))

    def preparations(self) -> dict[str, Preparation]:
        """What is missing of the baselines and scores, by key.

        Of a sampled space there may be more of them than there will be trials, or they depend on what is sampled from
        a range: then each trial makes what it needs.
        """
        todo = {p.key: p for p in self.definition.sure_preparations() if not p.done}
        few = self.config.search.sampler != "grid" and len(todo) > self.config.search.trials
        return {} if few else todo

    def search(self) -> None:
        """Make what is missing of the baselines and scores, run the trials of the sampler, measure the front.

        A trial starts as soon as what it needs is there. Failed trials are tried again; stopped ones are trained to
        their end once nothing is stopped early any more. All this runs on the same workers, as far as it can: each
        takes seconds to start.
        """
        self.recorder.fix_references(unpruned(self.definition, self.recorder.references))
        early = bool(self.definition.early_stopping_objectives)
        repeated = {Status.FAILED} if early else {Status.FAILED, Status.STOPPED}
        known = [record for record in self.recorder.records.values() if record.status not in repeated]
        proposer = Proposer(
            self.config.space,
            self.definition.search,
            key_of=self.definition.key,
            known=known,
            cost=self._cost,
            on_infeasible=lambda record: self.recorder.trial_ended(
                Job(record.key, record.point), Outcome(Status.INFEASIBLE, record.metrics)
            ),
        )
        counts = Counter(record.status for record in known)
        preparing = self.preparations()
        first = [Job(p.key, dict(p.point), "prepare") for p in preparing.values()]
        most = _WAITING if self.config.search.sampler in _INDEPENDENT else _WAITING_GUESSES
        rule = early_stopping(self.definition, self.recorder, self._cost)
        # A worker whose trial was stopped may be busy for another epoch, and those of a trial of several are reserved.
        alone = self._unmeasured if rule is None and self.resources.workers == 1 else tuple
        queue = JobQueue(first, lambda: Job(*found) if (found := proposer.ask()) else None, self._needs, most, alone)

        def ended(job: Job, outcome: Outcome) -> None:
            queue.ended(job)
            self.recorder.trial_ended(job, self._told(proposer, job, self._completed(job, outcome)))

        def prepared(job: Job, outcome: Outcome) -> None:
            queue.ended(job)
            if outcome.status is not Status.FINISHED:
                self.failed_baselines[job.key] = str(outcome.reason)
            self.recorder.baseline_ended(job, preparing[job.key].title, outcome)

        def measured(job: Job, outcome: Outcome) -> None:
            queue.ended(job)
            self.recorder.measured(job, outcome)

        display, begun = self.recorder.display, False

        def begin() -> None:
            nonlocal begun
            begun = True
            stopped = counts[Status.STOPPED]
            finished, infeasible = counts[Status.FINISHED], counts[Status.INFEASIBLE]
            display.start("trials", proposer.total, finished, infeasible=infeasible, stopped=stopped)
            self.recorder.look_at_front(now=True)

        def ask() -> Job | None:
            while (job := queue.next()) is not None and job is not LATER and job.function is None:
                if not begun:
                    begin()
                if (reason := self._failed_baseline(job)) is None:
                    return job
                ended(job, Outcome(Status.FAILED, reason=f"{BASELINE_FAILED}: {reason}"))
            return job

        if first:
            display.start("baselines and scores", len(first))
        else:
            begin()
        kinds = {
            "prepare": Kind(lambda job: preparing[job.key].title, prepared, lambda job: preparing[job.key].epochs),
            None: Kind(
                self._title,
                ended,
                lambda job: self.definition.epochs(job.point),
                rule.should_continue if rule else None,
            ),
            "measure": Kind(self._title, measured),
        }
        self._run(ask, kinds)

    def _needs(self, job: Job) -> set[str]:
        """Keys of the preparations that a trial needs."""
        return {p.key for p in self.definition.preparations([job.point])}

    def _completed(self, job: Job, outcome: Outcome) -> Outcome:
        """A trial that ended before its end reports what is known of its cost, too."""
        if outcome.status not in (Status.INFEASIBLE, Status.STOPPED):
            return outcome
        metrics = self._cost(job.point) | outcome.metrics
        if outcome.status is Status.INFEASIBLE:  # as its worker found out before the training
            return replace(outcome, metrics=metrics)
        rule = self.config.search.early_stopping.rule
        why = "could add nothing to the front" if rule == "front" else "not among the best"
        reason = f"{rule}: {why} after epoch {self.recorder.step(job.key, metrics)}"
        return replace(outcome, metrics=metrics, reason=reason)

    def _told(self, proposer: Proposer, job: Job, outcome: Outcome) -> Outcome:
        """Tell the sampler; a trial without a finite value of each objective has failed."""
        known = {name: value for name, value in outcome.metrics.items() if name != "history"}  # the record has it
        record = proposer.tell(job.key, outcome.status, known)
        if record.status is Status.FAILED and outcome.status is Status.FINISHED:
            shown = ", ".join(f"{n} = {record.metrics.get(n)}" for n in self.definition.search.objectives)
            outcome = replace(outcome, reason=f"an objective is missing or not finite: {shown}")
        assert record.status is not None
        return replace(outcome, status=record.status)

    def _failed_baseline(self, job: Job) -> str | None:
        """Why a baseline that a trial needs is not there."""
        needs = self._needs(job) if self.failed_baselines else set()
        return next((why for key, why in self.failed_baselines.items() if key in needs), None)

    def _title(self, job: Job) -> str:
        return self.definition.title(job.point)

    def _cost(self, point: Point) -> dict[str, Any]:
        try:
            return self.definition.cost(point)
        except (TrialFailed, InputError) as error:  # such as a MACs ratio that is out of reach; the trial will say so
            _log.info("%s: %s", self.definition.title(point), error)
            return {}

    def measure_on_devices(self, found: devices.Devices) -> None:
        """Have the devices measure what waits for them; what they do not get to waits for the next session."""
        recorder, display = self.recorder, self.recorder.display
        todo = [Job(record.key, record.point, "deploy") for record in found.lacking(recorder.records.values())]
        if todo:
            display.start("exporting for devices", len(todo))
            self._run(_one_by_one(todo), {"deploy": Kind(self._title, self._deployed)})

        def done(device: str, key: str, ended: Ended) -> None:
            title = recorder.records[key].title
            if ended.metrics is not None:
                found.learn(device, key, ended.metrics)
                recorder.measured_on_device(key, ended.metrics)
            if ended.reason is not None:
                display.say(f"not measured on {device}: {title}: {ended.reason}")

        def alive() -> None:
            self._check_now_and_then()
            if self.stop.requested:
                raise KeyboardInterrupt

        for name, count in found.offer(recorder.records).items():
            listen = self.config.devices[name].listen
            display.say(f"networks for {name}: {count}; its agent asks at {listen}")
        for name, left in found.measure(recorder.records, done, alive).items():
            if left:
                display.say(f"{left} trials wait for {name}; the same command measures them when it is there")
        for name, table in found.tables():
            display.say(
                f"latencies on {name} are predicted from {table.networks} networks; left out, each in turn, they are "
                f"{100 * table.error:.2g} % off on average"
            )

    def _deployed(self, job: Job, outcome: Outcome) -> None:
        self.recorder.probe_ended(job, self._title(job), outcome)

    def measure(self) -> None:
        """What only the front's members are worth, as far as that is missing, one after another."""
        if todo := self._unmeasured():
            alone = self.resources.model_copy(update={"max_concurrent": 1, "workers": 1})
            self._run(_one_by_one(todo), {"measure": Kind(self._title, self.recorder.measured)}, resources=alone)

    def _unmeasured(self) -> list[Job]:
        """The members of the front that are to be measured; the console says that it begins."""
        if self.definition.hook("measure") is None:
            return []
        members = [self.recorder.records[key] for key in self.recorder.front_candidates()]
        wanting = [record for record in members if record.key not in self._tried and self._lacks(record)]
        todo = [Job(record.key, record.point, "measure") for record in wanting]
        self._tried.update(job.key for job in todo)
        if todo:
            self.recorder.display.start("measuring the front", len(todo))
        return todo

    def _lacks(self, record: TrialRecord) -> bool:
        """Whether a member of the front has not been measured, or lacks a latency that is listed by now.

        It may also lack what its trial's module measures by now.
        """
        measured = {name: value for name, value in (record.measured or {}).items() if not devices.is_on(name)}
        if not measured or not {*getattr(self.definition.module, "MEASURED", ())} <= measured.keys():
            return True
        listed = {metric(*pair) for pair in self.config.settings.latency.pairs()}
        timed = any(name.startswith("latency_") for name in measured)  # else its trial's module measures none
        return timed and not listed.difference(self.definition.requested) <= measured.keys()

    def _check_now_and_then(self) -> None:
        if time.monotonic() - self._last_check > _ALIVE_SECONDS:
            self._check_there()
            self._last_check = time.monotonic()

    def _check_there(self) -> None:
        """Raise StorageGoneError where the study's folder is no longer what this session began in."""
        if self.token is not None:
            shared_folder.check_there(self.definition.folder, self.token)

    def _run(
        self,
        ask: Callable[[], Job | None],
        kinds: Mapping[str | None, Kind],
        resources: Resources | None = None,
    ) -> None:
        from rssearch.backend.tune import Listener

        recorder, definition, resources = self.recorder, self.definition, resources or self.resources

        def clean(said: Any) -> Any:  # reasons and notes quote what libraries say
            return uris.hidden_in(said, *self.uris)

        def title(job: Job) -> str:
            return kinds[job.function].title(job)

        def epoch(job: Job, metrics: dict[str, Any]) -> None:
            epochs = kinds[job.function].epochs(job)
            recorder.epoch(job.key, title(job), definition.params(job.point), clean(metrics), epochs)

        def recorded(job: Job, outcome: Outcome) -> None:
            self._check_there()
            kinds[job.function].ended(
                job,
                replace(
                    outcome,
                    metrics=clean(outcome.metrics),
                    reason=clean(outcome.reason),
                    notes=tuple(clean(list(outcome.notes))),
                    traceback=clean(outcome.traceback),
                ),
            )

        def should_continue(job: Job, metrics: dict[str, Any]) -> bool:
            rule = kinds[job.function].should_continue
            return rule is None or rule(job, metrics)

        listener = Listener(
            started=lambda job: recorder.begin(job.key, title(job)),
            epoch=epoch,
            retried=lambda job, reason: recorder.retried(title(job), clean(reason)),
            ended=recorded,
            should_continue=should_continue if any(kind.should_continue for kind in kinds.values()) else None,
            alive=self._check_now_and_then,
        )
        context, verbose = definition.context(self.shared, self.token, resources), recorder.display.verbose
        self.run_jobs(ask, self.config.trial, context, resources, listener, stop=self.stop, verbose=verbose)


def _one_by_one(jobs: Iterable[Job]) -> Callable[[], Job | None]:
    """What gives one job after another."""
    left = iter(jobs)
    return lambda: next(left, None)
