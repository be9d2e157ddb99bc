"""Non-dominated layers of points that come one after another, by two costs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

__all__ = ["Layers"]


@dataclass
class _Layer:
    """Distinct points by rising first cost, whose second cost falls. It is kept negated, so that it rises, too."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    copies: list[int] = field(default_factory=list)  # of each point
    size: int = 0  # with all copies

    def place(self, first: float) -> int:
        """Of the last point that costs no more by the first cost, and the least of these by the second; -1: none."""
        return bisect_right(self.first, first) - 1

    def swap(self, start: int, end: int, others: _Layer) -> _Layer:
        """Put other points in place of some, which are returned."""
        gone = _Layer(self.first[start:end], self.second[start:end], self.copies[start:end])
        gone.size = sum(gone.copies)
        self.first[start:end], self.second[start:end] = others.first, others.second
        self.copies[start:end] = others.copies
        self.size += others.size - gone.size
        return gone


class Layers:
    """What `rssearch.front.pareto.layers` finds for two costs, one point after another.

    A point goes to the first layer where none dominates it. Those that it dominates there are neighbours; they go to
    the next layer, whose points that any of them dominates are neighbours again, and so on: the idea of Buzdalov,
    Yakupov and Stankevich 2015, "Fast implementation of the steady-state NSGA-II algorithm for two dimensions based on
    incremental non-dominated sorting", GECCO. A point takes O(log N) and what it moves, instead of sorting N points.
    """

    def __init__(self) -> None:
        self._layers: list[_Layer] = []

    def add(self, first: float, second: float) -> int:
        """Add a point, the smaller its costs the better, and return its layer; equal points share one."""
        low, high = 0, len(self._layers)
        while low < high:  # a point that one in a layer dominates is dominated in all layers before
            middle = (low + high) // 2
            if self._dominates(self._layers[middle], first, -second):
                low = middle + 1
            else:
                high = middle
        if low < len(self._layers):
            layer = self._layers[low]
            place = layer.place(first)
            if place >= 0 and (layer.first[place], layer.second[place]) == (first, -second):
                layer.copies[place] += 1
                layer.size += 1
                return low
        self._push(low, _Layer([first], [-second], [1], 1))
        return low

    def better(self, layer: int) -> int:
        """How many points the layers before this one have, each as often as it was added."""
        return sum(before.size for before in self._layers[:layer])

    def distinct(self, layer: int) -> list[tuple[float, float]]:
        """The costs of the different points of a layer, by rising first cost."""
        found = self._layers[layer]
        return [(first, -second) for first, second in zip(found.first, found.second, strict=True)]

    def _dominates(self, layer: _Layer, first: float, second: float) -> bool:
        place = layer.place(first)
        return (
            place >= 0
            and layer.second[place] >= second
            and (layer.first[place], layer.second[place]) != (first, second)
        )

    def _push(self, number: int, points: _Layer) -> None:
        """Put neighbours into a layer, and what they dominate there into the next one."""
        while points.first:
            if number == len(self._layers):
                self._layers.append(_Layer())
            layer = self._layers[number]
            start = bisect_left(layer.first, points.first[0])
            points = layer.swap(start, max(start, bisect_right(layer.second, points.second[-1])), points)
            number += 1
