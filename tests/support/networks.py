"""Small networks and helpers for the tests of pruning."""

import copy
import functools

import torch
from torch import Tensor, nn

from rssearch import models, pruning
from rssearch.testing.networks import distance, randomise

__all__ = ["SLIM_VGG", "SMALL", "Fork", "distance", "fresh", "materialised", "network", "randomise", "some"]

# Encoder-decoders by the names that the tests have for them: with normalisation, and without it and any bias.
SMALL = {
    "unet": ("unet", {"base": 8, "levels": 3, "batch_norm": True, "bias": True}),
    "unet_plain": ("unet", {"base": 8, "levels": 3}),
    "miniaturized_net": ("miniaturized_net", {"base": 16, "levels": 3}),
    "micronet": ("micronet", {"base": 16, "levels": 2}),
    "micronet_norm": ("micronet", {"base": 8, "batch_norm": True}),
}


SLIM_VGG = "vgg16_bn_slim"  # vgg16_bn whose two hidden layers have 64 units instead of 4096: 20 MB instead of 540


def _slim_vgg(classes: int) -> nn.Module:
    with torch.device("meta"):  # the whole one is never there
        model = models.create("vgg16_bn", classes)
        model.classifier[0], model.classifier[3] = nn.Linear(512 * 7 * 7, 64), nn.Linear(64, 64)
        model.classifier[6] = nn.Linear(64, classes)
    return materialised(model)


def materialised(model: nn.Module) -> nn.Module:
    """A network of the device ``meta`` with values."""
    model.to_empty(device="cpu")
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return model


def fresh(name: str, classes: int = 10, **options) -> nn.Module:
    """A network of the registry, or of the small ones, with the same parameters at each call."""
    made = copy.deepcopy(_made(name, classes, **options))
    torch.manual_seed(0)  # what a test draws next does not depend on what was cached
    return made


@functools.lru_cache(maxsize=2)
def _made(name: str, classes: int, **options) -> nn.Module:
    """Initialising a large network takes seconds, a copy of it a fraction."""
    torch.manual_seed(0)
    if name == SLIM_VGG:
        return _slim_vgg(classes)
    name, small = SMALL.get(name, (name, {}))
    return models.create(name, classes, **small, **options)


@functools.lru_cache(maxsize=2)  # a large one holds hundreds of megabytes
def network(name: str, size: int = 32, classes: int = 10, **options) -> tuple[nn.Module, Tensor, pruning.ChannelGraph]:
    """A network with random statistics, a batch for it, and its graph. Do not change them."""
    model = randomise(fresh(name, classes, **options)).eval()
    images = torch.randn(2, 3, size, size)
    return model, images, pruning.trace(model, images)


def some(graph: pruning.ChannelGraph, share: float = 0.4, seed: int = 1) -> dict[str, tuple[int, ...]]:
    """A random choice of kept channels in every group."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tuple(sorted(torch.randperm(g.width, generator=generator)[: max(1, int(g.width * share))].tolist()))
        for name, g in graph.groups.items()
    }


class Fork(nn.Module):
    """Concatenation, grouped and depthwise convolutions, a transposed one, and a flattened map, in a few layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 6, 3, padding=1, groups=3)
        self.depthwise = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.act = nn.PReLU(5)
        self.resize = nn.Upsample(scale_factor=0.5)
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.fc = nn.Linear(45, 7)
        self.head = nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.left(x), self.right(x)], 1)))
        x = torch.relu(self.depthwise(torch.relu(self.grouped(x))))
        x = self.pool(self.resize(self.act(self.up(x))))
        return self.head(torch.relu(self.fc(torch.flatten(x, 1))))
