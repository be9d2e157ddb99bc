"""Groups of coupled channels, and the cost of a network as a function of which of them are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError
from rssearch.pruning.cost_table import CostTable, Side

Indices = npt.NDArray[np.int64]
Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Member:
    """One side of one layer in a group.

    Attributes:
        layer: its name in the model.
        side: ``out``, ``in``, or ``both`` where the layer works channel by channel (BN, pooling, PReLU).
        index: [width, k]: group channel c is the channels ``index[c]`` of this side of the layer. k is 1, but for a
            linear layer behind a flattened map (one column per position) and for the blocks of grouped convolutions.
        kind: what the layer is, for the criteria.
        grouped: whether it is a grouped or depthwise convolution. Blocks of its inputs and outputs are one channel, so
            that it only passes on what it reads.
    """

    layer: str
    side: Side
    index: Indices
    kind: str
    grouped: bool = False

    @property
    def is_producer(self) -> bool:
        """Whether a Conv or Linear computes the group's channels here."""
        return self.side == "out" and self.kind in {"conv", "linear"}


@dataclass(frozen=True)
class Group:
    """Channels that can only be kept or removed together, `width` of them.

    Attributes:
        name: the first layer, in order of execution, that computes them.
        joined: what joins them with other channels, or has several layers compute them; None for inner groups.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    joined: str | None = None

    @property
    def is_inner(self) -> bool:
        """Whether one layer computes these channels and their readers get them as they are.

        Activations, normalisation, pooling, depthwise and grouped convolutions over the group itself, factors on the
        channels (squeeze-and-excitation) and flattening may lie between; additions, concatenations and index shortcuts
        may not. The inner convolutions of residual blocks are inner groups, and all convolutions of a VGG.
        """
        return self.joined is None

    @property
    def producers(self) -> tuple[Member, ...]:
        """The convolutions and linear layers that compute these channels."""
        return tuple(member for member in self.members if member.is_producer)

    @property
    def consumers(self) -> tuple[Member, ...]:
        """The convolutions and linear layers that read these channels."""
        return tuple(m for m in self.members if m.side == "in" and m.kind in {"conv", "linear"})

    @property
    def readers(self) -> tuple[Member, ...]:
        """What reads the channels from outside: convolutions, linear layers and index shortcuts, no grouped ones."""
        return tuple(m for m in self.members if m.side == "in" and not m.grouped)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.width} channels"]
        for member in self.members:
            per_channel = f" x {member.index.shape[1]}" if member.index.shape[1] > 1 else ""
            lines.append(f"    {member.side:<4} {member.layer} ({member.kind}){per_channel}")
        return "\n".join(lines)


@dataclass
class ChannelGraph:
    """The prunable groups of a network and its cost as a function of their widths.

    Attributes:
        groups: by name, in order of execution. Channels of the input and of the output belong to none.
        fixed: layers whose outputs cannot be pruned, with the reason.
        input_shape: shape of the example batch [N, C, H, W].
        sizes: channels of each (layer, side) at full width.
        tables: cost tables ``macs`` (thop), ``conv_linear_macs`` and ``params`` of one image, over the widths in the
            order of `groups`.
    """

    groups: dict[str, Group]
    fixed: dict[str, str]
    input_shape: tuple[int, ...]
    sizes: dict[tuple[str, Side], int] = field(repr=False)
    tables: dict[str, CostTable] = field(repr=False)

    def widths(self, kept: Kept | None = None) -> npt.NDArray[np.float64]:
        """The widths [G] that `kept` leaves; a group that is not in `kept` is whole.

        Raises:
            InputError: a group that does not exist, or channels that are no distinct indices of it.
        """
        kept = self.check(kept or {})
        return np.array([len(kept[name]) if name in kept else g.width for name, g in self.groups.items()], float)

    def check(self, kept: Kept) -> Kept:
        """`kept` itself, after a check of its names and indices. Raises InputError."""
        for name, channels in kept.items():
            if name not in self.groups:
                raise InputError(f"no group of channels is called {name!r}; groups: {', '.join(self.groups)}")
            last = self.groups[name].width - 1
            whole = isinstance(channels, Iterable) and all(
                issubclass(kind, Integral) for kind in {*map(type, channels)}
            )
            distinct = set(channels) if whole else set()
            if not distinct or len(distinct) != len(channels) or min(distinct) < 0 or max(distinct) > last:
                raise InputError(f"group {name!r}: kept channels must be distinct, at least one, and in 0..{last}")
        return kept

    def macs(self, kept: Kept | None = None) -> int:
        """MACs as thop counts them, of one image on the network cut to `kept`, exactly."""
        return self.tables["macs"](self.widths(kept))

    def conv_linear_macs(self, kept: Kept | None = None) -> int:
        """Exact multiply-accumulates of the convolutions and linear layers on the network cut to `kept`."""
        return self.tables["conv_linear_macs"](self.widths(kept))

    def params(self, kept: Kept | None = None) -> int:
        """Trainable parameters of the network cut to `kept`."""
        return self.tables["params"](self.widths(kept))

    def groups_of(self, layer: str) -> tuple[Group, ...]:
        """The groups whose channels a convolution or linear layer computes, or the one of this name; fixed: none.

        There are several where its outputs are added to a concatenation.
        """
        return tuple(
            group
            for name, group in self.groups.items()
            if name == layer or any(member.layer == layer for member in group.producers)
        )

    def why_fixed(self, reasons: int = 4) -> str:
        """Why layers stay whole, in one line: those of the same reason together, the first reasons alone."""
        layers: dict[str, list[str]] = defaultdict(list)
        for layer, reason in self.fixed.items():
            layers[reason].append(layer)
        told = [
            f"{names[0]!r} {reason}" if len(names) == 1 else f"{names[0]!r} and {len(names) - 1} more: {reason}"
            for reason, names in layers.items()
        ]
        more = [f"and {len(told) - reasons} more reasons"] if len(told) > reasons else []
        return "; ".join([*told[:reasons], *more]) or "it has no convolution and no linear layer"

    def __str__(self) -> str:
        lines = [f"{len(self.groups)} groups, {self.macs():,} MACs, {self.params():,} parameters"]
        lines += [str(group) for group in self.groups.values()]
        lines += [f"fixed {layer}: {reason}" for layer, reason in self.fixed.items()]
        return "\n".join(lines)
