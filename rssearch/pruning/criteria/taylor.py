"""First-order Taylor expansion of the loss (Molchanov et al., CVPR 2019)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches, on_device
from rssearch.pruning.criteria.producers import average_over_producers, filters


def taylor(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The change of the loss when a filter is set to zero, to first order: ``|sum of weight * gradient|``.

    The loss is the cross-entropy in eval mode; the absolute values are averaged over the batches, then over the layers
    that compute a channel.

    Raises:
        InputError: no data.
    """
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    names = sorted({member.layer for group in graph.groups.values() for member in group.producers})
    layers = {name: twin.get_submodule(name) for name in names}
    weights: list[Tensor] = [layer.get_parameter("weight") for layer in layers.values()]
    totals = {name: torch.zeros(len(filters(layer))) for name, layer in layers.items()}
    batches = 0
    for x, y in on_device(data, twin, "taylor"):
        with torch.enable_grad():
            gradients = torch.autograd.grad(F.cross_entropy(twin(x), y), weights)
        for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
            totals[name] += (filters(layer) * filters(layer, gradient)).sum(1).abs().float().cpu()
        batches += 1
    return average_over_producers(twin, graph, lambda name, _: totals[name] / batches)
