"""The pruning methods by name, and the two ways to use them: scores alone, or a pruned network in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rssearch.errors import InputError, unknown
from rssearch.pruning.allocate import Allocation, allocate, check_amount
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.criteria.batches import Batches
from rssearch.pruning.criteria.bn_scale import bn_scale
from rssearch.pruning.criteria.fpgm import fpgm
from rssearch.pruning.criteria.l1 import l1
from rssearch.pruning.criteria.l2 import l2
from rssearch.pruning.criteria.lfp import lfp
from rssearch.pruning.criteria.random import random
from rssearch.pruning.criteria.taylor import taylor
from rssearch.pruning.graph import trace
from rssearch.pruning.surgery import cut

Criterion = Callable[[nn.Module, ChannelGraph, Batches | None, int], dict[str, Tensor]]


@dataclass(frozen=True)
class Method:
    """A pruning method.

    Attributes:
        name: as in the registry.
        summary: one line.
        criterion: gives the scores.
        allocation: ``uniform`` (each group by itself) or ``global`` (all channels ranked together), where not asked
            otherwise.
        needs_data: whether the criterion sees images and labels.
        comparable: whether scores of different layers can be compared as they are. If not, `score` divides those of
            each group by their mean, which changes no ranking inside a group.
        source: the paper.
    """

    name: str
    summary: str
    criterion: Criterion
    allocation: Allocation
    needs_data: bool
    comparable: bool
    source: str


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("random", "random channels", random, "uniform", False, False, "the usual control experiment"),
        Method("l1", "smallest L1 norm of the filter", l1, "uniform", False, False, "Li et al., ICLR 2017"),
        Method("l2", "smallest L2 norm of the filter", l2, "uniform", False, False, "He et al., IJCAI 2018 (SFP)"),
        Method("fpgm", "filters nearest the geometric median", fpgm, "uniform", False, False, "He et al., CVPR 2019"),
        Method("bn_scale", "smallest BN scale", bn_scale, "global", False, True, "Liu et al., ICCV 2017"),
        Method(
            "taylor",
            "smallest first-order change of the loss",
            taylor,
            "global",
            True,
            True,
            "Molchanov et al., CVPR 2019",
        ),
        Method(
            "lfp",
            "smallest log-spectral magnitude of the maps",
            lfp,
            "uniform",
            True,
            False,
            "Low Frequency Preference (LFP)",
        ),
    )
}


@dataclass(frozen=True)
class PrunedModel:
    """A pruned network.

    Attributes:
        model: the smaller network.
        spec: what rebuilds its shapes, see `rssearch.pruning.apply_spec`.
        kept: group -> kept channels, ascending.
        report: what was asked and what came out: method, allocation, macs, params and their baselines and ratios
            (remaining / baseline), the share of channels kept, and kept and full width of each group.
    """

    model: nn.Module
    spec: dict[str, Any]
    kept: dict[str, tuple[int, ...]]
    report: dict[str, Any]


def list_methods() -> list[str]:
    """The names of the registry."""
    return sorted(METHODS)


def get_method(name: str) -> Method:
    """A method by name. Raises InputError if there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def score(
    model: nn.Module, graph: ChannelGraph, method: str, *, data: Batches | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """The scores of all channels.

    Args:
        model: the network, which stays as it is.
        graph: its channel graph.
        method: a name of the registry.
        data: batches (images, labels), for the methods that need them. They are gone through once.
        seed: of the random method.

    Returns:
        Group -> float32 scores [width] on the CPU, higher means keep. A method may leave out groups that it cannot
        judge; they stay whole.

    Raises:
        InputError: unknown method, or a method that needs data and got none.
    """
    chosen = get_method(method)
    if chosen.needs_data and data is None:
        raise InputError(f"method {method!r} needs data: batches of images and labels")
    if not graph.groups:
        raise InputError("the network has no prunable channels")
    scores = chosen.criterion(model, graph, data, seed)
    if not chosen.comparable:
        scores = {name: value / value.mean().clamp_min(1e-30) for name, value in scores.items()}
    return scores


def prune(
    model: nn.Module,
    example_input: Tensor,
    method: str,
    *,
    rate: float | None = None,
    rates: Mapping[str, float] | None = None,
    macs_ratio: float | None = None,
    data: Batches | None = None,
    allocation: Allocation | None = None,
    round_to: int = 1,
    min_channels: int = 1,
    seed: int = 0,
) -> PrunedModel:
    """Prune a network; the original stays as it is.

    Args:
        model: the network.
        example_input: a batch [N, C, H, W] on its device, for tracing.
        method: a name of the registry.
        rate: share of channels to remove, in [0, 1): of each group, or of all for a global allocation.
        rates: share by layer, see `rssearch.pruning.layer_rates`; layers that are not named stay whole.
        macs_ratio: MACs to be left, in (0, 1], met within 1 %. Exactly one of the three is given.
        data: see `score`.
        allocation: ``uniform`` or ``global``; None for the method's own (uniform if `rates` are given).
        round_to: kept widths are multiples of this.
        min_channels: no group gets smaller than this.
        seed: of the random method.

    Raises:
        InputError: bad values, or a `macs_ratio` that cannot be reached, with the nearest that can.
    """
    chosen = get_method(method)
    how: Allocation = allocation or ("uniform" if rates is not None else chosen.allocation)
    check_amount(how, rate=rate, rates=rates, macs_ratio=macs_ratio, round_to=round_to, min_channels=min_channels)
    graph = trace(model, example_input)
    scores = score(model, graph, method, data=data, seed=seed)
    kept = allocate(
        graph,
        scores,
        allocation=how,
        rate=rate,
        rates=rates,
        macs_ratio=macs_ratio,
        round_to=round_to,
        min_channels=min_channels,
    )
    pruned, spec = cut(model, graph, kept)
    total, left = graph.widths().sum(), graph.widths(kept).sum()
    report = {
        "method": method,
        "allocation": how,
        "asked": {"rate": rate, "rates": dict(rates) if rates is not None else None, "macs_ratio": macs_ratio},
        "macs": graph.macs(kept),
        "baseline_macs": graph.macs(),
        "macs_ratio": graph.macs(kept) / graph.macs(),
        "params": graph.params(kept),
        "baseline_params": graph.params(),
        "params_ratio": graph.params(kept) / graph.params(),
        "channels_ratio": float(left / total),
        "widths": {name: (len(channels), graph.groups[name].width) for name, channels in kept.items()},
    }
    return PrunedModel(pruned, spec, kept, report)
