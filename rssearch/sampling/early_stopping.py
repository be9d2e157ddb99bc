"""Early stopping: asynchronous successive halving by one objective (ASHA) or by several (MOASHA).

`Halving` decides and knows nothing of Ray; `TuneScheduler` is the thin adapter that Ray Tune calls.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rssearch.errors import InputError
from rssearch.front.incremental import Layers
from rssearch.front.pareto import Direction, layers

RULES = {
    "none": "every trial trains to its last epoch",
    "asha": "asynchronous successive halving by the one objective that epochs report",
    "moasha": "the same by non-dominated sorting of all objectives, such as accuracy so far against MACs",
    "front": "trials end once they could add next to nothing to the front, by the gains of those that finished",
}


class Halving:
    """Which trials continue at the rungs: after first, first * factor, first * factor^2, ... epochs.

    A trial is compared at each rung once, when it reaches it: it continues if it is among the best ceil(n / factor)
    of the n trials that have reached the rung so far, itself included. So no trial waits for another one (Li et al.
    2020, "A system for massively parallel hyperparameter tuning": the variant that stops instead of pausing).

    Trials are ordered by their non-dominated layers, and where the limit lies within a layer by an epsilon-net of it:
    the best by the first objective, then always the one that is furthest from those before, each objective in units of
    its span over the rung (Schmucker et al. 2021, "Multi-objective asynchronous successive halving", arXiv:2106.12639).
    With one objective that is the order of its values. Equal points share their fate, for better: trials that are
    all alike all continue.

    Args:
        objectives: names and directions.
        first: epochs of the first rung.
        factor: one in so many trials continues.
    """

    def __init__(self, objectives: Mapping[str, Direction], *, first: int = 1, factor: int = 3) -> None:
        self.objectives, self.first, self.factor = dict(objectives), first, factor
        # Only trials of one group (a dataset) are compared.
        self._reached: dict[tuple[str | None, int], _Rung] = defaultdict(partial(_Rung, [*objectives.values()]))

    def rung(self, epoch: int) -> int | None:
        """The epochs of the highest rung at or below `epoch`; None before the first one."""
        if epoch < self.first:
            return None
        rung = self.first
        while rung * self.factor <= epoch:
            rung *= self.factor
        return rung

    def has(self, key: str, group: str | None, epoch: int) -> bool:
        """Whether a trial has nothing to be judged by after this epoch: it is below all rungs, or known at its rung."""
        rung = self.rung(epoch)
        return rung is None or key in self._reached[group, rung].keys

    def enter(self, key: str, group: str | None, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Write down what a trial is worth at the rung that it has reached.

        Returns:
            Whether that is known: it is not where an objective is missing or not finite.
        """
        values = [metrics.get(name) for name in self.objectives]
        rung = self.rung(epoch)
        if rung is None or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            return False
        self._reached[group, rung].add(key, [float(value) for value in values if value is not None])
        return True

    def should_continue(self, key: str, group: str | None, epoch: int, metrics: Mapping[str, Any]) -> bool:
        """Whether a trial may train on after this epoch.

        Args:
            key: of the trial.
            group: only trials of the same group are compared.
            epoch: how many it has trained; the first report at or above a rung counts for it.
            metrics: the objectives so far. A trial that lacks one is not judged.
        """
        if self.has(key, group, epoch) or not self.enter(key, group, epoch, metrics):
            return True
        rung = self.rung(epoch)
        assert rung is not None
        reached = self._reached[group, rung]
        return reached.keeps_last(math.ceil(len(reached.keys) / self.factor))


class _Rung:
    """What trials were worth at a rung, in an order that grows with them.

    One objective is a sorted list, two are layers of neighbours; more are sorted again for each decision.
    """

    def __init__(self, directions: Sequence[Direction]) -> None:
        self.keys: set[str] = set()
        self._directions = directions
        self._signs = [-1.0 if direction == "max" else 1.0 for direction in directions]
        self._least, self._most = [math.inf] * len(directions), [-math.inf] * len(directions)
        self._costs: list[float] = []
        self._layers = Layers()
        self._points: list[list[float]] = []
        self._last, self._layer = [0.0], 0

    def add(self, key: str, values: list[float]) -> None:
        """Take up a trial; its first values count."""
        if key in self.keys:
            return
        self.keys.add(key)
        self._least, self._most = [*map(min, self._least, values)], [*map(max, self._most, values)]
        self._last = values
        costs = [value * sign for value, sign in zip(values, self._signs, strict=True)]
        match costs:
            case [cost]:
                insort(self._costs, cost)
            case [first, second]:
                self._layer = self._layers.add(first, second)
            case _:
                self._points.append(values)

    def keeps_last(self, count: int) -> bool:
        """Whether the last trial that came is among the best `count`."""
        match self._signs:
            case [sign]:
                return bisect_left(self._costs, self._last[0] * sign) < count
            case [first, second]:
                left = count - self._layers.better(self._layer)
                peers = self._layers.distinct(self._layer) if left > 0 else []
                if left <= 0 or left >= len(peers):
                    return left > 0
                span = np.subtract(self._most, self._least)
                return _in_net(np.array(peers) * [first, second], self._last, span, self._directions, left)
            case _:
                return among_best(np.array(self._points), self._directions, count)


def among_best(points: NDArray[np.float64], directions: Sequence[Direction], count: int) -> bool:
    """Whether the last of the points is among the best `count`, in the order that `Halving` describes.

    Args:
        points: [N, M].
        directions: ``max`` or ``min`` for each of the M objectives.
        count: at least 1.
    """
    layer = layers(points, directions)
    left = count - int((layer < layer[-1]).sum())
    if left <= 0:
        return False
    return _in_net(points[layer == layer[-1]], points[-1], np.ptp(points, axis=0), directions, left)


def _in_net(
    layer: NDArray[np.float64],
    point: ArrayLike,
    span: NDArray[np.float64],
    directions: Sequence[Direction],
    count: int,
) -> bool:
    """Whether a point of a layer [N, M] is in its epsilon-net of so many points; `span` is that of all points, [M]."""
    units = np.where(span > 0, span, 1.0)
    if directions[0] == "max":
        units[0] *= -1
    peers = np.unique(layer / units, axis=0)  # by rising cost in the first objective
    own = int(np.flatnonzero((peers == np.asarray(point) / units).all(axis=1))[0])
    return count >= len(peers) or own in _spread(peers, count)


def _spread(points: NDArray[np.float64], count: int) -> list[int]:
    """The first point, and always the one that is furthest from all before, until there are `count`. [N, M]."""
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def stopping_objectives(
    rule: str, objectives: Mapping[str, Direction], reported: Sequence[str], module: str
) -> dict[str, Direction]:
    """The objectives that a rule judges by.

    Args:
        rule: ``asha``, ``moasha`` or ``front``.
        objectives: of the study.
        reported: what the trial's module reports in every epoch (its `EPOCH_METRICS`).
        module: its name, for the message.

    Raises:
        InputError: no objective is reported by epoch, or more than one is, and the rule is for one.
    """
    by_epoch = {name: direction for name, direction in objectives.items() if name in reported}
    if not by_epoch:
        shown = f"those of {module} report {', '.join(reported)}" if reported else f"{module} has no EPOCH_METRICS"
        raise InputError(
            f"search.early_stopping: {rule} needs an objective that trials report in every epoch, and none of "
            f"{', '.join(objectives)} is one; {shown}"
        )
    if rule in ("moasha", "front"):
        return dict(objectives)
    if len(by_epoch) > 1:
        raise InputError(
            f"search.early_stopping: asha judges by one objective, and epochs report {len(by_epoch)} of them "
            f"({', '.join(by_epoch)}); take moasha"
        )
    return by_epoch
