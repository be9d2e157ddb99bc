"""A network before pruning, but for its weights: what can be known of it without training, computed once a process."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from rssearch import models, pruning
from rssearch.cost.latency import torch_threads
from rssearch.device import place, to_memory_format
from rssearch.pruning import ChannelGraph

_PROBED = 128  # pixels
_PROBED_BATCH = {"cpu": 32, "cuda": 256}  # images that say enough of a larger batch


@dataclass(frozen=True)
class Architecture:
    """What the shapes of a network depend on.

    Attributes:
        model: its name.
        options: as JSON with sorted keys.
        shape: (C, H, W) of its input.
        classes: how many there are.
    """

    model: str
    options: str
    shape: tuple[int, int, int]
    classes: int

    def build(self) -> nn.Module:
        """The network with random weights, in evaluation mode."""
        channels, size, _ = self.shape
        return models.create(
            self.model, self.classes, in_channels=channels, input_size=size, **_without_weights(self.options)
        ).eval()

    def inputs(self) -> dict[str, Any]:
        """The same as plain values, for a key."""
        options = json.loads(self.options)
        return {"model": self.model, "options": options, "shape": self.shape, "classes": self.classes}


@lru_cache(maxsize=32)
def graph(network: Architecture) -> ChannelGraph:
    """The coupled channels of a network; they do not depend on its weights."""
    with torch_threads(1):  # several would wait for one another, and for the trials that run beside the driver
        return pruning.trace(network.build(), torch.zeros(1, *network.shape))


@lru_cache(maxsize=32)
def untrained_scores(network: Architecture, method: str) -> dict[str, torch.Tensor]:
    """Scores that name the groups which the method can judge; their values mean nothing."""
    if pruning.get_method(method).needs_data:
        return {name: torch.ones(group.width) for name, group in graph(network).groups.items()}
    return pruning.score(network.build(), graph(network), method)


def seconds_per_image(network: Architecture, batch_size: int, device: torch.device, threads: int) -> float:
    """Seconds that a training step takes for each image on this machine, with so many threads of a CPU."""
    with torch_threads(threads):
        return _seconds_per_image(network, min(batch_size, _PROBED_BATCH[device.type]), device.type, threads)


@lru_cache(maxsize=32)
def _seconds_per_image(network: Architecture, batch_size: int, device: str, threads: int) -> float:  # noqa: ARG001
    channels, height, width = whole = network.shape
    if models.task_of(network.model) == "segmentation":  # a part of a large scene says enough, and takes no minutes
        height, width = min(height, _PROBED), min(width, _PROBED)
    model = place(network.build(), torch.device(device), (channels, height, width)).train()
    times = []
    for size in (min(2, batch_size), batch_size, batch_size):  # the first warms up, the second meets new shapes
        x = to_memory_format(torch.randn(size, channels, height, width, device=device), model)
        begin = time.perf_counter()
        logits = model(x)
        targets = torch.randint(network.classes, (size, *logits.shape[2:]), device=device)
        nn.functional.cross_entropy(logits, targets).backward()  # type: ignore[no-untyped-call]
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:]) / batch_size * (whole[1] * whole[2]) / (height * width)


@lru_cache(maxsize=32)
def without_numbers(model: str, options: str) -> nn.Module:
    """A network to look at, see `rssearch.models.without_numbers`."""
    return models.without_numbers(model, 10, **_without_weights(options))


def _without_weights(options: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(options).items() if name != "weights"}
