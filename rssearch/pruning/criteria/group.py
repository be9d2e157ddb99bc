"""The importance of coupled groups: every layer that holds a part of a channel has a say, also those that read it.

The sums of DepGraph (Fang et al., CVPR 2023), as torch_pruning 1.6 computes them in ``GroupMagnitudeImportance(p=2)``
and ``GroupTaylorImportance()`` with their defaults (``group_reduction="mean"``, ``normalizer="mean"``, no bias). What
counts of a channel is the same there and here, and so is what does not:

* of a convolution or linear layer that computes it, its filter; of one that reads it, the weights on it, behind a
  flattened map those of all positions; of batch normalisation its scale (in ``group_l2`` alone: torch_pruning looks for
  the handler of group normalisation there, and so never adds batch normalisation to ``GroupTaylorImportance``).
* not: depthwise convolutions, other normalisations, PReLU, biases.

The mean over these layers is divided by its mean over the channels of the group, so that scores of groups are alike.

They differ for grouped convolutions that are not depthwise. There a unit of several channels is one here, and has the
sum of their weights; and for a channel that one block reads, torch_pruning adds the weights of all blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from rssearch.cost.counting import duplicate
from rssearch.pruning.channels import ChannelGraph, Member
from rssearch.pruning.criteria.batches import Batches, on_device
from rssearch.pruning.criteria.producers import filters
from rssearch.train.losses import cross_entropy


def group_l2(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The mean squared L2 norm of all that a channel has in the layers of its group, over the mean of the group.

    Squares are summed inside each layer and not rooted, as in torch_pruning.
    """
    return _scores(model, graph, lambda layer: layer.get_parameter("weight").detach().square())


def group_taylor(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The mean of the summed first-order changes ``|w dL/dw|`` of a channel's weights, over the mean of the group.

    The absolute value is taken weight by weight (``multivariable=False`` in torch_pruning). The loss is the cross
    entropy in eval mode, and its gradient the mean over the batches. Scales of batch normalisation do not count, see
    above.

    Raises:
        InputError: no data.
    """
    twin = duplicate(model).eval().requires_grad_(True)
    twin.zero_grad()
    batches = 0
    for x, y in on_device(data, twin, "group_taylor"):
        with torch.enable_grad():
            torch.autograd.backward(cross_entropy(twin(x), y))
        batches += 1

    def change(layer: nn.Module) -> Tensor | None:
        weight = layer.get_parameter("weight")
        if isinstance(layer, _BatchNorm):
            return None
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad / batches
        return (weight.detach() * gradient).abs()

    return _scores(twin, graph, change)


def _scores(model: nn.Module, graph: ChannelGraph, amounts: Callable[[nn.Module], Tensor | None]) -> dict[str, Tensor]:
    """Group -> scores [width], from what each weight of a layer counts (None: it counts not)."""
    scores = {}
    for name, group in graph.groups.items():
        parts = []
        for member in group.members:
            layer = model.get_submodule(member.layer)
            if _counts(layer, member) and (amount := amounts(layer)) is not None:
                channels = _of_channels(layer, member, amount).double().cpu()
                parts.append(channels[torch.from_numpy(member.index)].sum(1))
        mean = torch.stack(parts).mean(0)
        scores[name] = (mean / mean.mean().clamp_min(1e-30)).float()
    return scores


def _counts(layer: nn.Module, member: Member) -> bool:
    """Whether a side of a layer has a say."""
    if isinstance(layer, _BatchNorm):
        return layer.affine
    depthwise = isinstance(layer, _ConvNd) and 1 < layer.groups == layer.out_channels
    return member.kind in {"conv", "linear"} and not depthwise


def _of_channels(layer: nn.Module, member: Member, amount: Tensor) -> Tensor:
    """The sum over the weights of each channel of a layer's side."""
    if isinstance(layer, _BatchNorm):
        return amount
    if member.side == "out":
        return filters(layer, amount).sum(1)
    if isinstance(layer, _ConvNd) and layer.transposed:
        return amount.flatten(1).sum(1)
    blocks = layer.groups if isinstance(layer, _ConvNd) else 1
    of_blocks = amount.reshape(blocks, -1, *amount.shape[1:])  # [blocks, outputs, inputs of a block, ...]
    return of_blocks.sum(1).flatten(0, 1).flatten(1).sum(1) if amount.dim() > 2 else of_blocks.sum(1).flatten()
