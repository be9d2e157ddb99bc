"""Studies in virtual time: schedulers, samplers and resume on thousands of trials in seconds, without Ray.

The study is the real one (definition, proposals, early stopping, journal, report), and so are its trials, which are
called in this process and must be cheap. Only time is made up: an epoch lasts as long as its metric ``seconds`` says.
`trials.curves` has trials that follow learning curves, synthetic or recorded.
"""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable
from itertools import count
from typing import Any

from rich.console import Console

from rssearch.backend.stop import Stop
from rssearch.backend.tune import Listener
from rssearch.config.schema import Resources, StudyConfig
from rssearch.errors import InputError, TrialFailed
from rssearch.sampling.sampler import quiet
from rssearch.storage.journal import Journal
from rssearch.storage.records import Status
from rssearch.study.definition import StudyDefinition
from rssearch.study.progress import Display
from rssearch.study.recorder import Recorder
from rssearch.study.stages import Stages
from rssearch.tracking.client import Tracker
from rssearch.trial.hooks import resolve
from rssearch.trial.interface import Metrics
from rssearch.trial.jobs import LATER, Job, Outcome
from rssearch.trial.session import Context, Session
from rssearch.trial.worker import call

EPOCH_SECONDS = 1.0  # of an epoch whose metrics do not say


class Simulator:
    """Runs jobs on `slots` slots in virtual time; `run_jobs` stands in for `rssearch.backend.tune.run_jobs`.

    Attributes:
        now: virtual seconds since the simulator was made.
        busy: virtual seconds that all slots together were in use.
    """

    def __init__(self, slots: int) -> None:
        self.slots, self.now, self.busy = slots, 0.0, 0.0

    def run_jobs(
        self,
        ask: Callable[[], Job | None],
        target: str,
        context: Context,
        resources: Resources,
        listener: Listener,
        *,
        stop: Stop,
        verbose: bool,  # noqa: ARG002
    ) -> None:
        """Run jobs until `ask` gives None and all have ended; the arguments are those of the real one.

        The first slots to be free get the next jobs. Nothing happens at the same time: events of one moment keep the
        order in which their epochs began.
        """
        module = target.partition(":")[0]
        slots = min(self.slots, resources.max_concurrent or self.slots)
        events: list[tuple[float, int, Job, list[Metrics], Outcome]] = []  # when an epoch ends, and what follows
        number, more = count(), True

        def wait(job: Job, epochs: list[Metrics], outcome: Outcome) -> None:
            seconds = float(epochs[0].get("seconds", EPOCH_SECONDS)) if epochs else 0.0
            self.busy += seconds
            heapq.heappush(events, (self.now + seconds, next(number), job, epochs, outcome))

        while True:
            while more and len(events) < slots:
                job = ask()
                if job is None or job is LATER:
                    more = job is LATER
                    break
                listener.started(job)
                function, _ = resolve(target if job.function is None else f"{module}:{job.function}")
                wait(job, *_called(function, context, job))
            if not events:
                return
            self.now, _, job, epochs, outcome = heapq.heappop(events)
            if stop.requested:
                raise KeyboardInterrupt
            if not epochs:
                listener.ended(job, outcome)
                continue
            should_continue = listener.should_continue is None or listener.should_continue(job, epochs[0])
            listener.epoch(job, epochs[0])
            if should_continue:
                wait(job, epochs[1:], outcome)
            else:
                listener.ended(job, Outcome(Status.STOPPED, epochs[0]))


def _called(function: Callable[..., Any], context: Context, job: Job) -> tuple[list[Metrics], Outcome]:
    """What a trial reports after each epoch, and how it ends."""
    epochs: list[Metrics] = []
    session = Session(context, job.key, dict(job.point), epochs.append)
    try:
        result = call(function, {**job.point, "settings": context.settings.model_dump(mode="json")}, session)
    except (TrialFailed, InputError) as error:
        return epochs, Outcome(Status.FAILED, reason=str(error))
    return epochs, Outcome(Status.FINISHED, dict(result))


class Untracked(Tracker):
    """A record in MLflow that is not kept: thousands of runs take minutes to write."""

    def __init__(self) -> None:
        pass

    def close(self, *_: Any, **__: Any) -> int:
        """Nothing waits."""
        return 0

    def left(self, *_: Any) -> None:
        """Nothing is missing."""

    def _say(self, name: str, **arguments: Any) -> None:
        pass


def simulate(config: StudyConfig, simulator: Simulator, tracker: Tracker | None = None) -> Recorder:
    """Run a study in virtual time, or resume it. Its journal is written; its report where the recorder is closed.

    Args:
        config: the study.
        simulator: what it runs on.
        tracker: the record in MLflow; None: none.

    Raises:
        InputError: the study cannot be run as it is.
    """
    quiet()
    definition = StudyDefinition(config)
    display = Display(Console(file=io.StringIO()))
    recorder = Recorder(definition, Journal(definition.folder / "trials.jsonl"), tracker or Untracked(), display)
    stages = Stages(definition, recorder, {}, None, Stop(), simulator.run_jobs)
    stages.search()
    stages.measure()
    return recorder
