"""What the weight criteria share: filters of a layer, and the average over the layers of a group."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.pruning.channels import ChannelGraph

__all__ = ["average_over_producers", "filters"]


def filters(layer: nn.Module, weight: Tensor | None = None) -> Tensor:
    """The weights of each output channel of a convolution or linear layer, [out_channels, weights].

    Args:
        layer: the layer.
        weight: a tensor of the weight's shape to take instead, such as its gradient.
    """
    if weight is None:
        weight = layer.get_parameter("weight").detach()
    if isinstance(layer, _ConvNd) and layer.transposed:
        # [in, out / groups, ...]: the inputs of a group, one after the other, feed its outputs
        blocks = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = blocks.transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def average_over_producers(
    model: nn.Module, graph: ChannelGraph, score_layer: Callable[[str, nn.Module], Tensor]
) -> dict[str, Tensor]:
    """Scores of groups from scores of filters: the mean over the layers that compute a channel.

    Args:
        model: the network.
        graph: its channel graph.
        score_layer: (name, layer) -> one score for each of its output channels.

    Returns:
        Group -> scores [width]. A unit of several channels (grouped convolutions) has their mean.
    """
    scores = {}
    for name, group in graph.groups.items():
        layers = []
        for member in group.producers:
            of_layer = score_layer(member.layer, model.get_submodule(member.layer)).float().cpu()
            layers.append(of_layer[torch.from_numpy(member.index)].mean(1))
        scores[name] = torch.stack(layers).mean(0)
    return scores
