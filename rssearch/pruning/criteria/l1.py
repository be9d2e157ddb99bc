"""The L1 norm of filters (Li et al., 2017, "Pruning Filters for Efficient ConvNets")."""

from __future__ import annotations

from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.producers import average_over_producers, filters


def l1(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The L1 norm of each filter; the mean over the layers that compute a channel."""
    return average_over_producers(model, graph, lambda _, layer: filters(layer).norm(p=1, dim=1))
