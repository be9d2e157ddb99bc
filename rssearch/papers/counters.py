"""Operations of a network as older releases of thop counted them.

The current release is behind `rssearch.cost.profile`. Older tables used others, which differ in what batch
normalisation, the bias of a convolution and a linear layer are worth (read from the history of pytorch-OpCounter).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from rssearch.cost.counting import forward_hooks, macs_of_call


@dataclass(frozen=True)
class Rules:
    """What one release counts beside the multiply-accumulates of the convolutions.

    Attributes:
        norm: operations for each element of a batch normalisation.
        linear: operations for each weight of a linear layer.
    """

    norm: int
    linear: int


# Both count one operation for each output of a convolution with bias, and for adaptive average pooling with kernels of
# k x k elements k^2 + 1 for each output.
RULES = {"thop-2019": Rules(norm=4, linear=2), "thop-0.0.31": Rules(norm=2, linear=1)}


def older_thop(model: nn.Module, input_size: tuple[int, int, int], release: str) -> int:
    """Operations of one image.

    Args:
        model: a network that takes one batch of images; it is left as it is. Layers other than convolutions, linear
            layers, batch normalisation and adaptive average pooling count nothing.
        input_size: (C, H, W) of one image.
        release: ``thop-2019`` (November and December 2019) or ``thop-0.0.31`` (May 2020).
    """
    rules, total = RULES[release], 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _operations(module, inputs[0], output, rules)

    twin = copy.deepcopy(model).eval()
    with forward_hooks(twin, lambda module: not list(module.children()), count), torch.no_grad():
        twin(torch.zeros(1, *input_size, device=next(twin.parameters()).device))
    return total


def _operations(module: nn.Module, x: Tensor, output: Tensor, rules: Rules) -> int:
    match module:
        case _ConvNd():
            return macs_of_call(module, x, output) + (output.numel() if module.bias is not None else 0)
        case nn.Linear():
            return rules.linear * macs_of_call(module, x, output)
        case _BatchNorm():
            return rules.norm * output.numel()
        case nn.AdaptiveAvgPool2d():
            kernel: Any = math.prod(x.shape[2:]) // math.prod(output.shape[2:])
            return int((kernel + 1) * output.numel())
    return 0
