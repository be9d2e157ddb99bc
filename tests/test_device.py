"""The memory layout of a network on its device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssearch.device import place, to_memory_format

CPU = torch.device("cpu")


class Flattens(nn.Module):
    """Maps become vectors by `view`, which needs PyTorch's own layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 6 * 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.conv(x))
        return self.linear(maps.view(len(x), -1))


def test_convolutions_and_images_are_in_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3))
    assert place(model, CPU, (3, 8, 8)) is model
    x = to_memory_format(torch.randn(2, 3, 8, 8), model)
    for tensor in (*(conv.weight for conv in model), x, model(x)):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


def test_a_network_that_cannot_run_so_keeps_its_layout() -> None:
    model = place(Flattens(), CPU, (3, 8, 8))
    x = to_memory_format(torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last), model)
    model(x.contiguous()).sum().backward()
    assert model.conv.weight.is_contiguous()
    assert model.training
    assert model.norm.num_batches_tracked == 1  # by the pass above alone


def test_images_follow_a_network_that_was_never_placed() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert to_memory_format(x, Flattens()) is x
    assert to_memory_format(x, nn.Flatten()) is x
