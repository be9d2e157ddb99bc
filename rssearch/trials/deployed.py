"""What a deployed network takes of a device's memory and arithmetic, where objectives or constraints name it.

All of it is known before training, from the widths of the network alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from torch import nn

from rssearch import pruning
from rssearch.cost import activations, counting
from rssearch.cost.precision import BITS, DEFAULT
from rssearch.pruning.channels import Kept
from rssearch.trials import architecture
from rssearch.trials.architecture import Architecture

Metrics = dict[str, Any]
Shape = tuple[int, int, int]

WEIGHT_BYTES, PEAK, BOPS = "weight_bytes", "peak_activation_bytes", "bops"
METRICS = (WEIGHT_BYTES, PEAK, BOPS)


class Numbers(NamedTuple):
    """How many numbers a network takes: its weights, the most activations at once, and its products of the two."""

    weights: int
    activations: int
    macs: int


def of_model(model: nn.Module, shape: Shape) -> Numbers:
    """Of a network that is there."""
    peak = activations.traced(model, shape).peak()
    return Numbers(activations.weights(model), peak, counting.profile(model, shape).conv_linear_macs)


def of_widths(network: Architecture, kept: Kept | None) -> Numbers:
    """Of a network that keeps these channels of each group: which ones they are makes no difference."""
    widths = {name: len(channels) for name, channels in (kept or {}).items()}
    return _of_widths(network, tuple(sorted(widths.items())))


@lru_cache(maxsize=256)
def _of_widths(network: Architecture, widths: tuple[tuple[str, int], ...]) -> Numbers:
    graph = architecture.graph(network)
    kept = {name: list(range(width)) for name, width in widths}
    model = pruning.apply_spec(network.build(), pruning.make_spec(graph, kept))
    peak = activations.traced(model, network.shape).peak()
    return Numbers(activations.weights(model), peak, graph.conv_linear_macs(kept))


def metrics(numbers: Numbers, point: Mapping[str, Any], requested: Iterable[str]) -> Metrics:
    """Those that a study asks for, in the precision of a point."""
    bits = BITS[point.get("precision", DEFAULT)]
    found = {
        WEIGHT_BYTES: activations.in_bytes(numbers.weights, bits),
        PEAK: activations.in_bytes(numbers.activations, bits),
        BOPS: numbers.macs * bits * bits,
    }
    return {name: found[name] for name in METRICS if name in requested}
