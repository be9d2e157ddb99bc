"""Early stopping that keeps a front: what a trial can still reach, from the learning curves of those that finished."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rssearch.front.pareto import Direction, hypervolume

KNOWN = 4  # trials of a group that finish before one is stopped: fewer say too little of how curves go on
PART = 3  # no trial ends in the first third of its epochs: what a learning rate is worth shows later
LEAST = 0.002  # the share of the hypervolume that a trial must be able to add


@dataclass(frozen=True)
class _Curve:
    """A finished trial: what it reported by epoch, and what it was worth in the end."""

    epochs: Sequence[Mapping[str, Any]]
    final: Mapping[str, Any]
    member: bool


class Prospects:
    """Which trials can still matter to the front of a study.

    The bound of a trial after an epoch is what it is worth now, and in the objectives that epochs report, the largest
    gain that a finished trial of its group had from that epoch to its end. A trial at its bound would add so much to
    the hypervolume of the group's finished trials; it continues while that is at least `LEAST` of it. So what is dear
    and no better is stopped, what is cheap and worse is not, and the first trials of a group all finish. It is a rule
    of thumb, not a proof: a trial that learns later than all before it is stopped too early. So none ends in the first
    third of its epochs, where that happens most (`benchmarks/early_stopping.py orders`).

    Args:
        objectives: names and directions.
        reported: those that epochs report; the others are known before the training.
    """

    def __init__(self, objectives: Mapping[str, Direction], reported: Sequence[str]) -> None:
        self.objectives, self.reported = dict(objectives), [name for name in objectives if name in reported]
        self._finished: dict[tuple[str | None, int], list[_Curve]] = defaultdict(list)

    def finished(
        self, group: str | None, epochs: Sequence[Mapping[str, Any]], final: Mapping[str, Any], *, feasible: bool
    ) -> None:
        """A trial ended after its last epoch; one that is not `feasible` has a learning curve, but is on no front."""
        self._finished[group, len(epochs)].append(_Curve(epochs, final, feasible and self._values(final) is not None))

    def should_continue(
        self, group: str | None, epoch: int, last: int, metrics: Mapping[str, Any], reference: Mapping[str, float]
    ) -> bool:
        """Whether a trial may train on after this epoch.

        Args:
            group: only trials of the same group, with as many epochs, are compared.
            epoch: how many it has trained.
            last: how many it has in all.
            metrics: the objectives so far. A trial that lacks one is not judged.
            reference: what the hypervolume is measured from, for each objective; without one nothing is judged.
        """
        curves, now = self._finished[group, last], self._values(metrics)
        if (
            len(curves) < KNOWN
            or PART * epoch < last
            or now is None
            or any(name not in reference for name in self.objectives)
        ):
            return True
        bound = dict(zip(self.objectives, now, strict=True))
        for name in self.reported:
            gains = [gain for curve in curves if (gain := self._gain(curve, name, epoch)) is not None]
            if not gains:
                return True
            bound[name] += max(gains) if self.objectives[name] == "max" else -max(gains)
        members = [values for curve in curves if curve.member and (values := self._values(curve.final)) is not None]
        corner, directions = [reference[name] for name in self.objectives], list(self.objectives.values())
        volume = hypervolume(members, corner, directions)
        added = hypervolume([*members, [*bound.values()]], corner, directions) - volume
        return volume <= 0 or added >= LEAST * volume

    def _gain(self, curve: _Curve, name: str, epoch: int) -> float | None:
        """How much better a finished trial became after an epoch, at least 0; None where it is not known."""
        then, end = _finite(curve.epochs[epoch - 1].get(name)), _finite(curve.final.get(name))
        if then is None or end is None:
            return None
        return max(0.0, end - then if self.objectives[name] == "max" else then - end)

    def _values(self, metrics: Mapping[str, Any]) -> list[float] | None:
        values = [value for name in self.objectives if (value := _finite(metrics.get(name))) is not None]
        return values if len(values) == len(self.objectives) else None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
