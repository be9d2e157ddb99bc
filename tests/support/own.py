"""Networks and methods as users write them, for tests: module ``tests.support.own``."""

from __future__ import annotations

from torch import Tensor, nn

from rssearch.models import Entry
from rssearch.pruning import ChannelGraph, Method
from rssearch.pruning.criteria.producers import average_over_producers, filters


def tiny(num_classes: int, in_channels: int = 3, width: int = 8, input_size: int | None = None) -> nn.Module:
    """Two convolutions; the last layer depends on the size of the images."""
    block = [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    more = [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*block, *more, nn.Linear(2 * width * ((input_size or 32) // 2) ** 2, num_classes))


def _pixels(num_classes: int, *, in_channels: int, width: str = "4") -> nn.Module:
    first = nn.Conv2d(in_channels, int(width), 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(int(width), num_classes, 1))


PIXELS = Entry(_pixels, {"width": ("4", "8")}, task="segmentation")


class Both(nn.Module):
    """Gives its logits in a dictionary, beside features."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits, and a map."""
        maps = self.features(images).relu()
        return {"maps": maps, "scores": self.head(maps.mean((2, 3)))}


SCORES = Entry(Both, logits="scores")


def lacking(num_classes: int) -> nn.Module:
    """Takes no bands."""
    return nn.Linear(1, num_classes)


def spread(model: nn.Module, graph: ChannelGraph, data: object, seed: int) -> dict[str, Tensor]:
    """Smallest standard deviation of the filter.

    More of it.
    """
    return average_over_producers(model, graph, lambda _, layer: filters(layer).std(dim=1))


def power(model: nn.Module, graph: ChannelGraph, data: object, seed: int, exponent: str = "2") -> dict[str, Tensor]:
    """Smallest sum of powers."""
    return average_over_producers(model, graph, lambda _, layer: (filters(layer).abs() ** float(exponent)).sum(1))


class Joined(nn.Module):
    """A network whose every group of channels is added to another's."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(in_channels, 8, 3, padding=1), nn.Conv2d(in_channels, 8, 1)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc((self.a(x) + self.b(x)).relu().mean((2, 3)))
        return logits


SPARSE = Method("sparse", "s", "p", power, "global_mean", options={"exponent": ("2", "0.5")}, train={"bn_l1": 1e-4})
NUMBER = 7
