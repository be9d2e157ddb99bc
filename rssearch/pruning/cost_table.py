"""The cost of a network as a polynomial in the widths of its channel groups.

Every layer's cost is a product of its input and output channels, and those are sums of group widths (several of them
after a concatenation). So the cost of the whole network is ``constant + linear . n + n . quadratic . n`` for widths n,
with whole numbers as coefficients: exact, known without surgery, and differentiable in soft widths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd

from rssearch.cost.counting import Counts, LayerCount

Array = npt.NDArray[np.float64]
Side = Literal["out", "in", "both"]
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Count:
    """Channels of one side of a layer: ``constant + per_width . n``."""

    constant: float
    per_width: Array  # [G]


@dataclass
class CostTable:
    """Coefficients over G group widths. float64 holds every count below 2^53 exactly.

    Attributes:
        constant: the cost that no group changes.
        linear: [G].
        quadratic: [G, G].
        truncated: terms ``int(factor * count)`` with a fractional factor, which thop has for adaptive pooling to a size
            that does not divide its input.
    """

    constant: float
    linear: Array
    quadratic: Array
    truncated: list[tuple[float, float, Count]] = field(default_factory=list)

    @classmethod
    def zeros(cls, groups: int) -> CostTable:
        """The table of a network without layers."""
        return cls(0.0, np.zeros(groups), np.zeros((groups, groups)))

    def add(self, factor: float, count: Count) -> None:
        """Add ``factor * count``."""
        self.constant += factor * count.constant
        self.linear += factor * count.per_width

    def add_product(self, factor: float, a: Count, b: Count) -> None:
        """Add ``factor * a * b``."""
        self.constant += factor * a.constant * b.constant
        self.linear += factor * (a.constant * b.per_width + b.constant * a.per_width)
        self.quadratic += factor * np.outer(a.per_width, b.per_width)

    def __call__(self, widths: Array) -> int:
        """The cost at whole widths [G]."""
        cost = round(float(self.constant + widths @ self.linear + widths @ self.quadratic @ widths))
        for factor, positions, count in self.truncated:
            cost += int(factor * (positions * (count.constant + float(widths @ count.per_width))))
        return cost

    def of_tensor(self, widths: Tensor) -> Tensor:
        """The cost at soft widths [G], in their dtype and on their device, differentiable; nothing is truncated."""
        linear, quadratic = self.linear.copy(), self.quadratic
        constant = self.constant
        for factor, positions, count in self.truncated:
            constant += factor * positions * count.constant
            linear += factor * positions * count.per_width
        n, slope, curve = widths, widths.new_tensor(linear), widths.new_tensor(quadratic)
        return constant + n @ slope + n @ curve @ n


def build_tables(
    model: nn.Module,
    calls: Mapping[str, Sequence[Shapes]],
    sides: Mapping[tuple[str, Side], Count],
    full: Array,
    counts: Counts,
) -> dict[str, CostTable]:
    """The tables ``macs`` (as thop counts), ``conv_linear_macs`` and ``params`` of one image.

    Args:
        model: the network.
        calls: for each layer that ran, the shapes of its input and output at each call, with a batch of 1.
        sides: the channels of (layer, ``in``), (layer, ``out``) or, for channelwise layers, (layer, ``both``).
        full: the unpruned widths [G].
        counts: of the whole network. What no rule here explains (a softmax over classes, a layer norm, a product of
            maps) goes into the constant; `rssearch.pruning.functional` finds out whether it is one.
    """
    macs, exact, params = (CostTable.zeros(len(full)) for _ in range(3))
    for name, shapes in calls.items():
        layer = model.get_submodule(name)
        counted = counts.layers.get(name, LayerCount(0, 0))
        if isinstance(layer, _ConvNd | nn.Linear):
            both = (sides[name, "in"], sides[name, "out"])
            _add_weighted(layer, both, ((macs, counted.macs), (exact, counted.exact)), params)
        elif (name, "both") in sides:
            _add_channelwise(layer, shapes, sides[name, "both"], full, (macs, counted.macs), params)
    macs.constant += counts.macs - macs(full)
    exact.constant += counts.conv_linear_macs - exact(full)
    params.constant += counts.params - params(full)
    return {"macs": macs, "conv_linear_macs": exact, "params": params}


def _add_weighted(
    layer: nn.Module, sides: tuple[Count, Count], counted: Sequence[tuple[CostTable, int]], params: CostTable
) -> None:
    """A convolution or linear layer, each of whose weights is used the same number of times at all widths.

    In a grouped convolution the inputs per group do not change with the width.
    """
    inputs, outputs = sides
    if isinstance(layer, nn.Linear):
        kernel, groups, in_channels, out_channels = 1, 1, layer.in_features, layer.out_features
    elif isinstance(layer, _ConvNd):
        kernel, groups = math.prod(layer.kernel_size), layer.groups
        in_channels, out_channels = layer.in_channels, layer.out_channels
    else:
        raise TypeError(type(layer).__name__)
    weights = kernel * (in_channels // groups) * out_channels
    for table, total in (*counted, (params, weights)):
        uses, rest = divmod(total, weights)
        if rest:  # it computes more than that, and so is left to the constant
            continue
        if groups == 1:
            table.add_product(uses * kernel, inputs, outputs)
        else:
            table.add(uses * kernel * (in_channels // groups), outputs)
    if layer.bias is not None:
        params.add(1, outputs)


def _add_channelwise(
    layer: nn.Module,
    shapes: Sequence[Shapes],
    channels: Count,
    full: Array,
    counted: tuple[CostTable, int],
    params: CostTable,
) -> None:
    """A layer that works channel by channel: normalisation, average pooling, upsampling, PReLU."""
    for parameter in layer.parameters(recurse=False):
        if parameter.numel() > 1:
            params.add(1, channels)
    macs, total = counted
    if isinstance(layer, _AdaptiveAvgPoolNd) and total:
        for x, out in shapes:
            written = math.prod(out) // out[1]
            # The division is thop's, in double precision on tensors, so that the truncation is the same.
            ratio = torch.tensor(x[2:], dtype=torch.float64) / torch.tensor(out[2:], dtype=torch.float64)
            factor = float(ratio.prod()) + 1
            if factor.is_integer():
                macs.add(factor * written, channels)
            else:
                macs.truncated.append((factor, written, channels))
        return
    of_each, rest = divmod(total, round(channels.constant + float(channels.per_width @ full)))
    if not rest:
        macs.add(of_each, channels)
