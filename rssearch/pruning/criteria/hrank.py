"""HRank (Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020): ranks of feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.maps import of_finite, score_maps


def hrank(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The average rank of the maps of each channel (the paper's eq. 5); averages as in `score_maps`.

    A map of 1 x 1, such as a linear layer reads, has rank 1 where it is not zero: its score is the share of images for
    which the channel is active.

    Raises:
        InputError: as `score_maps`.
    """
    return score_maps(model, graph, data, "hrank", of_finite(ranks))


def ranks(maps: Tensor) -> Tensor:
    """The rank of each map as a matrix.

    Singular values up to ``max(H, W) * eps`` times the largest one are taken for rounding, where eps is 1.2e-7
    (float32), or 2.2e-16 for float64 maps. The singular values of one map cost O(H W min(H, W)).

    Args:
        maps: [N, C, H, W].

    Returns:
        [N, C], float32.
    """
    if maps.dtype not in {torch.float32, torch.float64}:
        maps = maps.float()
    found: Tensor = torch.linalg.matrix_rank(maps)
    return found.float()
