"""First-order Taylor expansion of the loss (Molchanov et al., CVPR 2019).

The paper puts a gate behind each channel and takes the derivative of the loss by the gate. Here the gate stands where
the channel is read, once for each layer that does so: as taking a channel away closes all of them, their derivatives
add up. So a channel that several layers compute has one exact value, and batch normalisation needs no rule of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches, on_device
from rssearch.train.losses import cross_entropy


def taylor(model: nn.Module, graph: ChannelGraph, data: Batches | None, seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """The change of the loss, to first order, when no layer can read a channel any more.

    ``|dL/dg|`` of a gate g = 1 on the channel. The loss is the cross-entropy in eval mode; the absolute values are
    averaged over the batches.

    Raises:
        InputError: no data.
    """
    twin = duplicate(model).eval().requires_grad_(True)
    layers = sorted({member.layer for group in graph.groups.values() for member in group.readers})
    device = next(twin.parameters()).device
    gates = {name: torch.ones(graph.sizes[name, "in"], device=device, requires_grad=True) for name in layers}
    handles = [twin.get_submodule(name).register_forward_pre_hook(_through(gate)) for name, gate in gates.items()]
    totals = {name: torch.zeros(group.width) for name, group in graph.groups.items()}
    batches = 0
    try:
        for x, y in on_device(data, twin, "taylor"):
            with torch.enable_grad():
                gradients = torch.autograd.grad(
                    cross_entropy(twin(x), y), list(gates.values()), allow_unused=True, materialize_grads=True
                )
            changes = {name: gradient.cpu() for name, gradient in zip(gates, gradients, strict=True)}
            for name, group in graph.groups.items():
                each = [changes[member.layer][torch.from_numpy(member.index)].sum(1) for member in group.readers]
                totals[name] += torch.stack(each).sum(0).abs()
            batches += 1
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / batches for name, total in totals.items()}


def _through(gate: Tensor) -> Any:
    """A hook that lets what a layer reads through a gate for each channel."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        factors = gate.to(x.dtype)
        if not isinstance(layer, nn.Linear):  # of which the channels are the last axis
            factors = factors.reshape(-1, *[1] * (x.dim() - 2))
        return x * factors, *rest

    return hook
