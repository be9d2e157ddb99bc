"""A trainable gate on every channel that can be pruned.

Each group of coupled channels has one score s for each channel, and its gate is ``sigmoid(s / temperature)``. The gate
multiplies what the layers outside the group read of the channel. In networks of convolution, normalisation and ReLU
this is the same as a gate behind the normalisation of every layer that computes the channel, because ReLU commutes with
factors that are not negative; elsewhere (concatenations before a normalisation, other activations) it still holds that
gates of 0 and 1 give exactly what the pruned network gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.errors import InputError
from rssearch.pruning.channels import ChannelGraph, Kept


class Gates(nn.Module):
    """The scores of all channels of a network, and the gates that they make.

    The network is never changed: `attached` hooks onto the layers that read channels, for as long as a block runs. The
    scores are no part of the network's ``state_dict``; copies of the network that are made inside the block share them.

    Args:
        graph: the channel graph of the network.
        seed: of the initial scores, 1 + N(0, 0.01); the global random state is not used.
        straight_through: forward gates are 0 or 1 (score above 0), gradients those of the soft gates.

    Attributes:
        scores: one for each channel [C], group after group in the order of the graph.
        temperature: of the sigmoid; smaller is harder.
    """

    scores: nn.Parameter
    group_of: Tensor

    def __init__(self, graph: ChannelGraph, *, seed: int = 0, straight_through: bool = False) -> None:
        super().__init__()
        if not graph.groups:
            raise InputError(
                f"the network has no prunable channels, so there is nothing to search: {graph.why_fixed()}"
            )
        self.graph, self.straight_through, self.temperature = graph, straight_through, 1.0
        widths = [group.width for group in graph.groups.values()]
        generator = torch.Generator().manual_seed(seed)
        self.scores = nn.Parameter(1 + 0.01 * torch.randn(sum(widths), generator=generator))
        self.register_buffer("group_of", torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths)))
        # For each reading layer, where the gate of each of its inputs is; the last place is a gate that is always open.
        starts = dict(zip(graph.groups, torch.tensor([0, *widths]).cumsum(0).tolist(), strict=False))
        self._readers: dict[str, str] = {}
        for name, group in graph.groups.items():
            for member in group.readers:
                if member.layer not in self._readers:
                    self._readers[member.layer] = buffer = f"reader{len(self._readers)}"
                    size = graph.sizes[member.layer, "in"]
                    self.register_buffer(buffer, torch.full((size,), sum(widths)), persistent=False)
                place = torch.arange(starts[name], starts[name] + group.width)[:, None]
                index = torch.from_numpy(member.index)
                self.get_buffer(self._readers[member.layer])[index] = place.expand_as(index)

    def soft(self) -> Tensor:
        """The soft gates [C], in (0, 1)."""
        return torch.sigmoid(self.scores / self.temperature)

    def forward(self) -> Tensor:
        """The gates [C] that the network is run with."""
        soft = self.soft()
        if self.straight_through:
            return (self.scores > 0).to(soft.dtype) + soft - soft.detach()
        return soft

    def widths(self, gates: Tensor) -> Tensor:
        """The sum of the gates of each group [G]: its expected width, if gates are chances of independent channels."""
        return gates.new_zeros(len(self.graph.groups)).index_add(0, self.group_of, gates)

    def expected_ratio(self, gates: Tensor) -> Tensor:
        """Expected multiply-accumulates of convolutions and linear layers over those of the whole network.

        Exact for independent gates unless a layer reads and writes the same group, and differentiable. The sums are in
        float64, where every count is exact.
        """
        table = self.graph.tables["conv_linear_macs"]
        return table.of_tensor(self.widths(gates.double())) / self.graph.conv_linear_macs()

    def by_group(self) -> dict[str, Tensor]:
        """The scores of each group [width], detached."""
        sizes = [group.width for group in self.graph.groups.values()]
        return dict(zip(self.graph.groups, torch.split(self.scores.detach(), sizes), strict=True))

    def hard(self, kept: Kept) -> Tensor:
        """Gates [C] of 1 for channels that are kept, 0 for others; groups that are not named are open."""
        self.graph.check(kept)
        gates = []
        for name, group in self.graph.groups.items():
            gate = torch.ones(group.width)
            if name in kept:
                gate.zero_()[list(kept[name])] = 1
            gates.append(gate)
        return torch.cat(gates).to(self.scores.device)

    @contextmanager
    def attached(self, model: nn.Module, gates: Callable[[], Tensor] | None = None) -> Iterator[None]:
        """Run the network with gates inside this block.

        Args:
            model: the network that the graph is of.
            gates: gives the gates [C] of each forward pass; None for those of `forward`.
        """
        source, now = gates or self, [torch.ones(1)]

        def compute(*_: Any) -> None:
            values = source()
            now[0] = torch.cat([values, values.new_ones(1)])

        def gate(buffer: str) -> Callable[..., tuple[Any, ...]]:
            def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
                x, *rest = inputs
                factors = now[0][self.get_buffer(buffer)].to(x.dtype)
                if not isinstance(layer, nn.Linear):  # of which the channels are the last axis
                    factors = factors.reshape(-1, *[1] * (x.dim() - 2))
                return x * factors, *rest

            return hook

        handles = [model.register_forward_pre_hook(compute)]
        try:
            for layer, buffer in self._readers.items():
                handles.append(model.get_submodule(layer).register_forward_pre_hook(gate(buffer)))
            yield
        finally:
            for handle in handles:
                handle.remove()
