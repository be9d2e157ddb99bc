"""The scales of batch normalisation (Liu et al., 2017, "Learning Efficient ConvNets through Network Slimming")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssearch.errors import InputError, unknown
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches

SHORTCUT_NORMS = ("count", "ignore")


def bn_scale(
    model: nn.Module,
    graph: ChannelGraph,
    data: Batches | None,  # noqa: ARG001
    seed: int,  # noqa: ARG001
    *,
    shortcut_norms: str = "count",
) -> dict[str, Tensor]:
    """The absolute scale gamma of each channel, the mean over the normalisation layers of its group.

    Groups without such a layer (the hidden linear layers of torchvision's VGG) get no scores, and so stay whole.

    Args:
        model: the network.
        graph: its channel graph.
        data: not used.
        seed: not used.
        shortcut_norms: ``ignore`` leaves the normalisations on the shortcuts of ResNets out of the mean. RemoteTrimmer
            folds no attention into them, but counts them.

    Raises:
        InputError: no group has a normalisation layer with a scale, or a value that is not allowed.
    """
    if shortcut_norms not in SHORTCUT_NORMS:
        raise unknown("shortcut_norms of bn_scale", shortcut_norms, SHORTCUT_NORMS)
    scores = {}
    for name, group in graph.groups.items():
        scales = []
        for member in group.members:
            weight = getattr(model.get_submodule(member.layer), "weight", None)
            if member.kind != "norm" or weight is None or (shortcut_norms == "ignore" and _on_shortcut(member.layer)):
                continue
            scales.append(weight.detach().abs().float().cpu()[torch.from_numpy(member.index)].mean(1))
        if scales:
            scores[name] = torch.stack(scales).mean(0)
    if not scores:
        raise InputError(f"method 'bn_scale' needs normalisation layers with a scale; {type(model).__name__} has none")
    return scores


def _on_shortcut(layer: str) -> bool:
    """Whether a layer is part of a shortcut, by the names of torchvision's ResNets and ours."""
    return not {"downsample", "shortcut"}.isdisjoint(layer.split("."))
