"""From searched scores to a pruned network: one threshold for all groups."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.cost.counting import PLAIN_LAYERS, duplicate, output_tensors
from rssearch.device import mode
from rssearch.errors import InputError
from rssearch.models.resnet_cifar import IndexShortcut
from rssearch.nas.gates import Gates
from rssearch.pruning.allocate import allocate
from rssearch.pruning.pruned import PrunedModel, cost_report
from rssearch.pruning.surgery import cut

__all__ = ["FLOOR", "derive", "fold"]

FLOOR = 0.05  # share of each group that always stays


def derive(
    model: nn.Module,
    gates: Gates,
    *,
    macs_ratio: float,
    round_to: int = 1,
    min_channels: int = 1,
    keep: Mapping[str, float] | None = None,
    folded: bool = True,
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
        keep: pattern of groups -> share of their channels that must stay, see `rssearch.pruning.prune`.
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
        keep=keep,
        floor=FLOOR,
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
    index shortcut has no weights: the gate goes into its scale.

    Raises:
        InputError: layers whose outputs do not follow their weights in proportion, such as those that normalise or
            quantise them, or compute them from other parameters.
    """
    twin, special = duplicate(model), _tied(model)
    with torch.no_grad():
        sizes = [group.width for group in gates.graph.groups.values()]
        for group, gate in zip(gates.graph.groups.values(), torch.split(gates().detach(), sizes), strict=True):
            for member in group.readers:
                layer = twin.get_submodule(member.layer)
                if isinstance(layer, IndexShortcut):
                    layer.scale_inputs(_factors(layer.in_channels, member.index, gate))
                    continue
                weight = getattr(layer, "weight", None)
                if not isinstance(weight, nn.Parameter):
                    raise InputError(f"gates cannot be folded into {member.layer!r}, whose weights are computed")
                if type(layer) not in PLAIN_LAYERS:
                    special.append(member.layer)
                axis = 0 if isinstance(layer, _ConvNd) and layer.transposed else 1
                factors = _factors(weight.shape[axis], member.index, gate).to(weight)
                weight.mul_(factors.reshape(-1, *[1] * (weight.dim() - axis - 1)))
    if special:
        _check(model, gates, twin, special)
    return twin


def _tied(model: nn.Module) -> list[str]:
    """The parameters that several layers share, by their later names."""
    first = {name for name, _ in model.named_parameters()}
    return [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in first]


def _factors(size: int, index: object, gate: Tensor) -> Tensor:
    """The factor of each channel of a layer [size]: its gate, or 1 for channels of other groups."""
    places = torch.as_tensor(index, device=gate.device)
    factors = gate.new_ones(size)
    factors[places] = gate[:, None].expand(*places.shape)
    return factors


def _check(model: nn.Module, gates: Gates, folded: nn.Module, layers: list[str]) -> None:
    """Compare a network with gates to the folded one on noise, in eval mode. Raises InputError if they differ.

    `layers` are those that may do more with their weights than a plain layer does.
    """
    parameter = next(model.parameters())
    noise = torch.randn(1, *gates.graph.input_shape[1:], generator=torch.Generator().manual_seed(0))
    noise = noise.to(parameter.device, parameter.dtype)
    with mode(model, training=False), mode(folded, training=False), torch.no_grad():
        with gates.attached(model):
            expected = output_tensors(model(noise))
        for found, wanted in zip(output_tensors(folded(noise)), expected, strict=True):
            if not torch.allclose(found, wanted, rtol=0, atol=1e-3 * float(wanted.abs().amax()) + 1e-6):
                names = ", ".join(dict.fromkeys(layers))
                raise InputError(f"gates cannot be folded into the weights of all of {names}: the outputs would change")
