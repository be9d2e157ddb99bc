"""Filter pruning by the geometric median (He et al., 2019, "Filter Pruning via Geometric Median", eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.producers import average_over_producers, filters


def fpgm(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The sum of Euclidean distances from each filter to all filters of its layer.

    A filter with a small sum is near the geometric median of its layer, so that the others can stand in for it.
    """

    def distances(_: str, layer: nn.Module) -> Tensor:
        vectors = filters(layer).float()
        # Distances by matrix products are much faster than by differences; what they lose to rounding is relative to
        # the distance from the origin, hence the centring. A filter's distance to itself is nothing but rounding.
        vectors = vectors - vectors.mean(0)
        return torch.cdist(vectors, vectors, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(0).sum(1)

    return average_over_producers(model, graph, distances)
