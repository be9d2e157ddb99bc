"""The widths of least total loss whose cost is within a budget, by the exact cost table of a network.

A loss for each group and width, and a cost in which the widths of neighbouring layers multiply each other: a knapsack
whose items change each other's weight. Two searches, one after the other:

1. Lagrangian: at a price of cost each group takes the width of least loss plus price, others as they are, until none
   changes (coordinate descent); the price is bisected. This finds the rough shape, but only widths on the convex hull.
2. Exchange: widths of one group are tried, each with the widest that the budget then leaves to another one; the best
   pair is taken, until none improves. In networks of few groups likewise of each three.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rssearch.pruning.cost_table import CostTable

__all__ = ["solve"]

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_PRICES = 40  # steps of the bisection
_SWEEPS = 20  # of coordinate descent at one price; a few are enough
_STARTS = 2  # of the exchanges
_FEW = 6  # groups of which three are exchanged
_SPREAD, _NEAR = 48, 8  # widths of a group that are tried: spread over all, and on each side of its width now
_LEAST_GAIN = 1e-9  # of an exchange, so that rounding cannot make it go round in circles


def solve(table: CostTable, losses: Sequence[Values], budget: float) -> Counts:
    """The width of each group.

    Args:
        table: of the cost; no coefficient may be negative.
        losses: of each group those of all its widths, [width + 1], infinite where it may not have that one. The others
            fall: a wider group that costs no less loss is not looked for.
        budget: the most that the widths may cost.

    Returns:
        int64 [G]. It is the best of all in small problems, and likely near it in large ones. If nothing is within the
        budget, the narrowest.
    """
    problem = _Problem(table, losses, budget)
    narrowest, widest = (np.array([of_group[end] for of_group in problem.choices]) for end in (0, -1))
    if problem.cost(narrowest) > budget:
        return narrowest
    starts = {tuple(narrowest.tolist())} | {state for start in (narrowest, widest) for state in problem.priced(start)}
    best = sorted(starts, key=problem.loss)[: None if len(losses) <= _FEW else _STARTS]
    return min((problem.exchanged(start) for start in best), key=problem.loss)


class _Problem:
    """One knapsack. A state is the width of each group, int64 [G]."""

    def __init__(self, table: CostTable, losses: Sequence[Values], budget: float) -> None:
        self.choices = [np.flatnonzero(np.isfinite(of_group)) for of_group in losses]
        most = max(len(of_group) for of_group in losses)
        self.losses = np.full((len(losses), most), np.inf)  # [G, width]
        self.fits = np.zeros((len(losses), most), np.int64)  # the widest choice up to a width; 0, of no choice: none
        for group, (of_group, choices) in enumerate(zip(losses, self.choices, strict=True)):
            self.losses[group, : len(of_group)] = of_group
            self.fits[group, choices] = choices
        self.fits = np.maximum.accumulate(self.fits, axis=1)
        self.groups, self.all = range(len(losses)), np.arange(len(losses))
        self.budget = budget
        self.constant, self.linear = table.constant, table.linear.copy()
        for factor, positions, count in table.truncated:  # not truncated, they are no less
            self.constant += factor * positions * count.constant
            self.linear += factor * positions * count.per_width
        self.between = table.quadratic + table.quadratic.T
        self.within = np.diag(table.quadratic).copy()
        np.fill_diagonal(self.between, 0.0)

    def cost(self, widths: Counts) -> float:
        return float(self.constant + widths @ (self.linear + self.within * widths + self.between @ widths / 2))

    def loss(self, widths: Sequence[int] | Counts) -> float:
        return math.fsum(self.losses[self.all, np.asarray(widths)].tolist())

    def priced(self, start: Counts) -> set[tuple[int, ...]]:
        """The states within the budget that prices lead to."""
        found = set()
        low, high = -40.0, 40.0  # logarithm of the price of all that the budget has
        for _ in range(_PRICES):
            middle = (low + high) / 2
            state = self._descended(start, math.exp(middle) / self.budget)
            if self.cost(state) > self.budget:
                low = middle
            else:
                high = middle
                found.add(tuple(state.tolist()))
        return found

    def _descended(self, start: Counts, price: float) -> Counts:
        state = start.copy()
        for _ in range(_SWEEPS):
            before = state.copy()
            for group, choices in enumerate(self.choices):
                slope = self.linear[group] + self.between[group] @ state
                costs = choices * (slope + self.within[group] * choices)
                state[group] = choices[np.argmin(self.losses[group, choices] + price * costs)]
            if np.array_equal(before, state):
                break
        return state

    def exchanged(self, start: Sequence[int]) -> Counts:
        """The state after all exchanges that improve it; the start is within the budget."""
        state = np.array(start, np.int64)
        while True:
            while sum(self._exchange(state, tried) for tried in ((), *zip(self.groups))):
                pass
            three = itertools.combinations(self.groups, 2) if len(self.groups) <= _FEW else ()
            if not sum(self._exchange(state, two) for two in three):
                return state

    def _exchange(self, state: Counts, tried: tuple[int, ...]) -> bool:
        """Try widths of some groups, and with each the widest that fits of each other group; keep the best, in place.

        Of no groups: the widest that fits of one group, others as they are.
        Arrays are [N, G]: the N combinations of widths, with each group as the other one.
        """
        widths = [grid.ravel() for grid in np.meshgrid(*(self._near(state, group) for group in tried), indexing="ij")]
        left, number = state.copy(), len(widths[0]) if tried else 1
        left[list(tried)] = 0
        slopes = self.linear + self.between @ left
        # What is left without the tried ones and the other one, less what the tried ones then cost without that one.
        room = self.budget - self.cost(left) + left * (slopes + self.within * left)
        slope = np.broadcast_to(slopes, (number, len(state)))
        room, losses = np.broadcast_to(room, slope.shape), np.zeros(number)
        for place, (group, of_group) in enumerate(zip(tried, widths, strict=True)):
            column = of_group[:, None]
            room = room - column * (slopes[group] - self.between[group] * left + self.within[group] * column)
            for earlier in range(place):
                room = room - (self.between[tried[earlier], group] * widths[earlier] * of_group)[:, None]
            slope = slope + self.between[group] * column
            losses = losses + self.losses[group, of_group]
        fits = self.fits[self.all, np.minimum(_widest(room, slope, self.within), self.losses.shape[1] - 1)]
        now = self.losses[self.all, state]
        gains = now[list(tried)].sum() + now - losses[:, None] - self.losses[self.all, fits]
        gains[:, list(tried)] = -np.inf
        row, other = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if not gains[row, other] > _LEAST_GAIN:
            return False
        state[list(tried)] = [of_group[row] for of_group in widths]
        state[other] = fits[row, other]
        return True

    def _near(self, state: Counts, group: int) -> Counts:
        """The widths that are tried of a group: all where they are few."""
        choices = self.choices[group]
        if len(choices) <= _SPREAD:
            return choices
        at = int(np.searchsorted(choices, state[group]))
        spread = choices[np.linspace(0, len(choices) - 1, _SPREAD).round().astype(np.int64)]
        return np.union1d(spread, choices[max(0, at - _NEAR) : at + _NEAR + 1])


def _widest(room: Values, slope: Values, curve: Values) -> Counts:
    """The largest whole width w with ``slope * w + curve * w^2 <= room``, [N, G]; 0 where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        straight = np.where(slope > 0, room / slope, np.inf)
        bent = (np.sqrt(np.maximum(np.square(slope) + 4 * curve * room, 0)) - slope) / (2 * curve)
    width = np.where(curve > 0, bent, straight) * (1 + 1e-12)
    return np.where(room < 0, 0.0, np.minimum(width, 1e9)).astype(np.int64)
