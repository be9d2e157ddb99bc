"""Early stopping in a study: what its trials are worth so far, and what those of earlier sessions were worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from rssearch.config.space import Point
from rssearch.front.constraints import is_feasible
from rssearch.front.trials import dataset_of
from rssearch.sampling.early_stopping import Halving
from rssearch.sampling.prospects import Prospects
from rssearch.storage.records import Status, TrialRecord
from rssearch.study.definition import StudyDefinition
from rssearch.study.recorder import Recorder
from rssearch.trial.jobs import Job

Metrics = dict[str, Any]


class EarlyStopping(ABC):
    """The rule of a study, ready to resume where an earlier session ended.

    Args:
        definition: of the study; it names the objectives that trials are compared by.
        recorder: keeps what trials are compared by, and knows the epochs of earlier sessions.
        cost: metrics of a point that are known before it is trained.
    """

    def __init__(self, definition: StudyDefinition, recorder: Recorder, cost: Callable[[Point], Metrics]) -> None:
        self.definition, self.recorder, self._cost = definition, recorder, cost
        self.rule = definition.config.search.early_stopping
        self._beforehand = [name for name in definition.early_stopping_objectives if name not in definition.reported]

    @abstractmethod
    def should_continue(self, job: Job, metrics: Metrics) -> bool:
        """Whether a trial may continue after an epoch. The last epoch ends no trial early."""

    def _group(self, point: Point) -> str | None:
        """Qualities on different datasets cannot be compared, nor an epoch of training with one of fine-tuning."""
        dataset, peers = dataset_of(point), self.definition.hook("peers")
        return dataset if peers is None else f"{dataset}, {peers(point, self.definition.config.settings)}"

    def _is_last(self, point: Point, epoch: int) -> bool:
        last = self.definition.epochs(point)
        return last is not None and epoch >= last

    def _worth(self, point: Point, metrics: Mapping[str, Any], final: Mapping[str, Any] | None = None) -> Metrics:
        """What a trial is judged by after an epoch: what the epoch reported, and what is known from the beginning."""
        if not self._beforehand:
            return dict(metrics)
        known = final if final and all(name in final for name in self._beforehand) else self._cost(point)
        return {**metrics, **{name: known[name] for name in self._beforehand if name in known}}


class AmongTheBest(EarlyStopping):
    """`asha` and `moasha`: trials are compared at rungs."""

    def __init__(self, definition: StudyDefinition, recorder: Recorder, cost: Callable[[Point], Metrics]) -> None:
        super().__init__(definition, recorder, cost)
        objectives = definition.early_stopping_objectives
        self.halving = Halving(objectives, first=self.rule.first, factor=self.rule.factor)
        for record in (*recorder.interrupted.values(), *recorder.records.values()):
            self._remember(record)

    def should_continue(self, job: Job, metrics: Metrics) -> bool:
        """See `EarlyStopping`."""
        key, epoch = job.key, self.recorder.step(job.key, metrics)
        group = self._group(job.point)
        if self._is_last(job.point, epoch) or self.halving.has(key, group, epoch):
            return True
        if not self.halving.should_continue(key, group, epoch, self._worth(job.point, metrics)):
            return False
        if self.halving.has(key, group, epoch):  # else it could not be compared
            self.recorder.record_rung(job, metrics)
        return True

    def _remember(self, record: TrialRecord) -> None:
        """Put the epochs of a trial of an earlier session into the rungs that they reached."""
        point = record.point
        for number, metrics in enumerate(record.history, 1):
            place = record.key, self._group(point), int(metrics.get("epoch") or number)
            if not self.halving.has(*place) and not self._is_last(point, place[2]):
                self.halving.enter(*place, self._worth(point, metrics, record.metrics))


class ForTheFront(EarlyStopping):
    """`front`: a trial ends once it could add next to nothing to the front."""

    def __init__(self, definition: StudyDefinition, recorder: Recorder, cost: Callable[[Point], Metrics]) -> None:
        super().__init__(definition, recorder, cost)
        self.prospects = Prospects(definition.early_stopping_objectives, definition.reported)
        self._seen: set[str] = set()

    def should_continue(self, job: Job, metrics: Metrics) -> bool:
        """See `EarlyStopping`."""
        epoch, last = self.recorder.step(job.key, metrics), self.definition.epochs(job.point)
        if last is None or not self.rule.first <= epoch < last:
            return True
        self._look_at_finished()
        reference = self.recorder.references.get(dataset_of(job.point), {})
        worth = self._worth(job.point, metrics)
        return self.prospects.should_continue(self._group(job.point), epoch, last, worth, reference)

    def _look_at_finished(self) -> None:
        for key in [key for key in self.recorder.records if key not in self._seen]:
            record = self.recorder.records[key]
            self._seen.add(key)
            if record.status is Status.FINISHED and len(record.history) == self.definition.epochs(record.point):
                feasible = is_feasible(self.definition.config.search.constraints, record.metrics)
                self.prospects.finished(self._group(record.point), record.history, record.metrics, feasible=feasible)


def early_stopping(
    definition: StudyDefinition, recorder: Recorder, cost: Callable[[Point], Metrics]
) -> EarlyStopping | None:
    """The rule of a study; None where no trial is stopped."""
    if not definition.early_stopping_objectives:
        return None
    kind = ForTheFront if definition.config.search.early_stopping.rule == "front" else AmongTheBest
    return kind(definition, recorder, cost)
