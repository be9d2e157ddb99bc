"""What a study would run and what that would cost, known without training anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rssearch.backend import gpu_sharing
from rssearch.config.schema import Resources, StudyConfig
from rssearch.config.space import Point
from rssearch.errors import InputError, TrialFailed
from rssearch.front.constraints import is_feasible
from rssearch.storage.journal import Journal
from rssearch.storage.records import Status, TrialRecord
from rssearch.study.definition import LOOKED_AT, StudyDefinition, sample_note, spread
from rssearch.study.progress import duration
from rssearch.trial.interface import Preparation
from rssearch.trial.session import Session

__all__ = ["Plan", "plan"]

FEW = 100  # trials below which successive halving leaves too few for a front, see benchmarks/early_stopping.py


@dataclass(frozen=True)
class Plan:
    """The size of a study.

    Attributes:
        trials: the budget, or the cells of the grid.
        checked: points of the space that were looked at.
        sampled: whether these are a sample, because the space has too many others.
        macs: smallest and largest MACs of the points whose cost is known; of a large sampled space, of `LOOKED_AT`
            points spread over it.
        macs_unknown: points whose cost depends on scores that are not computed yet.
        infeasible: points that will be refused for their cost.
        images: what the images of each dataset are made of, and what becomes of their values, in words.
        trial: what one trial takes of a cluster, in words.
        at_once: trials that this machine can hold together; None where that has to be measured.
        hours: compute of one slot for what is left.
        outlay: epochs of the whole network that a front of each method trains in all, the cheapest first; of a grid.
        resolved: the YAML with every default, without secrets.
    """

    study: str
    sampler: str
    trials: int
    checked: int
    sampled: bool
    finished: int
    stopped: int
    baselines: int
    baselines_ready: int
    scores_to_compute: int
    sensitivities_to_measure: int
    searches: int
    searches_ready: int
    macs: tuple[int, int] | None
    macs_unknown: int
    infeasible: int
    images: tuple[str, ...]
    trial: str
    at_once: int | None
    hours: float | None
    hours_basis: str
    outlay: dict[str, float]
    resolved: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For the console."""
        unknown = f"; {self.macs_unknown} depend on scores that are not computed yet" if self.macs_unknown else ""
        macs = f"{_short(self.macs[0])} to {_short(self.macs[1])}" if self.macs else "not known before the trials"
        stopped = f", {self.stopped} stopped" if self.stopped else ""
        refused = f", {self.infeasible} infeasible by their cost" if self.infeasible else ""
        hours = (
            "unknown" if self.hours is None else f"about {duration(self.hours * 3600)} of one slot ({self.hours_basis})"
        )
        at_once = "" if self.at_once is None else f"; {self.at_once} at once on this machine"
        searches = f"searches   {self.searches}, {self.searches_ready} ready"
        scores = f"scores to compute: {self.scores_to_compute}"
        if self.sensitivities_to_measure:
            scores += f"; sensitivities to measure: {self.sensitivities_to_measure}"
        checked = f"space      {sample_note(self.checked)}"
        return [
            f"study      {self.study} ({self.sampler})",
            f"trials     {self.trials}, {self.finished} finished{stopped}{refused}",
            *([checked] if self.sampled else []),
            *(f"images     {what}" for what in self.images),
            f"baselines  {self.baselines}, {self.baselines_ready} ready; {scores}",
            *([searches] if self.searches else []),
            f"MACs       {macs}{unknown}",
            f"resources  {self.trial}{at_once}",
            f"compute    {hours}",
            *([f"training   {_outlay(self.outlay)}"] if self.outlay else []),
            *self._on_early_stopping(),
        ]

    def _on_early_stopping(self) -> list[str]:
        rule = self.resolved["search"]["early_stopping"]["rule"]
        if rule not in ("asha", "moasha") or self.trials >= FEW:
            return []
        better = "take none, or `front`, which saves less and keeps it"
        return [f"stopping   {rule} leaves few of {self.trials} trials for a front: {better}"]


def plan(config: StudyConfig) -> Plan:
    """Look at a study without training or writing anything.

    Raises:
        InputError: the study cannot be run as it is.
    """
    definition = StudyDefinition(config)
    journal = Journal(definition.folder / "trials.jsonl")
    ended = definition.current(journal)
    finished = [r for r in ended if r.status is Status.FINISHED]
    stopped = sum(r.status is Status.STOPPED for r in ended) if definition.early_stopping_objectives else 0
    budget = len(definition.points) if config.search.sampler == "grid" else config.search.trials
    needed = definition.preparations(definition.points)
    known, unknown, infeasible = [], 0, 0
    points = definition.points if config.search.sampler == "grid" else spread(definition.points, LOOKED_AT)
    for point in points:
        try:
            metrics = definition.cost(point)
        except (TrialFailed, InputError):  # such as a MACs ratio that is out of reach
            infeasible += 1
            continue
        if "macs" not in metrics:
            unknown += 1
            continue
        known.append(int(metrics["macs"]))
        infeasible += not is_feasible(config.search.constraints, metrics)
    outlay = definition.hook("outlay") if config.search.sampler == "grid" else None
    hours, basis = _estimate(definition, finished, budget - len(finished) - stopped, needed)
    return Plan(
        study=config.study,
        sampler=config.search.sampler,
        trials=budget,
        checked=len(definition.points),
        sampled=definition.sampled,
        finished=len(finished),
        stopped=stopped,
        baselines=min(budget, sum("baselines" in p.parts for p in needed)),
        baselines_ready=sum(p.parts.get("baselines") == 0 for p in needed),
        scores_to_compute=min(budget, sum(p.parts.get("scores", 0) for p in needed)),
        sensitivities_to_measure=min(budget, sum(p.parts.get("sensitivities", 0) for p in needed)),
        searches=min(budget, sum("searches" in p.parts for p in needed)),
        searches_ready=sum(p.parts.get("searches") == 0 for p in needed),
        macs=(min(known), max(known)) if known else None,
        macs_unknown=unknown if definition.hook("cost") else 0,
        infeasible=infeasible,
        images=_images(definition),
        trial=_takes(definition),
        at_once=_at_once(config.resources),
        hours=hours,
        hours_basis=basis,
        outlay=dict(outlay(definition.points, config.settings)) if outlay else {},
        resolved=config.masked(),
    )


def _outlay(epochs: Mapping[str, float]) -> str:
    """The ways to a front, the cheapest first."""
    return "epochs of the whole network for one front: " + ", ".join(f"{n} {v:.3g}" for n, v in epochs.items())


def _images(definition: StudyDefinition) -> tuple[str, ...]:
    """What a trial's module says of the images of its points, each thing once."""
    describe = definition.hook("describe")
    if describe is None:
        return ()
    first = {str(point.get("dataset")): point for point in reversed(definition.points)}
    return tuple(
        dict.fromkeys(describe(point, Session(definition.context(), "", point)) for point in reversed(first.values()))
    )


def _estimate(
    definition: StudyDefinition, finished: list[TrialRecord], left: int, needed: list[Preparation]
) -> tuple[float | None, str]:
    """Hours of compute for the trials that are left and the baselines that are not ready, and how they were found.

    A search takes two steps for each step of a training. What says how many epochs it has counts by these.
    """
    settings, estimate = definition.config.settings, definition.hook("estimate")
    times = [r.ended - r.started for r in finished if r.started]

    def probe(point: Point, epochs: int) -> float:
        assert estimate is not None
        return float(estimate(point, Session(definition.context(), "", point), epochs))

    if times:
        trial, basis = sum(times) / len(times), "from past trials"
    elif estimate is None:
        return None, ""
    else:
        points = spread(definition.points, LOOKED_AT)
        asked = [definition.epochs(p) for p in points]
        epochs = [settings.finetune.epochs if number is None else number for number in asked]
        alike = {(p.get("model"), number): p for p, number in zip(points, epochs, strict=True)}
        counts = Counter((p.get("model"), number) for p, number in zip(points, epochs, strict=True))
        trial = sum(probe(p, pair[1]) * counts[pair] for pair, p in alike.items()) / len(points)
        basis = "from a timing probe on this machine"
    todo = [(p, p.parts.get("baselines", 0) + 2 * p.parts.get("searches", 0)) for p in needed]
    before = 0.0
    if estimate is not None:
        before = sum(
            trainings * probe(p.point, settings.train.epochs if p.epochs is None else p.epochs)
            for p, trainings in todo
            if trainings
        )
        before *= min(1.0, left / len(todo)) if definition.config.search.sampler != "grid" and todo else 1.0
    return (before + trial * max(0, left)) / 3600, basis


def _takes(definition: StudyDefinition) -> str:
    """What one trial takes of a cluster."""
    needs = definition.config.resources
    if needs.gpus == "auto":
        taken = gpu_sharing.recorded(definition.store, definition.peak_memory_points())
        known = "measured at the start" if taken is None else f"{taken / 2**30:.2f} GiB of its memory, as measured"
        gpus = f"a share of a GPU ({known})"
    elif needs.gpus is None:
        share = gpu_sharing.default_share([_here()], needs)
        gpus = f"{share:g} GPUs" if share else "no GPU (one where the cluster has any)"
    else:
        gpus = f"{needs.gpus:g} GPUs"
    one = f"{needs.cpus:g} CPUs, {gpus}"
    return f"a trial takes {one}" if needs.workers == 1 else f"a trial takes {needs.workers} workers, each {one}"


def _at_once(needs: Resources) -> int | None:
    """Trials that this machine can hold together."""
    if needs.gpus == "auto":
        return None
    share = gpu_sharing.default_share([_here()], needs) if needs.gpus is None else needs.share
    room = gpu_sharing.slots([_here()], needs.cpus, share, needs.workers)
    return min(room, needs.max_concurrent or room)


def _here() -> dict[str, float]:
    """The CPUs and GPUs of this machine."""
    import torch

    from rssearch.data.decode import available_cpus

    return {"CPU": available_cpus(), "GPU": torch.cuda.device_count()}


def _short(macs: int) -> str:
    return f"{macs / 1e9:.3g} G" if macs >= 1e9 else f"{macs / 1e6:.3g} M"
