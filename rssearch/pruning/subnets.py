"""Narrow networks that compute with the weights of a wide one: slices of its parameters, which gradients reach.

A subnet costs what the cut network costs, in training as well: its layers have the widths of the structure. Nothing of
the wide network is copied but the slices, so the same parameters learn from any number of subnets.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rssearch.pruning.channels import ChannelGraph, Kept
from rssearch.pruning.surgery import apply_spec, make_spec, parameter_axes

__all__ = ["Subnets"]


class Subnets:
    """The subnets of a network.

    Args:
        model: the wide network, on its device. Its parameters are looked up in each pass, so they may be trained.
        graph: its channel graph.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.graph = graph
        self.parameters = dict(model.named_parameters())
        self._skeleton = _without_numbers(model)

    def __call__(self, kept: Kept, *, training: bool) -> Subnet:
        """The subnet of these channels, in training or evaluation mode.

        Groups that are not named stay whole. Raises InputError for unknown groups or channels.
        """
        spec = make_spec(self.graph, kept)
        tensors: dict[str, Tensor] = dict(self.parameters)
        for layer, sides in spec["layers"].items():
            module = self._skeleton.get_submodule(layer)
            for side in sides["width"]:
                for name, axis in parameter_axes(module, side).items():
                    whole = tensors[f"{layer}.{name}"]
                    index = torch.tensor(sides[side], device=whole.device)
                    tensors[f"{layer}.{name}"] = whole.index_select(axis, index)
        return Subnet(apply_spec(copy.deepcopy(self._skeleton), spec).train(training), tensors)


class Subnet:
    """One subnet: called with a batch it gives what the cut network gives.

    Batch normalisation has statistics of its own, which are those of the wide network until a pass in training mode.

    Attributes:
        skeleton: the cut network without the numbers of its parameters.
        tensors: these numbers by name, with gradients to the wide network.
    """

    def __init__(self, skeleton: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self.skeleton, self.tensors = skeleton, dict(tensors)

    def __call__(self, x: Tensor) -> Any:
        """Run it, in the mode of the skeleton."""
        return functional_call(self.skeleton, self.tensors, (x,))


def _without_numbers(model: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes alone; it has buffers of its own."""
    shapes = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, shapes)
