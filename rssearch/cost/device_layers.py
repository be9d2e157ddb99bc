"""The layers of a network by their kinds, for `rssearch.cost.device_table`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate, forward_hooks
from rssearch.cost.device_table import Layer

__all__ = ["layers"]

_COUNTED = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def layers(model: nn.Module, input_shape: tuple[int, int, int], precision: str) -> list[Layer]:
    """The layers of a network in the order of their calls.

    Args:
        model: takes a batch of images; left as it is.
        input_shape: (C, H, W). The batch has one image.
        precision: in which it is deployed; part of the kinds.
    """
    found: list[Layer] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found.append(_layer(layer, inputs[0], output, precision.removesuffix("_qat")))

    twin = duplicate(model).eval()
    reference = next(twin.parameters(), torch.empty(0))
    image = torch.zeros(1, *input_shape, device=reference.device, dtype=reference.dtype)
    counted = {module for module in twin.modules() if isinstance(module, _COUNTED)}
    with forward_hooks(twin, counted.__contains__, note), torch.inference_mode():
        twin(image)
    return found


def _layer(layer: nn.Module, x: Tensor, y: Tensor, precision: str) -> Layer:
    moved = x.numel() + y.numel()
    if isinstance(layer, nn.Linear):
        return Layer(f"{precision} Linear", y.numel() * layer.in_features, moved)
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    turned = isinstance(layer, nn.ConvTranspose2d)
    shape = [*layer.kernel_size, *layer.stride, *layer.dilation, *y.shape[2:]]
    kernel, stride, dilation, size = ("x".join(map(str, shape[i : i + 2])) for i in range(0, 8, 2))
    groups = "depthwise" if 1 < layer.groups == layer.in_channels else f"{layer.groups} groups"
    kind = f"{precision} {type(layer).__name__} {kernel} stride {stride} dilation {dilation}, {groups}, {size}"
    # Each value of the smaller channels' side is multiplied with a kernel for each channel of the other side.
    one, other = (x, layer.out_channels) if turned else (y, layer.in_channels)
    return Layer(kind, one.numel() * (other // layer.groups) * int(np.prod(layer.kernel_size)), moved)
