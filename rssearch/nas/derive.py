"""From searched scores to a pruned network: one threshold for all groups."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.nas.gates import Gates
from rssearch.pruning.allocate import allocate
from rssearch.pruning.pruned import PrunedModel, cost_report
from rssearch.pruning.surgery import cut


def derive(
    model: nn.Module, gates: Gates, *, macs_ratio: float, round_to: int = 1, min_channels: int = 1, folded: bool = True
) -> PrunedModel:
    """Cut a network to the channels with the highest scores.

    All channels are ranked together by score (of equal scores of a group the lower index stays, and of equal scores
    of different groups the earlier group loses first), and the lowest are removed until `macs_ratio` of the MACs is
    left, within 1 %. The highest 5 % of each group, at least one channel, always stay.

    Args:
        model: the searched network, which stays as it is.
        gates: its gates.
        macs_ratio: remaining share of thop's MACs, in (0, 1].
        round_to: kept widths are multiples of this.
        min_channels: no group gets smaller than this.
        folded: multiply the gates of the kept channels into the weights, so that the network starts as it was searched.

    Raises:
        InputError: a ratio that cannot be reached, with the nearest that can.
    """
    kept = allocate(
        gates.graph,
        gates.by_group(),
        allocation="global",
        macs_ratio=macs_ratio,
        round_to=round_to,
        min_channels=min_channels,
    )
    source = fold(model, gates) if folded else model
    pruned, spec = cut(source, gates.graph, kept)
    report = {
        "method": "channel_nas",
        "allocation": "global",
        "asked": {"rate": None, "rates": None, "macs_ratio": macs_ratio},
        **cost_report(gates.graph, kept),
        "widths": {name: (len(channels), gates.graph.groups[name].width) for name, channels in kept.items()},
    }
    return PrunedModel(pruned, spec, kept, report)


def fold(model: nn.Module, gates: Gates) -> nn.Module:
    """A copy of the network with the gates in its weights: without gates it gives what `model` gives with them.

    The convolutions and linear layers that read a channel are linear in it, so its gate goes into their weights. An
    index shortcut has no weights: it then reads the channel in full.
    """
    twin = copy.deepcopy(model)
    with torch.no_grad():
        sizes = [group.width for group in gates.graph.groups.values()]
        for group, gate in zip(gates.graph.groups.values(), torch.split(gates().detach(), sizes), strict=True):
            for member in group.consumers:
                if not member.grouped:
                    layer = twin.get_submodule(member.layer)
                    axis = 0 if isinstance(layer, _ConvNd) and layer.transposed else 1
                    _scale(layer.get_parameter("weight"), axis, member.index, gate)
    return twin


def _scale(parameter: Tensor, axis: int, index: object, gate: Tensor) -> None:
    """Multiply the slices of each channel along an axis by its gate, in place."""
    places = torch.as_tensor(index)
    factors = parameter.new_ones(parameter.shape[axis])
    factors[places.to(parameter.device)] = gate.to(parameter)[:, None].expand(*places.shape)
    parameter.mul_(factors.reshape(-1, *[1] * (parameter.dim() - axis - 1)))
