"""Structures: how many channels each group of a network keeps, drawn or fitted to a budget of the exact cost tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError
from rssearch.pruning.allocate import TOLERANCE, refine
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.scope import Scope, channels_to_keep, may_be_cut

__all__ = ["Orders", "WidthSpace", "Widths"]

Widths = npt.NDArray[np.int64]  # [G], in the order of the graph's groups
Orders = Mapping[str, Sequence[int]]  # group -> its channels, the most important first


@dataclass(frozen=True)
class WidthSpace:
    """The structures that a network may have.

    Attributes:
        graph: the channel graph of the network; its cost tables are exact.
        floors: least widths [G].
        round_to: widths below the whole are multiples of it.
    """

    graph: ChannelGraph
    floors: Widths
    round_to: int = 1

    @classmethod
    def of(
        cls,
        graph: ChannelGraph,
        *,
        floor: float,
        min_channels: int = 1,
        round_to: int = 1,
        groups: Scope = "all",
        keep: Mapping[str, float] | None = None,
        whole: ChannelGraph | None = None,
    ) -> WidthSpace:
        """The structures that keep to limits, see `rssearch.pruning.allocate`.

        Args:
            graph: of the network.
            floor: share of each group that stays.
            min_channels: no group gets smaller than this.
            round_to: as of the class.
            groups: which may be cut.
            keep: pattern of groups -> share of their channels that stays.
            whole: of the network that the shares are of, where that of `graph` was cut from it.

        Raises:
            InputError: no group may be cut, or a pattern fits none.
        """
        full = graph.widths().astype(np.int64)
        least = np.maximum(channels_to_keep(graph, {"*": floor} if floor else None, whole), min_channels)
        least = np.maximum(least, channels_to_keep(graph, keep, whole))
        floors = np.minimum(full, -(-least // round_to) * round_to)
        return cls(graph, np.where(may_be_cut(graph, groups), floors, full), round_to)

    @property
    def full(self) -> npt.NDArray[np.float64]:
        """The whole widths [G]."""
        return self.graph.widths()

    def ratio(self, widths: Widths) -> float:
        """The share of the MACs that a structure has."""
        return self.graph.tables["macs"](widths.astype(float)) / self.graph.macs()

    def check(self, ratio: float) -> None:
        """Refuse a share of the MACs that is below what the floors leave. Raises InputError."""
        if ratio * (1 + TOLERANCE) < (least := self.ratio(self.floors)):
            raise InputError(
                f"{ratio:.4g} of the MACs cannot be met within {TOLERANCE:.0%}: what must stay of each group (floor, "
                f"min_channels, round_to, groups, keep) has {least:.4g}"
            )

    def fitted(self, shares: npt.NDArray[np.float64], ratio: float) -> Widths:
        """The structure nearest to a budget whose widths are in proportion to `shares` of their groups.

        Where the proportion asks for more than a group has, or for less than its floor, it has that.

        Args:
            shares: [G], above 0; only their ratios count.
            ratio: share of the MACs that the structure shall have.
        """
        macs, full, step = self.graph.tables["macs"], self.full, self.round_to
        target = ratio * self.graph.macs()

        def at(factor: float) -> Widths:
            wanted = full * shares * factor
            rounded = np.where(wanted >= full, full, np.rint(wanted / step) * step)
            return np.clip(rounded, self.floors, full).astype(np.int64)

        low, high = 0.0, float(1 / shares.min())
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if macs(at(middle).astype(float)) > target else (middle, high)
        return refine(self.graph, at(low), self.floors, step, target)

    def draw(self, ratio: float, spread: float, rng: np.random.Generator) -> Widths:
        """A random structure at a budget: the logarithms of the groups' shares are normal around a common one.

        Args:
            ratio: share of the MACs.
            spread: standard deviation of the logarithms; with 0 all groups have the same share.
            rng: random numbers; as many are drawn as there are groups.
        """
        return self.fitted(np.exp(spread * rng.standard_normal(len(self.floors))), ratio)

    def kept(self, orders: Orders, widths: Widths) -> dict[str, tuple[int, ...]]:
        """The channels that a structure keeps: the first of each group's order."""
        return {
            name: tuple(sorted(orders[name][:width]))
            for name, width in zip(self.graph.groups, widths.tolist(), strict=True)
        }
