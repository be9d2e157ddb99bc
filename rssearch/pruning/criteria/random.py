"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches


def random(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """Uniform scores in [0, 1), a function of the seed and of the order of the groups."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(group.width, generator=generator) for name, group in graph.groups.items()}
