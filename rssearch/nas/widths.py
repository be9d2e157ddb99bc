"""Structures: how many channels each group of a network keeps, drawn or fitted to a budget of the exact cost tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError
from rssearch.pruning.allocate import refine
from rssearch.pruning.channels import ChannelGraph

__all__ = ["Orders", "Widths", "draw", "fitted", "floors_of", "kept_at", "ratio_of"]

Widths = npt.NDArray[np.int64]  # [G], in the order of the graph's groups
Orders = Mapping[str, Sequence[int]]  # group -> its channels, the most important first


def floors_of(graph: ChannelGraph, share: float, min_channels: int = 1) -> Widths:
    """The least widths [G]: this share of each group, and so many channels."""
    full = graph.widths()
    least: Widths = np.minimum(full, np.maximum(np.ceil(full * share), min_channels)).astype(np.int64)
    return least


def ratio_of(graph: ChannelGraph, widths: Widths) -> float:
    """The share of the MACs that a structure has."""
    return graph.tables["macs"](widths.astype(float)) / graph.macs()


def fitted(graph: ChannelGraph, shares: npt.NDArray[np.float64], floors: Widths, ratio: float) -> Widths:
    """The structure nearest to a budget whose widths are in proportion to `shares` of their groups.

    Where the proportion asks for more than a group has, or for less than its floor, it has that.

    Args:
        graph: its cost tables are exact.
        shares: [G], above 0; only their ratios count.
        floors: [G], the least widths.
        ratio: share of the MACs that the structure shall have.
    """
    full = graph.widths()
    target = ratio * graph.macs()

    def at(factor: float) -> Widths:
        return np.clip(np.rint(full * shares * factor), floors, full).astype(np.int64)

    low, high = 0.0, float(1 / shares.min())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if graph.tables["macs"](at(middle).astype(float)) > target else (middle, high)
    return refine(graph, at(low), floors, 1, target)


def draw(graph: ChannelGraph, floors: Widths, ratio: float, spread: float, rng: np.random.Generator) -> Widths:
    """A random structure at a budget: the logarithms of the groups' shares are normal around a common one.

    Args:
        graph: of the network.
        floors: [G].
        ratio: share of the MACs.
        spread: standard deviation of the logarithms; with 0 all groups have the same share.
        rng: random numbers; as many are drawn as there are groups.
    """
    return fitted(graph, np.exp(spread * rng.standard_normal(len(floors))), floors, ratio)


def kept_at(graph: ChannelGraph, orders: Orders, widths: Widths) -> dict[str, tuple[int, ...]]:
    """The channels that a structure keeps: the first of each group's order. Raises InputError for an order missing."""
    kept = {}
    for name, width in zip(graph.groups, widths.tolist(), strict=True):
        if name not in orders:
            raise InputError(f"group {name!r} has no order of its channels")
        kept[name] = tuple(sorted(orders[name][:width]))
    return kept
