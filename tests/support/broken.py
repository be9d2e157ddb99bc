"""Parts that break their contract, each in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.pruning import ChannelGraph
from rssearch.trial.session import Session


class Net(nn.Module):
    """A sound network, to be broken."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def sound(num_classes: int, in_channels: int = 3) -> nn.Module:
    return Net(num_classes, in_channels)


def unseeded(num_classes: int, in_channels: int = 3) -> nn.Module:
    net = Net(num_classes, in_channels)
    with torch.no_grad():
        net.fc.bias.copy_(torch.randn(num_classes, generator=torch.Generator().manual_seed(torch.seed() % 2**31)))
    return net


class _TooFew(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :-1]


def too_few_logits(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _TooFew(num_classes, in_channels)


class _Batch(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True))


def across_the_batch(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Batch(num_classes, in_channels)


class _Unused(Net):
    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels)
        self.spare = nn.Linear(3, 3)


def with_an_unused_layer(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Unused(num_classes, in_channels)


class _Whole(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def nothing_to_prune(num_classes: int, in_channels: int = 3) -> nn.Module:
    return _Whole(num_classes)


def _by(model: nn.Module, graph: ChannelGraph, value: Any) -> dict[str, Tensor]:
    return {name: value(group.width) for name, group in graph.groups.items()}


def norms(model: nn.Module, graph: ChannelGraph, data: Any, seed: int) -> dict[str, Tensor]:
    """Sound: a ramp."""
    return _by(model, graph, lambda width: torch.arange(width, dtype=torch.float32))


def not_finite(model: nn.Module, graph: ChannelGraph, data: Any, seed: int) -> dict[str, Tensor]:
    """Not a number."""
    return _by(model, graph, lambda width: torch.full((width,), torch.nan))


def of_another_width(model: nn.Module, graph: ChannelGraph, data: Any, seed: int) -> dict[str, Tensor]:
    """One too many."""
    return _by(model, graph, lambda width: torch.ones(width + 1))


def by_chance(model: nn.Module, graph: ChannelGraph, data: Any, seed: int) -> dict[str, Tensor]:
    """The global random numbers."""
    return _by(model, graph, torch.rand)


def by_force(model: nn.Module, graph: ChannelGraph, data: Any, seed: int) -> dict[str, Tensor]:
    """Changes the network."""
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    return norms(model, graph, data, seed)


def with_gradients(model: nn.Module, graph: ChannelGraph, data: Any, seed: int) -> dict[str, Tensor]:
    """Leaves gradients behind."""
    torch.autograd.backward(model(next(iter(data))[0]).sum())
    return norms(model, graph, data, seed)


# Trials: the hooks of one module for all; each function breaks one clause.

EPOCH_METRICS = ("val_accuracy",)
_calls: list[int] = []


def check(point: Mapping[str, Any], settings: Settings) -> None:
    if extra := point.keys() - {"rate"}:
        raise InputError(f"space: unknown dimension {', '.join(extra)}")


def epochs(point: Mapping[str, Any], settings: Settings) -> int:
    return 3


def _train(config: Mapping[str, Any], session: Session, count: int = 3) -> dict[str, Any]:
    kept = session.load_checkpoint()
    value = 0.0 if kept is None else float(kept)
    for epoch in range(round(value / config["rate"]) + 1, count + 1):
        value = config["rate"] * epoch
        session.save_checkpoint(str(value).encode())
        session.report({"epoch": epoch, "val_accuracy": value})
    return {"val_accuracy": value, "macs": 10}


def steady(config: Mapping[str, Any], session: Session) -> dict[str, Any]:
    return _train(config, session)


def restless(config: Mapping[str, Any], session: Session) -> dict[str, Any]:
    _calls.append(1)
    return _train(config, session) | {"calls": len(_calls)}


def short(config: Mapping[str, Any], session: Session) -> dict[str, Any]:
    return _train(config, session, 2)


def forgetful(config: Mapping[str, Any], session: Session) -> dict[str, Any]:
    resumed = session.load_checkpoint() is not None
    return _train(config, session) | {"resumed": resumed}


def silent(config: Mapping[str, Any], session: Session) -> dict[str, Any]:
    return dict.fromkeys(_train(config, session), "nothing")
