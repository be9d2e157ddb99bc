"""Which structures of a slimmable network are best: NSGA-II over the widths, each judged without training.

Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II". The objectives are the loss that the
judge gives, such as `rssearch.pruning.sensitivity.loss_of_cut`, and the MACs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rssearch.front import layers
from rssearch.nas.widths import Widths, WidthSpace

__all__ = ["Judge", "Judged", "best_at", "first_structures", "search_structures"]

Judge = Callable[[Widths], float]  # the loss of a structure

_CHANGE = 0.3  # standard deviation of the logarithms of shares that a mutation changes
_SHIFT = 0.2  # of the logarithm of the budget


@dataclass(frozen=True)
class Judged:
    """A structure, the share of the MACs that it has, and its loss."""

    widths: tuple[int, ...]
    macs_ratio: float
    loss: float


def first_structures(
    space: WidthSpace, budgets: tuple[float, float], count: int, spread: float, seed: int
) -> list[Widths]:
    """Structures to begin with, at budgets whose logarithms are evenly spaced.

    They are uniform ones, such that cut inner groups harder than others or less hard, and random ones.

    Args:
        space: the structures that the network may have.
        budgets: smallest and largest share of the MACs.
        count: how many; some of them may be the same.
        spread: of the random ones, see `WidthSpace.draw`.
        seed: of the random ones.
    """
    rng = np.random.default_rng([seed, 11])
    inner = np.array([group.is_inner for group in space.graph.groups.values()])
    tilts = [1.0, 1.5, 2.5, 0.7] if inner.any() and not inner.all() else [1.0]
    found = []
    for number in range(count):
        ratio = budgets[0] * (budgets[1] / budgets[0]) ** (number / max(1, count - 1))
        if (number // 2) % 2 == 0 or number < len(tilts):
            shares = np.where(inner, 1.0, tilts[number % len(tilts)])
        else:
            shares = np.exp(spread * rng.standard_normal(len(inner)))
        found.append(space.fitted(shares, ratio))
    return found


def search_structures(
    space: WidthSpace,
    judge: Judge,
    first: Sequence[Widths],
    *,
    budgets: tuple[float, float],
    population: int,
    generations: int,
    seed: int,
    on_judged: Callable[[Judged], object] = lambda _: None,
) -> list[Judged]:
    """Search structures between two budgets.

    Args:
        space: the structures that the network may have.
        judge: gives the loss; called once for each structure.
        first: structures to begin with.
        budgets: smallest and largest share of the MACs.
        population: structures of a generation.
        generations: after the first one.
        seed: of the random numbers.
        on_judged: called with each structure.

    Returns:
        All structures that were judged, in that order.
    """
    rng = np.random.default_rng([seed, 7])
    judged: dict[tuple[int, ...], Judged] = {}

    def judge_new(structures: Sequence[Widths]) -> list[Judged]:
        found = []
        for widths in structures:
            key = tuple(widths.tolist())
            if key not in judged:
                judged[key] = Judged(key, space.ratio(widths), judge(widths))
                on_judged(judged[key])
            found.append(judged[key])
        return found

    parents = judge_new(first)
    for _ in range(generations):
        children = [_child(space, parents, budgets, rng) for _ in range(population)]
        pool = list({one.widths: one for one in [*parents, *judge_new(children)]}.values())
        parents = _survivors(pool, population)
    return list(judged.values())


def best_at(space: WidthSpace, judged: Sequence[Judged], ratio: float, count: int) -> list[Widths]:
    """The structures to take at a budget: the best ones near it, each fitted to it, at most `count` different ones.

    Near means that its MACs are between 0.8 and 1.25 of the budget. A structure below the budget is expected to get
    better by what it may be widened, one above to get worse: the losses are compared after a straight line through
    loss over log MACs is taken off.
    """
    near = [one for one in judged if 0.8 <= one.macs_ratio / ratio <= 1.25] or list(judged)
    x = np.log([one.macs_ratio for one in near])
    y = np.array([one.loss for one in near])
    slope = 0.0 if np.ptp(x) < 0.01 else min(0.0, float(np.polyfit(x, y, 1)[0]))
    order = np.argsort(y - slope * (x - np.log(ratio)), kind="stable")
    found: dict[tuple[int, ...], Widths] = {}
    for index in order:
        widths = space.fitted(np.array(near[index].widths) / space.full, ratio)
        found.setdefault(tuple(widths.tolist()), widths)
        if len(found) == count:
            break
    return list(found.values())


def _child(
    space: WidthSpace,
    parents: Sequence[Judged],
    budgets: tuple[float, float],
    rng: np.random.Generator,
) -> Widths:
    """Two parents near each other in MACs crossed, some shares changed, and the budget shifted."""
    full = space.full
    by_macs = sorted(parents, key=lambda one: one.macs_ratio)
    place = int(rng.integers(len(by_macs)))
    other = int(np.clip(place + rng.integers(-2, 3), 0, len(by_macs) - 1))
    one, two = (np.log(np.array(by_macs[i].widths) / full) for i in (place, other))
    shares = np.where(rng.random(len(full)) < 0.5, one, two)
    changed = rng.random(len(full)) < max(1 / len(full), 0.2)
    shares = np.minimum(0.0, shares + changed * _CHANGE * rng.standard_normal(len(full)))
    ratio = by_macs[place].macs_ratio * float(np.exp(_SHIFT * rng.standard_normal()))
    return space.fitted(np.exp(shares), float(np.clip(ratio, *budgets)))


def _survivors(pool: Sequence[Judged], count: int) -> list[Judged]:
    """The best of a pool: layer after layer, of the last that fits in part the least crowded."""
    points = np.array([(one.loss, one.macs_ratio) for one in pool])
    layer = layers(points, ["min", "min"])
    crowding = np.zeros(len(pool))
    for number in range(int(layer.max()) + 1):
        members = np.flatnonzero(layer == number)
        crowding[members] = _crowding(points[members])
    order = sorted(range(len(pool)), key=lambda i: (layer[i], -crowding[i]))
    return [pool[i] for i in order[:count]]


def _crowding(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The crowding distance of each point of a layer [N, M] (section III.B)."""
    distance = np.zeros(len(points))
    for axis in points.T:
        order = np.argsort(axis, kind="stable")
        span = float(np.ptp(axis)) or 1.0
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (axis[order[2:]] - axis[order[:-2]]) / span
    return distance
