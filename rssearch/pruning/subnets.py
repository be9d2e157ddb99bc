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
from torch.nn.modules.batchnorm import _NormBase

from rssearch.pruning.channels import ChannelGraph, Kept
from rssearch.pruning.surgery import make_spec, parameter_axes, slice_layer

__all__ = ["Subnets"]


class Subnets:
    """The subnets of a network, in training mode: each normalises by its own batch, and keeps no running statistics.

    Args:
        model: the wide network, on its device. Its parameters are looked up in each pass, so they may be trained.
        graph: its channel graph.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        self.graph = graph
        self._parameters = dict(model.named_parameters())
        self._frame = _without_numbers(model).train()
        self._layers = {name: (layer, _state(layer)) for name, layer in self._frame.named_modules()}
        self._cut: set[str] = set()

    def __call__(self, kept: Kept, x: Tensor) -> Any:
        """What the network cut to these channels gives for a batch; groups that are not named stay whole.

        Raises:
            InputError: unknown groups or channels.
        """
        layers = make_spec(self.graph, kept)["layers"]
        for name in self._cut:
            layer, whole = self._layers[name]
            _restore(layer, whole)
        self._cut = set(layers)
        tensors: dict[str, Tensor] = dict(self._parameters)
        for name, sides in layers.items():
            layer, _ = self._layers[name]
            for side in sides["width"]:
                for parameter, axis in parameter_axes(layer, side).items():
                    tensor = tensors[f"{name}.{parameter}"]
                    index = torch.tensor(sides[side], device=tensor.device)
                    tensors[f"{name}.{parameter}"] = tensor.index_select(axis, index)
            slice_layer(layer, sides)
        return functional_call(self._frame, tensors, (x,))


def _without_numbers(model: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes alone, and whose normalisations have no running statistics."""
    shapes = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    frame = copy.deepcopy(model, shapes)
    for layer in frame.modules():
        if isinstance(layer, _NormBase):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return frame


def _state(layer: nn.Module) -> Mapping[str, Any]:
    """All attributes of a layer, as they are before it is cut."""
    return {**layer.__dict__, "_parameters": dict(layer._parameters), "_buffers": dict(layer._buffers)}


def _restore(layer: nn.Module, whole: Mapping[str, Any]) -> None:
    layer.__dict__.update(whole)
    layer._parameters, layer._buffers = dict(whole["_parameters"]), dict(whole["_buffers"])
