"""The ResNets for 32x32 images: ResNet-20, -56, -110 (He et al., 2016, section 4.2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["A", "B"]


class IndexShortcut(nn.Module):
    """A shortcut without parameters that is an index map over channels.

    Output channel j is input channel ``index[j]``, or zero where ``index[j] == in_channels``. Option A of the paper
    (strided subsampling, zeros for the new channels) is such a map, and stays one when channels are removed on either
    side; so the widths before and after it can be pruned independently. Half of the zeros come before the channels
    that are kept, the rest behind.

    Shapes: [N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)].

    Attributes:
        index: [out_channels].
        scale: factors of the output channels [out_channels], or None for ones, as in the paper. It is part of the
            ``state_dict`` only where there is one: a state gives the shortcut that loads it the scale that it has.
    """

    index: Tensor
    scale: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        source = torch.arange(out_channels) - (out_channels - in_channels) // 2
        inside = (source >= 0) & (source < in_channels)
        self.register_buffer("index", torch.where(inside, source, in_channels))
        self.register_buffer("scale", None)

    def forward(self, x: Tensor) -> Tensor:
        """Take the strided positions, then the channels of the map."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        y = F.pad(x, (0, 0, 0, 0, 0, 1)).index_select(1, self.index)
        return y if self.scale is None else y * self.scale.to(y.dtype)[:, None, None]

    def scale_inputs(self, factors: Tensor) -> None:
        """Multiply each input channel by a factor [in_channels], in place."""
        of_outputs = torch.cat([factors, factors.new_ones(1)])[self.index.to(factors.device)].to(self.index.device)
        self.scale = of_outputs if self.scale is None else self.scale * of_outputs.to(self.scale.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}scale")
        self.scale = None if saved is None else torch.ones_like(saved, device=self.index.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Widths and stride, for ``print``."""
        scaled = "" if self.scale is None else ", scaled"
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}{scaled}"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Each ReLU is a module of its own, so that its maps can be observed."""

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = shortcut
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, channels, H', W']."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        result: Tensor = self.relu2(y + self.shortcut(x))
        return result


class CifarResNet(nn.Module):
    """A stem, three stages of 16, 32 and 64 channels, global average pooling and a linear classifier.

    The first block of stage 1 has an index shortcut too: the published lists of pruning ratios give the stem and the
    stage rates of their own.
    """

    def __init__(self, blocks: int, num_classes: int, in_channels: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks, 1, shortcut)
        self.layer2 = _stage(16, 32, blocks, 2, shortcut)
        self.layer3 = _stage(32, 64, blocks, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, C, H, W] to logits [N, num_classes]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def _stage(in_channels: int, channels: int, blocks: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    if shortcut == "B" and in_channels != channels:
        first: nn.Module = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )
    else:
        first = IndexShortcut(in_channels, channels, stride)
    rest = [BasicBlock(channels, channels, 1, nn.Identity()) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(in_channels, channels, stride, first), *rest)


def cifar_resnet(depth: int, num_classes: int, *, in_channels: int = 3, shortcut: Shortcut = "A") -> CifarResNet:
    """A ResNet of depth 6 n + 2 for small images.

    Args:
        depth: 20, 56, 110 or another number of the form 6 n + 2.
        num_classes: outputs of the classifier.
        in_channels: bands of the images.
        shortcut: ``"A"`` (no parameters) or ``"B"`` (1x1 convolution and BN where the width changes).
    """
    return CifarResNet((depth - 2) // 6, num_classes, in_channels, shortcut)
