"""From scores to kept channels: at a rate, or at a budget of MACs that is met before anything is cut.

Allocations, by name:

* ``uniform`` takes the same share of each group (or a rate per layer).
* ``global`` ranks the channels of all groups together by their scores as they are.
* ``global_mean`` does so after dividing the scores of each group by their mean.
* ``lamp`` does so after LAMP's normalisation inside each group (Lee et al., ICLR 2021): the squared score over the sum
  of the squares of all scores that are not lower.
* ``joint`` is for several criteria at once: a channel goes if all of them rank it among the lowest (compound pruning).
* ``sensitivity`` takes the widths that add least to the loss at a budget of MACs, by what was measured of each group
  cut alone, see `rssearch.pruning.sensitivity`; scores only rank the channels inside a group.

All keep the highest scores of a group; of equal scores the lower index stays. Where they may cut, and what must stay of
single groups, see `rssearch.pruning.scope`.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rssearch.errors import InputError, unknown
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.scope import Scope, channels_to_keep, check_scope, may_be_cut, share_of
from rssearch.pruning.sensitivity import Sensitivity, narrowed

__all__ = ["ALLOCATIONS", "FLOOR", "TOLERANCE", "Allocation", "Counts", "Values", "allocate", "check_amount", "refine"]

Allocation = Literal["uniform", "global", "global_mean", "lamp", "joint", "sensitivity"]
Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_log = logging.getLogger(__name__)

ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)
TOLERANCE = 0.01  # of the remaining MACs, relative to what was asked
FLOOR = 0.1  # share of each group that rankings of all channels always keep, against collapsed layers
FLOORS: dict[Allocation, float] = {"uniform": 0.0, "joint": 0.05}  # of the others


def allocate(
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    *,
    allocation: Allocation,
    rate: float | None = None,
    rates: Mapping[str, float] | None = None,
    macs_ratio: float | None = None,
    round_to: int = 1,
    min_channels: int = 1,
    groups: Scope = "all",
    keep: Mapping[str, float] | None = None,
    floor: float | None = None,
    whole: ChannelGraph | None = None,
    sensitivities: Mapping[str, Sensitivity] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The channels to keep.

    * uniform, `rate`: of the n channels of each group ``int(n * (1 - rate))`` stay, the truncation of the papers.
    * uniform, `rates`: the same with a rate per layer; a layer stands for its group, groups not named stay whole.
    * the global ones, `rate`: the ``int(rate * total)`` lowest of all channels (of the groups that may be cut) go, or
      as many as there are outside the highest 10 % of each group, which always stay.
    * joint, `rate`: a channel goes if all its scores, which are shares of ranks, are at most `rate`. A group left with
      less than 5 % (at least one channel) gets back those with the highest first score.
    * `macs_ratio`: bisection on the rate (or on the rank), then single channels where the step between two rates is too
      coarse, so that ``|MACs left / MACs asked - 1| <= 1 %``.
    * sensitivity, `macs_ratio`: a knapsack on the exact costs, see `rssearch.pruning.knapsack`, met likewise.

    Args:
        graph: the channel graph.
        scores: group -> [width], higher means keep; for the allocation ``joint`` [criteria, width]. Groups without
            scores stay whole. Other allocations judge a channel of several scores by the highest.
        allocation: see above.
        rate: share to remove, in [0, 1).
        rates: layer (or group) -> share to remove.
        macs_ratio: remaining share of thop's MACs, in (0, 1].
        round_to: kept widths are rounded down to multiples of this, but not below the first; whole groups stay whole.
        min_channels: no group gets smaller than this (or than its width).
        groups: ``all``, or ``inner``: others stay whole, see `Group.is_inner`.
        keep: pattern of groups -> share of their channels that must stay, see `rssearch.pruning.scope`.
        floor: share of each group that always stays; None for the allocation's own.
        whole: of the network that `keep` is about, where that of `graph` was cut from it; None: `graph`.
        sensitivities: group -> its curve, for the allocation ``sensitivity``. Groups without one stay whole.

    Returns:
        Group -> kept channels, ascending, for every group of the graph.

    Raises:
        InputError: not exactly one of rate, rates and macs_ratio; values out of range; scores that do not fit the graph
            or are not finite; a pattern that fits no group; a `macs_ratio` that cannot be met.
    """
    check_amount(
        allocation, rate=rate, rates=rates, macs_ratio=macs_ratio, round_to=round_to, min_channels=min_channels
    )
    check_scope(groups, keep, rates)
    values = _values(graph, scores, joint=allocation == "joint")
    full = graph.widths().astype(np.int64)
    scored = np.array([name in scores for name in graph.groups])
    cuttable = may_be_cut(graph, groups)
    share = FLOORS.get(allocation, FLOOR) if floor is None else floor
    free = np.where(scored, _floors(full, np.maximum(min_channels, share_of(full, share)), round_to), full)
    floors = np.maximum(free, _floors(full, channels_to_keep(graph, keep, whole), round_to))
    floors = np.where(cuttable, floors, full)
    restrictions = (["groups 'inner'"] if groups == "inner" else []) + (["keep"] if keep else [])
    amount = rate or 0.0
    if allocation == "sensitivity":
        if sensitivities is None:
            raise InputError("allocation 'sensitivity' needs sensitivities, see rssearch.pruning.measure_sensitivities")
        assert macs_ratio is not None
        target = macs_ratio * graph.macs()
        counts, least = narrowed(graph, sensitivities, floors, round_to, target)
        if graph.tables["macs"](counts.astype(float)) < (1 - TOLERANCE) * target:  # the steps are coarse: from above
            counts, least = narrowed(graph, sensitivities, floors, round_to, (1 + TOLERANCE) * target)
        floors = least
        counts = _met(graph, counts, floors, round_to, macs_ratio, restrictions, free)
    elif rates is not None:
        by_group = _rates_by_group(graph, rates)
        counts = _uniform(full, np.array([by_group.get(name, 0.0) for name in graph.groups]))
        counts = _round(counts, full, floors, round_to)
    else:
        wanted = _widths_at(allocation, values, full, floors, cuttable)

        def at(amount: float) -> Counts:
            return _round(wanted(amount), full, floors, round_to)

        if macs_ratio is not None:
            counts, amount = _meet(graph, at, floors, round_to, macs_ratio, restrictions, free)
        else:
            counts = at(amount)
    threshold = amount if allocation == "joint" else None
    if threshold is not None:
        left = {name: int((values[name].max(0) > threshold).sum()) for name in scores}
        own = zip(graph.groups, free, cuttable, strict=True)
        revived = [name for name, floor, here in own if here and left.get(name, floor) < floor]
        if revived:
            _log.info("all criteria let go of nearly all channels of %s; some were kept", ", ".join(revived))
    return {
        name: _best(values[name], count, threshold) for name, count in zip(graph.groups, counts.tolist(), strict=True)
    }


def check_amount(
    allocation: str,
    *,
    rate: float | None = None,
    rates: Mapping[str, float] | None = None,
    macs_ratio: float | None = None,
    round_to: int = 1,
    min_channels: int = 1,
) -> None:
    """Check what `allocate` is asked for, without a network. Raises InputError."""
    if allocation not in ALLOCATIONS:
        raise unknown("allocation", allocation, ALLOCATIONS)
    given = [name for name, v in (("rate", rate), ("rates", rates), ("macs_ratio", macs_ratio)) if v is not None]
    if len(given) != 1:
        raise InputError(f"give exactly one of rate, rates and macs_ratio, not {', '.join(given) or 'none'}")
    if rates is not None and allocation != "uniform":
        raise InputError(
            f"rates per layer leave nothing to rank: they go with allocation 'uniform', not {allocation!r}"
        )
    if allocation == "sensitivity" and macs_ratio is None:
        raise InputError(
            "allocation 'sensitivity' needs macs_ratio: it finds widths for a budget, and a rate has no meaning for it"
        )
    for name, value in {"rate": rate, **{f"rates[{k}]": v for k, v in (rates or {}).items()}}.items():
        if value is not None and not 0 <= value < 1:
            raise InputError(f"{name} is {value}, but must be in [0, 1)")
    if macs_ratio is not None and not 0 < macs_ratio <= 1:
        raise InputError(f"macs_ratio is {macs_ratio}, but must be in (0, 1]")
    for name, number in (("round_to", round_to), ("min_channels", min_channels)):
        if number < 1:
            raise InputError(f"{name} is {number}, but must be at least 1")


def _values(graph: ChannelGraph, scores: Mapping[str, Tensor], *, joint: bool) -> dict[str, Values]:
    """The scores of each group, [criteria, width] in double precision; zeros for groups without scores."""
    for name, value in scores.items():
        if name not in graph.groups:
            raise unknown("group of channels", name, graph.groups)
        if value.dim() not in {1, 2} or value.shape[-1] != graph.groups[name].width:
            raise InputError(f"group {name!r} has {graph.groups[name].width} channels, but scores {tuple(value.shape)}")
        if joint and value.dim() != 2:
            raise InputError(
                "allocation 'joint' needs scores of several criteria, [criteria, width]; 'compound' has them"
            )
        if not bool(value.isfinite().all()):
            raise InputError(f"group {name!r} has scores that are not finite")
    return {
        name: np.atleast_2d(scores[name].double().cpu().numpy()) if name in scores else np.zeros((1, group.width))
        for name, group in graph.groups.items()
    }


def _best(values: Values, count: int, threshold: float | None) -> tuple[int, ...]:
    """The `count` channels to keep, ascending.

    Those with the highest scores; but of those at or below a threshold, which have to be taken back to reach `count`,
    those with the highest first score.
    """
    highest = values.max(0)
    order = np.argsort(-highest, kind="stable")
    if threshold is not None:
        survivors = order[: int((highest > threshold).sum())]
        others = np.setdiff1d(order, survivors)
        order = np.concatenate([survivors, others[np.argsort(-values[0, others], kind="stable")]])
    return tuple(np.sort(order[:count]).tolist())


def _widths_at(
    allocation: Allocation,
    values: Mapping[str, Values],
    full: Counts,
    floors: Counts,
    cuttable: npt.NDArray[np.bool_],
) -> Callable[[float], Counts]:
    """The widths that an allocation wants, as a function of the rate."""
    if allocation == "uniform":
        return lambda rate: _uniform(full, np.full(len(full), rate))
    highest = [of_group.max(0) for of_group in values.values()]
    if allocation == "joint":
        return lambda rate: np.array([(of_group > rate).sum() for of_group in highest])
    order = _global_order([_NORMALISATIONS[allocation](of_group) for of_group in highest], floors)
    total = int(full[cuttable].sum())
    return lambda rate: full - np.bincount(order[: int(rate * total)], minlength=len(full))


def _over_mean(scores: Values) -> Values:
    """Scores of mean 1."""
    return scores / max(float(scores.mean()), 1e-30)


def _lamp(scores: Values) -> Values:
    """The squared score over the sum of the squares of all that are not lower; 1 for the highest of a group."""
    order = np.argsort(-scores, kind="stable")  # descending; of equal scores the lower index counts as higher
    squares = np.square(scores[order])
    result = np.empty_like(scores)
    result[order] = squares / np.maximum(np.cumsum(squares), 1e-300)
    return result


_NORMALISATIONS: dict[str, Callable[[Values], Values]] = {
    "global": lambda scores: scores,
    "global_mean": _over_mean,
    "lamp": _lamp,
}


def _floors(full: Counts, least: Counts, round_to: int) -> Counts:
    floors: Counts = np.minimum(full, -(-least // round_to) * round_to)
    return floors


def _round(counts: Counts, full: Counts, floors: Counts, round_to: int) -> Counts:
    rounded = np.where(counts >= full, full, counts // round_to * round_to)
    return np.maximum(rounded, floors)


def _uniform(full: Counts, rates: npt.NDArray[np.float64]) -> Counts:
    return (full * (1 - rates)).astype(np.int64)


def _rates_by_group(graph: ChannelGraph, rates: Mapping[str, float]) -> dict[str, float]:
    by_group: dict[str, float] = {}
    for layer, rate in rates.items():
        groups = graph.groups_of(layer)
        if not groups:
            if layer in graph.fixed:
                if rate > 0:
                    raise InputError(f"layer {layer!r} cannot be pruned: it {graph.fixed[layer]}")
                continue
            raise unknown("layer", layer, graph.groups)
        for group in groups:
            if by_group.setdefault(group.name, rate) != rate:
                known = by_group[group.name]
                raise InputError(f"layer {layer!r} has rate {rate}, but its group {group.name!r} has {known}")
    return by_group


def _global_order(scores: list[Values], floors: Counts) -> Counts:
    """For every channel that may go, in the order of going (ascending scores), the number of its group."""
    entries = []
    for number, of_group in enumerate(scores):
        # Of equal scores the lower index stays, so it has the better rank.
        order = np.argsort(-of_group, kind="stable")
        entries += [(float(of_group[c]), -rank, number) for rank, c in enumerate(order) if rank >= floors[number]]
    return np.array([number for _, _, number in sorted(entries)], np.int64)


def _meet(
    graph: ChannelGraph,
    at: Callable[[float], Counts],
    floors: Counts,
    round_to: int,
    ratio: float,
    restrictions: list[str],
    free: Counts,
) -> tuple[Counts, float]:
    """Widths whose MACs are `ratio` of the whole within 1 %, and the rate that they were found at.

    `free` are the floors without the `restrictions`, for the reason why a ratio cannot be met.
    """
    macs, full = graph.tables["macs"], at(0.0)
    target = ratio * macs(full.astype(float))
    low, high = 0.0, math.nextafter(1.0, 0.0)  # rates: MACs fall from low to high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(at(middle).astype(float)) >= target else (low, middle)
    rate = min((low, high), key=lambda r: abs(macs(at(r).astype(float)) - target))
    return _met(graph, at(rate), floors, round_to, ratio, restrictions, free), rate


def _met(
    graph: ChannelGraph,
    counts: Counts,
    floors: Counts,
    round_to: int,
    ratio: float,
    restrictions: Sequence[str] = (),
    free: Counts | None = None,
) -> Counts:
    """Widths near these whose MACs are `ratio` of the whole within 1 %.

    Raises:
        InputError: there are none; where `restrictions` are why, with what the floors `free` of them would allow.
    """
    macs, full = graph.tables["macs"], graph.widths()
    target = ratio * macs(full)
    counts = refine(graph, counts, floors, round_to, target)
    reached = macs(counts.astype(float))
    if abs(reached / target - 1) > TOLERANCE:
        least = macs(floors.astype(float)) / macs(full)
        reason = f"the smallest network, with min_channels and round_to = {round_to}, has {least:.4g}"
        if restrictions and free is not None and ratio * (1 + TOLERANCE) < least:
            without, freely = " and ".join(restrictions), macs(free.astype(float)) / macs(full)
            reason = f"{without} leaves the rest whole, so that the smallest has {least:.4g}; without {freely:.4g}"
        raise InputError(
            f"macs_ratio {ratio:g} cannot be met within {TOLERANCE:.0%}: the nearest is {ratio * reached / target:.4g}"
            f" ({reason})"
        )
    return counts


def refine(graph: ChannelGraph, counts: Counts, floors: Counts, round_to: int, target: float) -> Counts:
    """Widen or narrow single groups by one step, or pairs of them, while the MACs are more than 1 % off the target."""
    full = graph.widths().astype(np.int64)

    def miss(widths: Counts) -> float:
        return abs(graph.tables["macs"](widths.astype(float)) / target - 1)

    def steps(widths: Counts) -> list[tuple[int, int]]:
        wider = np.minimum(full, (widths // round_to + 1) * round_to)
        narrower = np.where(widths % round_to > 0, widths // round_to * round_to, widths - round_to)
        moves = [(i, int(n)) for i, n in enumerate(wider) if n > widths[i]]
        return moves + [(i, int(n)) for i, n in enumerate(narrower) if n >= floors[i] and n < widths[i]]

    while miss(counts) > TOLERANCE:
        moves = steps(counts)
        best = counts
        for size in (1, 2):
            for combination in itertools.combinations(moves, size):
                trial = counts.copy()
                for group, width in combination:
                    trial[group] = width
                if miss(trial) < miss(best):
                    best = trial
            if best is not counts:
                break
        if best is counts:
            break
        counts = best
    return counts
