"""The channels of all layers, which of them are coupled, and the groups that come of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rssearch.pruning.channels import Group, Indices, Member
from rssearch.pruning.cost_table import Side

Signature = tuple[tuple[str, Side, int], ...]  # the sides of layers that a unit has channels on, and how many

NONE = 0  # the label of what belongs to no channel that could be removed: the image, constants, parameters


class _Way(NamedTuple):
    """The sides of layers that a unit has channels on, and whether one of the layers computes them."""

    sides: Signature
    computed: bool

    def then(self, side: tuple[str, Side, int], computed: bool) -> _Way:
        return _Way((*self.sides, side), self.computed or computed)


class Atoms:
    """The channels of all sides of all layers that ran, numbered from 1, and which of them must go together.

    Attributes:
        kinds: layer -> ``conv``, ``linear``, ``index``, ``norm``, ``prelu`` or ``passing``, in order of execution.
        sizes: channels of each (layer, side).
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.sizes: dict[tuple[str, Side], int] = {}
        self._start: dict[tuple[str, Side], int] = {}
        self._total = 1
        self._blocks: dict[str, int] = {}
        self._read: dict[str, npt.NDArray[np.bool_]] = {}  # of grouped convolutions: inputs whose origin is known
        self._edges: list[tuple[Indices, Indices]] = []
        self._fixed: list[tuple[Indices, str]] = []
        self._guesses: list[tuple[Indices, str]] = []
        self._whole: dict[str, str] = {}
        self._joined: list[tuple[Indices, str]] = []
        self._own: list[
            tuple[Indices, Indices]
        ] = []  # channels that are one stream: before and behind a block, factors

    def add(self, layer: str, kind: str, sides: Mapping[Side, int], blocks: int = 1) -> None:
        """Number the channels of a layer, once; `blocks` of a grouped convolution are coupled, inputs with outputs."""
        if layer in self.kinds:
            return
        self.kinds[layer] = kind
        for side, size in sides.items():
            self.sizes[layer, side] = size
            self._start[layer, side] = self._total
            self._total += size
        if blocks > 1:
            self._blocks[layer] = blocks
            self._read[layer] = np.zeros(self.sizes[layer, "in"], bool)
            first = self.of(layer, "out").reshape(blocks, -1)[:, :1]
            for side in sides:
                of_side = self.of(layer, side).reshape(blocks, -1)
                self.couple(np.broadcast_to(first, of_side.shape), of_side)
                self.multiply(np.broadcast_to(first, of_side.shape), of_side)

    def of(self, layer: str, side: Side) -> Indices:
        """The numbers of the channels of one side of a layer."""
        start = self._start[layer, side]
        return np.arange(start, start + self.sizes[layer, side])

    def link(self, layer: str, side: Side, labels: Indices) -> None:
        """Couple the channels of one side of a layer, in order, with what it reads or works on."""
        self.couple(labels, self.of(layer, side))
        if layer in self._blocks and side == "in":
            self._read[layer] |= labels != NONE
            self.multiply(labels, self.of(layer, side))
        elif self.kinds[layer] == "index":
            self.join(labels, "an index shortcut")

    def couple(self, one: Indices, other: Indices) -> None:
        """Channels that can only be removed together, pair by pair; a partner `NONE` couples nothing."""
        self._edges.append(_pairs(one, other))

    def join(self, labels: Indices, how: str) -> None:
        """Channels that meet others in an addition, a concatenation, or an index shortcut."""
        if labels.any():
            self._joined.append((labels[labels != NONE], how))

    def multiply(self, one: Indices, other: Indices) -> None:
        """Channels that stay one stream though two layers compute them: one is a factor, or made of the other."""
        self._own.append(_pairs(one, other))

    def fix(self, labels: Indices, reason: str) -> None:
        """Channels that must stay; the first reason is the one that is told."""
        labels = np.unique(labels)
        if labels.any():
            self._fixed.append((labels[labels != NONE], reason))

    def guess(self, labels: Indices, reason: str) -> None:
        """Channels that are followed as if a number in the code were computed from their number."""
        self._guesses.append((labels, reason))

    def take_guesses(self) -> list[tuple[Indices, str]]:
        """The guessed channels with their reasons, once."""
        guesses, self._guesses = self._guesses, []
        return guesses

    def keep_whole(self, layer: str, reason: str) -> None:
        """A layer whose channels have no numbers, since it could not be cut."""
        self._whole.setdefault(layer, reason)

    def groups(self) -> tuple[dict[str, Group], dict[str, str]]:
        """The connected components, those with the same layers put together; and the layers that must stay."""
        labels = self._components()
        reasons: dict[int, str] = {}
        for atoms, reason in reversed([*self._fixed, *self._fixed_blocks()]):
            reasons.update(dict.fromkeys(np.unique(labels[atoms]).tolist(), reason))
        stuck = np.zeros(labels.max() + 1, bool)
        stuck[[*reasons]] = True
        fixed = dict(self._whole)
        # Units that have gone the same way so far have the same number; the first has been nowhere.
        ways, numbers = [_Way((), False)], np.zeros(len(stuck), np.int64)
        for layer, side in self.sizes:
            units, sizes = np.unique(labels[self.of(layer, side)], return_counts=True)
            base = int(sizes.max()) + 1
            steps, step = np.unique(numbers[units] * base + sizes, return_inverse=True)
            numbers[units] = len(ways) + step
            computed = side == "out" and self.kinds[layer] != "index"
            ways += [ways[s // base].then((layer, side, s % base), computed) for s in steps.tolist()]
            if computed and (held := units[stuck[units]]).size:
                fixed.setdefault(layer, reasons[int(held[0])])
        numbers[stuck] = 0
        found = {ways[way].sides: np.flatnonzero(numbers == way) for way in np.unique(numbers) if ways[way].computed}
        joined = self._ways(labels)
        groups = [self._group(signature, units, labels, joined) for signature, units in found.items()]
        order = {name: i for i, name in enumerate(self.kinds)}
        groups.sort(key=lambda group: (order[group.producers[0].layer], group.producers[0].index[0, 0]))
        return _named(groups), fixed

    def _components(self) -> Indices:
        return _connected(self._edges, self._total)

    def _fixed_blocks(self) -> list[tuple[Indices, str]]:
        """Blocks of input channels whose origin is unknown, such as the image."""
        fixed = []
        for layer in self._blocks:
            unread = self.of(layer, "in")[~self._read[layer]]
            fixed.append((unread, "is a grouped convolution over fixed channels"))
        return fixed

    def _ways(self, labels: Indices) -> dict[int, str]:
        """How the channels of a component are joined, or that several layers compute them; inner ones are left out."""
        ways: dict[int, str] = {}
        for atoms, how in reversed(self._joined):
            ways.update(dict.fromkeys(np.unique(labels[atoms]).tolist(), f"is joined by {how}"))
        producers = [self.of(layer, "out") for layer, kind in self.kinds.items() if kind in {"conv", "linear"}]
        streams = _connected([*self._own, *(_same(of_layer, labels) for of_layer in producers)], self._total)
        seen: dict[int, set[int]] = defaultdict(set)
        for of_layer in producers:
            for unit, stream in zip(labels[of_layer].tolist(), streams[of_layer].tolist(), strict=True):
                seen[unit].add(stream)
        several = {unit: "is computed by several layers" for unit, sources in seen.items() if len(sources) > 1}
        return several | ways

    def _group(self, signature: Signature, units: Indices, labels: Indices, joined: Mapping[int, str]) -> Group:
        first, side = next(
            (layer, side) for layer, side, _ in signature if side == "out" and self.kinds[layer] != "index"
        )
        rank = np.full(labels.max() + 1, -1)
        ordered = labels[self.of(first, side)]
        ordered = ordered[np.isin(ordered, units)]
        rank[ordered[np.sort(np.unique(ordered, return_index=True)[1])]] = np.arange(len(units))
        members = []
        for layer, of_layer, k in signature:
            ranks = rank[labels[self.of(layer, of_layer)]]
            inside = np.flatnonzero(ranks >= 0)
            index = inside[np.argsort(ranks[inside], kind="stable")].reshape(len(units), k)
            members.append(Member(layer, of_layer, index, self.kinds[layer], layer in self._blocks))
        ways = [joined[unit] for unit in units.tolist() if unit in joined]
        return Group(first, len(units), tuple(members), ways[0] if ways else None)


def _pairs(one: Indices, other: Indices) -> tuple[Indices, Indices]:
    """Pairs of distinct channels; those with `NONE` are left out."""
    one, other = one.ravel(), other.ravel()
    real = (one != NONE) & (other != NONE) & (one != other)
    return one[real], other[real]


def _same(of_layer: Indices, labels: Indices) -> tuple[Indices, Indices]:
    """The channels of one layer that must go together, in pairs."""
    _, first, place = np.unique(labels[of_layer], return_index=True, return_inverse=True)
    return of_layer[first][place], of_layer


def _connected(edges: Sequence[tuple[Indices, Indices]], total: int) -> Indices:
    """The component of each of so many numbers [total]; components are numbered by their smallest member.

    Larger labels are hooked to smaller ones that they share an edge with, and chains of labels made short, until no
    edge joins two labels. SciPy's function is faster by hundredths of a second, but takes a quarter of one to import.
    """
    ends = [np.concatenate([edge[side] for edge in edges] or [np.zeros(0, np.int64)]) for side in (0, 1)]
    labels = np.arange(total)
    while (apart := np.flatnonzero((one := labels[ends[0]]) != (other := labels[ends[1]]))).size:
        one, other = one[apart], other[apart]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(shorter := labels[labels], labels):
            labels = shorter
    components: Indices = np.unique(labels, return_inverse=True)[1]
    return components


def _named(groups: list[Group]) -> dict[str, Group]:
    """Groups by name; where a layer's channels fall into several groups, the later ones carry their first channel."""
    named: dict[str, Group] = {}
    for group in groups:
        name = group.name if group.name not in named else f"{group.name}[{group.producers[0].index[0, 0]}]"
        named[name] = replace(group, name=name)
    return named
