"""From scores to kept channels: at a rate, or at a budget of MACs that is met before anything is cut.

Two allocations: *uniform* takes the same share of each group (or a rate per layer), *global* ranks the channels of all
groups together. Both keep the highest scores of a group; of equal scores the lower index stays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rssearch.errors import InputError, unknown
from rssearch.pruning.channels import ChannelGraph

Allocation = Literal["uniform", "global"]
Counts = npt.NDArray[np.int64]

TOLERANCE = 0.01  # of the remaining MACs, relative to what was asked
GLOBAL_FLOOR = 0.05  # share of each group that a global ranking always keeps, against collapsed layers


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
) -> dict[str, tuple[int, ...]]:
    """The channels to keep.

    * uniform, `rate`: of the n channels of each group ``int(n * (1 - rate))`` stay, the truncation of the papers.
    * uniform, `rates`: the same with a rate per layer; a layer stands for its group, groups not named stay whole.
    * global, `rate`: the ``int(rate * total)`` lowest of all channels go, or as many as there are outside the highest
      5 % of each group, which always stay.
    * `macs_ratio`: bisection on the rate (uniform) or on the rank (global), then single channels where the step between
      two rates is too coarse, so that ``|MACs left / MACs asked - 1| <= 1 %``.

    Args:
        graph: the channel graph.
        scores: group -> [width], higher means keep. Groups without scores stay whole.
        allocation: ``uniform`` or ``global``.
        rate: share to remove, in [0, 1).
        rates: layer (or group) -> share to remove.
        macs_ratio: remaining share of thop's MACs, in (0, 1].
        round_to: kept widths are rounded down to multiples of this, but not below the first; whole groups stay whole.
        min_channels: no group gets smaller than this (or than its width).

    Returns:
        Group -> kept channels, ascending, for every group of the graph.

    Raises:
        InputError: not exactly one of rate, rates and macs_ratio; values out of range; scores that do not fit the graph
            or are not finite; a `macs_ratio` that cannot be met.
    """
    check_amount(
        allocation, rate=rate, rates=rates, macs_ratio=macs_ratio, round_to=round_to, min_channels=min_channels
    )
    ranks = _ranks(graph, scores)
    full = graph.widths().astype(np.int64)
    share = GLOBAL_FLOOR if allocation == "global" else 0.0
    scored = np.array([name in scores for name in graph.groups])
    floors = np.where(scored, _floors(full, min_channels, round_to, share), full)
    if rates is not None:
        by_group = _rates_by_group(graph, rates)
        counts = _uniform(full, np.array([by_group.get(name, 0.0) for name in graph.groups]))
        counts = _round(counts, full, floors, round_to)
    else:
        order = _global_order(graph, scores, ranks, floors) if allocation == "global" else None

        def at(amount: float) -> Counts:
            if order is None:
                wanted = _uniform(full, np.full(len(full), amount))
            else:
                removed = order[: int(amount * int(full.sum()))]
                wanted = full - np.bincount(removed, minlength=len(full))
            return _round(wanted, full, floors, round_to)

        counts = _meet(graph, at, floors, round_to, macs_ratio) if macs_ratio is not None else at(rate or 0.0)
    return {
        name: tuple(np.flatnonzero(ranks[name] < count).tolist())
        for name, count in zip(graph.groups, counts.tolist(), strict=True)
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
    if allocation not in {"uniform", "global"}:
        raise unknown("allocation", allocation, ("uniform", "global"))
    given = [name for name, v in (("rate", rate), ("rates", rates), ("macs_ratio", macs_ratio)) if v is not None]
    if len(given) != 1:
        raise InputError(f"give exactly one of rate, rates and macs_ratio, not {', '.join(given) or 'none'}")
    if rates is not None and allocation == "global":
        raise InputError("rates per layer leave nothing to rank: they go with allocation 'uniform'")
    for name, value in {"rate": rate, **{f"rates[{k}]": v for k, v in (rates or {}).items()}}.items():
        if value is not None and not 0 <= value < 1:
            raise InputError(f"{name} is {value}, but must be in [0, 1)")
    if macs_ratio is not None and not 0 < macs_ratio <= 1:
        raise InputError(f"macs_ratio is {macs_ratio}, but must be in (0, 1]")
    for name, number in (("round_to", round_to), ("min_channels", min_channels)):
        if number < 1:
            raise InputError(f"{name} is {number}, but must be at least 1")


def _ranks(graph: ChannelGraph, scores: Mapping[str, Tensor]) -> dict[str, Counts]:
    """The rank of each channel in its group, 0 for the highest score; of equal scores the lower index is first."""
    for name, value in scores.items():
        if name not in graph.groups:
            raise unknown("group of channels", name, graph.groups)
        if tuple(value.shape) != (graph.groups[name].width,):
            raise InputError(f"group {name!r} has {graph.groups[name].width} channels, but scores {tuple(value.shape)}")
        if not bool(value.isfinite().all()):
            raise InputError(f"group {name!r} has scores that are not finite")
    ranks = {}
    for name, group in graph.groups.items():
        of_group = scores[name].double().cpu().numpy() if name in scores else np.zeros(group.width)
        ranks[name] = np.empty(group.width, np.int64)
        ranks[name][np.argsort(-of_group, kind="stable")] = np.arange(group.width)
    return ranks


def _floors(full: Counts, min_channels: int, round_to: int, share: float) -> Counts:
    least = np.maximum(min_channels, np.ceil(full * share).astype(np.int64))
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
        group = graph.group_of(layer)
        if group is None:
            if layer in graph.fixed:
                if rate > 0:
                    raise InputError(f"layer {layer!r} cannot be pruned: it {graph.fixed[layer]}")
                continue
            raise unknown("layer", layer, graph.groups)
        if by_group.setdefault(group.name, rate) != rate:
            known = by_group[group.name]
            raise InputError(f"layer {layer!r} has rate {rate}, but its group {group.name!r} has {known}")
    return by_group


def _global_order(
    graph: ChannelGraph, scores: Mapping[str, Tensor], ranks: Mapping[str, Counts], floors: Counts
) -> Counts:
    """For every channel that may go, in the order of going (ascending scores), the number of its group."""
    entries = []
    for number, name in enumerate(graph.groups):
        if name in scores:
            for value, rank in zip(scores[name].double().tolist(), ranks[name].tolist(), strict=True):
                if rank >= floors[number]:
                    entries.append((value, -rank, number))
    return np.array([number for _, _, number in sorted(entries)], np.int64)


def _meet(graph: ChannelGraph, at: Callable[[float], Counts], floors: Counts, round_to: int, ratio: float) -> Counts:
    """Widths whose MACs are `ratio` of the whole within 1 %."""
    macs, full = graph.tables["macs"], at(0.0)
    target = ratio * macs(full.astype(float))
    low, high = 0.0, math.nextafter(1.0, 0.0)  # rates: MACs fall from low to high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if macs(at(middle).astype(float)) >= target else (low, middle)
    candidates = [at(low), at(high)]
    counts = min(candidates, key=lambda c: abs(macs(c.astype(float)) - target))
    counts = _refine(graph, counts, floors, round_to, target)
    reached = macs(counts.astype(float))
    if abs(reached / target - 1) > TOLERANCE:
        least = macs(floors.astype(float)) / macs(full.astype(float))
        raise InputError(
            f"macs_ratio {ratio:g} cannot be met within {TOLERANCE:.0%}: the nearest is {ratio * reached / target:.4g}"
            f" (the smallest network, with min_channels and round_to = {round_to}, has {least:.4g})"
        )
    return counts


def _refine(graph: ChannelGraph, counts: Counts, floors: Counts, round_to: int, target: float) -> Counts:
    """Widen or narrow single groups by one step, or pairs of them, while that brings the MACs nearer to the target."""
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
