"""VGG-16 for small images, as the filter-pruning papers use it (Liu et al., 2017; HRank, CHIP, LFP)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from rssearch.errors import InputError

_WIDTHS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class CifarVGG16(nn.Module):
    """13 convolutions with bias and BN, average pooling to 1x1, and a head of 512, 512 and ``num_classes`` units."""

    def __init__(self, num_classes: int, in_channels: int, pool: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        number = 0
        for width in _WIDTHS:
            if isinstance(width, str):
                layers[f"pool{number}"] = nn.MaxPool2d(2)
                continue
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(in_channels, width, 3, padding=1)
            layers[f"norm{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            in_channels = width
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AvgPool2d(pool)
        self.classifier = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(512, 512),
                norm1=nn.BatchNorm1d(512),
                relu1=nn.ReLU(inplace=True),
                linear2=nn.Linear(512, num_classes),
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images [N, C, H, W] to logits [N, num_classes]."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def vgg16_cifar(num_classes: int, *, in_channels: int = 3, input_size: int | None = None) -> CifarVGG16:
    """VGG-16 with one hidden layer.

    Args:
        num_classes: outputs of the classifier.
        in_channels: bands of the images.
        input_size: height and width of the images (default 32); the pooling before the head is 1/16 of it.

    Raises:
        InputError: images below 16 pixels.
    """
    size = 32 if input_size is None else input_size
    if size < 16:
        raise InputError(f"vgg16_cifar: input_size is {size}, but must be at least 16")
    return CifarVGG16(num_classes, in_channels, size // 16)
