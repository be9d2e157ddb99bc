"""The scales of batch normalisation (Liu et al., 2017, "Learning Efficient ConvNets through Network Slimming")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssearch.errors import InputError
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches


def bn_scale(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The absolute scale gamma of each channel, the mean over the normalisation layers of its group.

    Groups without such a layer (the hidden linear layers of torchvision's VGG) get no scores, and so stay whole.

    Raises:
        InputError: no group has a normalisation layer with a scale.
    """
    scores = {}
    for name, group in graph.groups.items():
        scales = []
        for member in group.members:
            weight = getattr(model.get_submodule(member.layer), "weight", None)
            if member.kind == "norm" and weight is not None:
                scales.append(weight.detach().abs().float().cpu()[torch.from_numpy(member.index)].mean(1))
        if scales:
            scores[name] = torch.stack(scales).mean(0)
    if not scores:
        raise InputError(f"method 'bn_scale' needs normalisation layers with a scale; {type(model).__name__} has none")
    return scores
