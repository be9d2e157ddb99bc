"""Pruning in one call: trace, score, allocate, cut; in several steps where the network is trained in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from rssearch.cost.counting import duplicate
from rssearch.errors import InputError
from rssearch.models import attention
from rssearch.pruning.allocate import Allocation, allocate, check_amount
from rssearch.pruning.channels import ChannelGraph, Kept
from rssearch.pruning.criteria.batches import Batches, on_device
from rssearch.pruning.graph import trace
from rssearch.pruning.methods import Method, check_options, get_method, score
from rssearch.pruning.scope import Scope, check_scope
from rssearch.pruning.sensitivity import measure_sensitivities
from rssearch.pruning.surgery import compose, cut, kept_by, make_spec


@dataclass(frozen=True)
class PrunedModel:
    """A pruned network.

    Attributes:
        model: the smaller network.
        spec: what rebuilds its shapes, see `rssearch.pruning.apply_spec`.
        kept: group -> kept channels of the original, ascending.
        report: what was asked and what came out: method, allocation, steps, macs, params and their baselines and ratios
            (remaining / baseline), the removed fraction of the filters, and kept and full width of each group.
    """

    model: nn.Module
    spec: dict[str, Any]
    kept: dict[str, tuple[int, ...]]
    report: dict[str, Any]


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
    groups: Scope = "all",
    keep: Mapping[str, float] | None = None,
    seed: int = 0,
    elasticity: Mapping[str, Tensor] | None = None,
    steps: int = 1,
    train: Callable[[nn.Module], object] | None = None,
    **options: str,
) -> PrunedModel:
    """Prune a network; the original stays as it is.

    Args:
        model: the network.
        example_input: a batch [N, C, H, W] on its device, for tracing.
        method: a name of the registry.
        rate: in [0, 1): share of channels to remove of each group (uniform) or of all (global); for the allocation
            ``joint`` the rank below which all criteria must place a channel, so that the removed fraction is smaller.
        rates: share by layer, see `rssearch.pruning.layer_rates`; layers that are not named stay whole.
        macs_ratio: MACs to be left, in (0, 1], met within 1 %. Exactly one of the three is given.
        data: see `score`. With several steps it is gone through once a step, so it must be a list or the like. A
            network that has attention (see `rssearch.models.attention.insert`) gets its mean over the data folded.
        allocation: see `rssearch.pruning.allocate`; None for the method's own (uniform if `rates` are given). For
            ``sensitivity``, which is measured again in each step, every second batch of `data` is held apart for the
            loss (the cross entropy), and the others recalibrate batch normalisation.
        round_to: kept widths are multiples of this.
        min_channels: no group gets smaller than this.
        groups: where to cut: ``all`` groups, or ``inner`` ones alone, which no addition or concatenation joins with
            others (see `rssearch.pruning.Group.is_inner`).
        keep: pattern of names of groups, or of layers that compute them -> share of the channels that must stay at
            least, in (0, 1]; 1 leaves a group whole.
        seed: of the random method.
        elasticity: see `score`.
        steps: prune in so many steps of equal factors, each on scores of its own; they need a `macs_ratio`, as a rate
            means something else once channels are gone.
        train: called with the smaller network after each step but the last, to train it in place.
        options: of the method's criterion, see ``METHODS[method].options``.

    Raises:
        InputError: bad values, or a `macs_ratio` that cannot be reached, with the nearest that can.
    """
    chosen = get_method(method)
    how: Allocation = allocation or ("uniform" if rates is not None else chosen.allocation)
    limits = {"round_to": round_to, "min_channels": min_channels}
    check_amount(how, rate=rate, rates=rates, macs_ratio=macs_ratio, **limits)
    check_scope(groups, keep, rates)
    check_options(method, options)
    if how == "sensitivity":
        check_sensitivity(chosen)
        data = batches = list(data or ())
        if len(batches) < 2:
            raise InputError(f"allocation 'sensitivity' needs data: two batches or more, not {len(batches)}")
    if attention.is_in(model):
        if data is None:
            raise InputError(f"method {method!r}: the network has attention to be folded first, which needs data")
        model = duplicate(model)
        attention.fold(model, attention.mean_attention(model, on_device(data, model, method)))
    whole = graph = trace(model, example_input)
    spec = make_spec(whole, {})
    for step, target in enumerate(check_steps(steps, macs_ratio)):
        if step:
            if train is not None:
                train(model)
            graph, elasticity = trace(model, example_input), None
        ratio = None if macs_ratio is None else min(1.0, target * whole.macs() / graph.macs())
        scores = score(model, graph, method, data=data, seed=seed, elasticity=elasticity, **options)
        curves = None
        if how == "sensitivity":
            curves = measure_sensitivities(model, graph, scores, batches[::2], batches[1::2])
        now = allocate(
            graph,
            scores,
            allocation=how,
            rate=rate,
            rates=rates,
            macs_ratio=ratio,
            groups=groups,
            keep=keep,
            whole=whole,
            sensitivities=curves,
            **limits,
        )
        model, cut_now = cut(model, graph, now)
        spec = compose(spec, cut_now)
    kept = kept_by(whole, spec)
    report = {
        "method": method,
        "allocation": how,
        "steps": steps,
        "groups": groups,
        "asked": {"rate": rate, "rates": dict(rates) if rates is not None else None, "macs_ratio": macs_ratio},
        **cost_report(whole, kept),
        "widths": {name: (len(channels), whole.groups[name].width) for name, channels in kept.items()},
    }
    return PrunedModel(model, spec, kept, report)


def check_sensitivity(method: Method) -> None:
    """Refuse a method whose scores do not rank the channels of a group. Raises InputError."""
    if method.allocation == "joint":
        raise InputError(
            f"'sensitivity' needs one ranking of the channels; method {method.name!r} has several criteria"
        )


def check_steps(steps: int, macs_ratio: float | None) -> list[float]:
    """The MACs ratios to be reached one after the other, with equal factors between them.

    Raises:
        InputError: a number below 1, or several steps without a MACs ratio.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}, but must be at least 1")
    if macs_ratio is None:
        if steps > 1:
            raise InputError("several steps need a macs_ratio: a rate means something else once channels are gone")
        return [1.0]
    return [macs_ratio ** (step / steps) for step in range(1, steps)] + [macs_ratio]


def cost_report(graph: ChannelGraph, kept: Kept | None) -> dict[str, Any]:
    """MACs and parameters of the network cut to `kept`, beside those of the whole; ratios are remaining / whole.

    ``removed_fraction`` counts filters: output channels of the convolutions and linear layers that can be pruned. A
    coupled channel that m layers compute is m filters.
    """
    filters = np.array([sum(member.index.shape[1] for member in g.producers) for g in graph.groups.values()], float)
    macs, params = graph.macs(kept), graph.params(kept)
    return {
        "macs": macs,
        "params": params,
        "conv_linear_macs": graph.conv_linear_macs(kept),
        "macs_ratio": macs / graph.macs(),
        "params_ratio": params / graph.params(),
        "removed_fraction": 1 - float(graph.widths(kept) @ filters / (graph.widths() @ filters)),
        "baseline_macs": graph.macs(),
        "baseline_params": graph.params(),
    }
