"""Optuna <-> Ray Tune, our own ask/tell bridge.

Ray's OptunaSearch leaves a trial RUNNING for ever when an objective is NaN, counts a crashed trial as complete and
cannot pass constraints. Here every proposal ends in exactly one ``tell``: COMPLETE with its values and constraints,
PRUNED, or FAIL.

`Proposer` knows Optuna and nothing of Ray, `Bridge` is the thin adapter that Ray Tune calls.
"""

from __future__ import annotations

import logging
import math
import random
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rssearch.config.schema import Search
from rssearch.config.space import Choice, Dimension, Point, draw, grid, grid_size, tidy
from rssearch.errors import InputError
from rssearch.front.constraints import is_feasible, violations
from rssearch.storage.records import Status, TrialRecord

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger(__name__)

_LISTED = 10_000  # cells: each costs a key
_HOPELESS = 1000  # points of an uncountable space, one after the other, that break the constraints: the search ends

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Capability:
    """What a sampler can do.

    Without `constraints` infeasible points are refused, but nothing is learned from them. Without `pruned` the sampler
    passes over what Optuna calls pruned, so it is told a stopped trial as complete, with its values so far.
    """

    summary: str
    many_objectives: bool = True
    constraints: bool = True
    choices: bool = True
    continuous: bool = True
    pruned: bool = False
    min_dimensions: int = 0


CAPABILITIES: dict[str, Capability] = {
    "grid": Capability("every cell, in the order of the YAML", constraints=False, pruned=True, continuous=False),
    "random": Capability("independent draws; the baseline that others must beat", constraints=False, pruned=True),
    "qmc": Capability("scrambled Sobol points; choices are drawn at random", constraints=False, pruned=True),
    "tpe": Capability(
        "tree-structured Parzen estimator, multivariate where there is one objective; 100 to 1,000 trials", pruned=True
    ),
    "nsga2": Capability("evolution by non-dominated sorting; from about 100 trials"),
    "nsga3": Capability("the same with reference points, for three and more objectives"),
    "gp": Capability("Gaussian process; up to about 500 costly trials"),
    "cmaes": Capability(
        "covariance matrix adaptation", many_objectives=False, constraints=False, choices=False, min_dimensions=2
    ),
}


def check_sampler(search: Search, space: Mapping[str, Dimension]) -> None:
    """Refuse a sampler that cannot serve the study, by name and before anything starts. Raises InputError."""
    can = CAPABILITIES[search.sampler]
    continuous = sorted(name for name, d in space.items() if d.cells() is None)
    varying_choices = sorted(name for name, d in space.items() if isinstance(d, Choice) and len(d.values) > 1)
    varying = [name for name, d in space.items() if not (isinstance(d, Choice) and len(d.values) == 1)]

    def refuse(problem: str, fits: Callable[[Capability], bool]) -> None:
        others = ", ".join(name for name, c in CAPABILITIES.items() if fits(c))
        raise InputError(f"search.sampler: {search.sampler} {problem}. Samplers that can: {others}.")

    if len(search.objectives) > 1 and not can.many_objectives:
        refuse(
            f"serves one objective, not {len(search.objectives)} ({', '.join(search.objectives)})",
            lambda c: c.many_objectives,
        )
    if continuous and not can.continuous:
        refuse(
            f"needs countable dimensions; {', '.join(continuous)} is a continuous range (give it a step)",
            lambda c: c.continuous,
        )
    if varying_choices and not can.choices:
        refuse(f"needs numeric ranges; {', '.join(varying_choices)} is a choice", lambda c: c.choices)
    if len(varying) < can.min_dimensions:
        refuse(
            f"needs at least {can.min_dimensions} dimensions that vary, not {len(varying)}",
            lambda c: c.min_dimensions <= len(varying),
        )


class Proposer:
    """Asks a sampler for points that have not been tried, and tells it how they ended.

    Args:
        space: the dimensions.
        search: sampler, budget, seed, objectives, constraints.
        key_of: the content key of a point.
        known: what ended in earlier sessions, in the order in which it ended; failed trials are proposed again.
        cost: metrics of a point that are known before it is trained; a point that breaks a constraint with them is
            told to the sampler as infeasible, and goes to `on_infeasible` instead of being proposed.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        search: Search,
        *,
        key_of: Callable[[Point], str],
        known: Iterable[TrialRecord] = (),
        cost: Callable[[Point], Metrics] | None = None,
        on_infeasible: Callable[[TrialRecord], None] | None = None,
    ) -> None:
        check_sampler(search, space)
        self.space, self.search = dict(space), search
        self._key_of, self._cost, self._on_infeasible = key_of, cost, on_infeasible
        self.size = grid_size(space)
        self.outcomes: dict[str, TrialRecord] = {}
        self._infeasible = 0  # of the outcomes
        self._refused = 0  # trials in a row that were started, and turned out infeasible
        self._pending: dict[str, tuple[Point, optuna.Trial | None]] = {}
        self._cells: Iterator[Point] = grid(space) if search.sampler == "grid" else iter(())
        self._study: optuna.Study | None = None
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {}  # one for all trials
        if search.sampler != "grid":
            from rssearch.sampling.optuna_study import distributions, optuna_study

            self._study, self._distributions = optuna_study(search, space), distributions(space)
        for outcome in known:
            if outcome.status is not Status.FAILED:
                self._keep(outcome)
                self._replay(outcome)

    @property
    def total(self) -> int:
        """How many trials the study will have, if none is infeasible."""
        if self.search.sampler == "grid" and self.size is not None:
            return self.size
        return min(self.search.trials, self.size or self.search.trials)

    @property
    def used(self) -> int:
        """How much of the budget is spent or under way. Infeasible points cost nothing and do not count."""
        return len(self._pending) + len(self.outcomes) - self._infeasible

    def ask(self) -> tuple[str, Point] | None:
        """The next key and point to run, or None when the budget is spent or nothing new is left."""
        if self._refused >= _HOPELESS and self.size is None:
            _log.warning("%d trials in a row broke the constraints: the search ends", self._refused)
            return None
        for refused, (point, trial) in enumerate(self._candidates(), 1):
            key = self._key_of(point)
            if self._is_feasible(key, point, trial):
                self._pending[key] = (point, trial)
                return key, point
            if refused == _HOPELESS and self.size is None:
                _log.warning("%d points in a row break the constraints: the search ends", refused)
                break
        return None

    def tell(self, key: str, status: Status, metrics: Metrics) -> TrialRecord:
        """Record how a proposed trial ended; an objective that is missing or not finite makes it a failed one."""
        point, trial = self._pending.pop(key)
        if status is Status.FINISHED:
            if not all(_is_finite(metrics.get(name)) for name in self.search.objectives):
                status = Status.FAILED
            elif not is_feasible(self.search.constraints, metrics):
                status = Status.INFEASIBLE
        self._refused = self._refused + 1 if status is Status.INFEASIBLE else 0
        outcome = TrialRecord(key, point, status, metrics=metrics)
        # Known from now on also when failed: within a session a failed point is not proposed a second time.
        self._keep(outcome)
        self._tell(trial, outcome)
        return outcome

    def _keep(self, outcome: TrialRecord) -> None:
        self.outcomes[outcome.key] = outcome
        self._infeasible += outcome.status is Status.INFEASIBLE

    def _candidates(self) -> Iterator[tuple[Point, optuna.Trial | None]]:
        """Points that are neither known nor under way, as the sampler proposes them.

        Optuna's samplers may propose a point twice, and a study that resumes replays its seeded draws from the first
        (https://github.com/optuna/optuna/issues/2021). So known points are passed over, which Optuna has to be told as
        failed, since a trial that is asked for and never told counts as running for ever.
        """
        if self._study is None:
            for point in self._cells:
                if self._key_of(point) not in self.outcomes:
                    yield point, None
            return
        repeats = 0
        while self.used < self.search.trials:
            if self.size is not None and len(self.outcomes) + len(self._pending) >= self.size:
                return
            if repeats >= self._patience:
                self._study.enqueue_trial(self._random_point())
            trial, point = self._ask_sampler()
            key = self._key_of(point)
            if key not in self._pending and key not in self.outcomes:
                yield point, trial  # if it turns out infeasible, the loop continues from here
                continue
            self._study.tell(trial, state=_state("FAIL"))  # it taught the sampler something when it was run
            repeats += 1
            if repeats > self._patience + 1000:
                _log.warning("%s proposed nothing new %d times in a row: the search ends", self.search.sampler, repeats)
                return

    @property
    def _patience(self) -> int:
        """How many known points a sampler may propose in a row before a new one is drawn at random.

        Seeded draws begin with the points that an earlier session has run, and are followed through them; a sampler
        with a model that proposes a known point would do so again.
        """
        return 100 + 2 * len(self.outcomes) if self.search.sampler in {"random", "qmc"} else 5

    def _ask_sampler(self) -> tuple[optuna.Trial, Point]:
        assert self._study is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=_experimental_warning())
            trial = self._study.ask(self._distributions)
        return trial, {name: tidy(trial.params[name]) for name in self.space}

    def _random_point(self) -> Point:
        """A point drawn at random; in a countable space that can be listed one that has not been tried."""
        rng = random.Random(self.search.seed + len(self.outcomes))
        if self.size is not None and self.size <= _LISTED:
            known = self.outcomes.keys() | self._pending.keys()
            return rng.choice([point for point in grid(self.space) if self._key_of(point) not in known])
        return {name: draw(dimension, rng) for name, dimension in self.space.items()}

    def _is_feasible(self, key: str, point: Point, trial: optuna.Trial | None) -> bool:
        if self._cost is None or not self.search.constraints:
            return True
        metrics = self._cost(point)
        if is_feasible(self.search.constraints, metrics):
            return True
        outcome = TrialRecord(key, point, Status.INFEASIBLE, metrics=metrics)
        self._keep(outcome)
        self._tell(trial, outcome)
        if self._on_infeasible is not None:
            self._on_infeasible(outcome)
        return False

    def _tell(self, trial: optuna.Trial | None, outcome: TrialRecord) -> None:
        if trial is None or self._study is None:
            return
        if outcome.status is Status.FAILED:
            self._study.tell(trial, state=_state("FAIL"))
            return
        constraints = self.search.constraints if CAPABILITIES[self.search.sampler].constraints else {}
        for name, value in violations(constraints, outcome.metrics).items():
            trial.set_constraint(name, value)
        if not self._is_pruned(outcome):
            self._study.tell(trial, self._values(outcome.metrics))
            return
        for step, value in self._so_far(outcome).items():
            trial.report(value, step)
        self._study.tell(trial, state=_state("PRUNED"))

    def _replay(self, outcome: TrialRecord) -> None:
        """Show the sampler a trial of an earlier session."""
        if self._study is None:
            return
        import optuna

        pruned = self._is_pruned(outcome)
        so_far = self._so_far(outcome) if pruned else {}
        self._study.add_trial(
            optuna.trial.create_trial(
                state=_state("PRUNED" if pruned else "COMPLETE"),
                params={name: outcome.point[name] for name in self.space},
                distributions=self._distributions,
                values=(list(so_far.values()) or None) if pruned else self._values(outcome.metrics),
                intermediate_values=so_far,
                constraints=violations(self.search.constraints, outcome.metrics) or None,
            )
        )

    def _is_pruned(self, outcome: TrialRecord) -> bool:
        return outcome.status is Status.STOPPED and CAPABILITIES[self.search.sampler].pruned

    def _so_far(self, outcome: TrialRecord) -> dict[int, float]:
        """The value of a stopped trial by its epoch: Optuna takes one only of a study with one objective."""
        (name, *more) = self.search.objectives
        value = outcome.metrics.get(name)
        return {} if more or not _is_finite(value) else {int(outcome.metrics.get("epoch", 0)): float(value or 0.0)}

    def _values(self, metrics: Metrics) -> list[float]:
        """The objectives.

        One that was not measured (the point was infeasible) takes the median of those that were, so that it draws the
        sampler's model neither up nor down.
        """
        values = []
        for name in self.search.objectives:
            value = metrics.get(name)
            if not _is_finite(value):
                seen = [o.metrics[name] for o in self.outcomes.values() if _is_finite(o.metrics.get(name))]
                value = statistics.median(seen) if seen else 0.0
            values.append(float(value or 0.0))
        return values


def quiet() -> None:
    """Let Optuna log errors alone: a study tells of its trials itself."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _state(name: str) -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState[name]


def _experimental_warning() -> type[Warning]:
    import optuna

    return optuna.exceptions.ExperimentalWarning
