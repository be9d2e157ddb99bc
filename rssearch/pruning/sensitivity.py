"""What the loss of a network gains when single groups of channels are cut, and the widths that follow from it.

Each group is cut alone to some shares of its width, by the ranking of a criterion; batch normalisation is recalibrated
on some batches, and the loss is measured on others. These curves say where a network can be cut, and `narrowed` finds
the widths of least total increase at a budget of MACs. The sum over the groups is a model: cuts that are made together
cost more or less than one by one. FastNAS of NVIDIA's Model Optimizer searches by sensitivities likewise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate
from rssearch.device import Precision, autocast, mode, to_memory_format
from rssearch.errors import InputError, TrialFailed
from rssearch.pruning.channels import ChannelGraph, Kept
from rssearch.pruning.knapsack import solve
from rssearch.pruning.surgery import apply_spec, make_spec
from rssearch.train.balance import LabelLoss
from rssearch.train.loop import recalibrate_on
from rssearch.train.losses import cross_entropy, labelled

__all__ = ["SHARES", "Sensitivity", "from_json", "loss_of_cut", "measure_sensitivities", "narrowed", "to_json"]

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Batch = tuple[Tensor, Tensor]  # images and labels

SHARES = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1)  # of the width of a group; narrower ones are not measured, and never kept
_EVEN = 1e-6  # decides between widths that cost no loss: all groups get a bit narrower rather than one a lot


@dataclass(frozen=True)
class Sensitivity:
    """The curve of one group.

    Attributes:
        widths: that were measured, ascending; the last is the whole width.
        increases: of the loss at each of them, as measured; the last is 0.
    """

    widths: tuple[int, ...]
    increases: tuple[float, ...]

    def monotone(self) -> Values:
        """The increases without noise: none below 0, none that grows with the width (isotonic regression)."""
        from scipy.optimize import isotonic_regression  # only here: it takes long to import

        fitted = isotonic_regression(np.maximum(self.increases, 0.0), increasing=False).x
        fitted[-1] = 0.0  # a group that is not cut costs nothing
        return np.asarray(fitted, np.float64)

    def at(self, widths: Counts) -> Values:
        """The increase at each of some widths, linear between those that were measured; infinite below them."""
        between = np.interp(widths, self.widths, self.monotone())
        return np.where(widths < self.widths[0], np.inf, between)


def to_json(sensitivities: Mapping[str, Sensitivity]) -> dict[str, dict[str, Any]]:
    """The curves of a network as plain values."""
    return {name: asdict(curve) for name, curve in sensitivities.items()}


def from_json(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Sensitivity]:
    """The inverse of `to_json`."""
    return {
        name: Sensitivity(*(tuple(curve[key]) for key in ("widths", "increases"))) for name, curve in values.items()
    }


def measure_sensitivities(
    model: nn.Module,
    graph: ChannelGraph,
    scores: Mapping[str, Tensor],
    recalibration: Sequence[Batch],
    apart: Sequence[Batch],
    *,
    label_loss: LabelLoss = cross_entropy,
    precision: Precision = "auto",
) -> dict[str, Sensitivity]:
    """Cut each group alone, and measure what the loss gains.

    Every network, the whole one as well, has its batch normalisation recalibrated on the same batches, and is measured
    on the same others in evaluation mode. The cuts are real ones: nothing is masked.

    Args:
        model: the network, which stays as it is.
        graph: its channel graph.
        scores: group -> [width] or [criteria, width], of which the highest counts; high scores are kept, of equal ones
            the first. Groups without scores are not cut.
        recalibration: batches for batch normalisation, of which the labels are not used.
        apart: batches that the loss is measured on, at least one.
        label_loss: of logits and targets, a mean.
        precision: of the forward passes.

    Returns:
        A curve for each group of `scores`.

    Raises:
        InputError: there is no batch.
        TrialFailed: a loss is not finite.
    """
    if not recalibration or not apart:
        raise InputError("sensitivities need batches for batch normalisation, and others for the loss")
    device = next(model.parameters()).device
    recalibration, apart = ([(x.to(device), y.to(device)) for x, y in part] for part in (recalibration, apart))

    def loss_without(name: str, kept: tuple[int, ...]) -> float:
        loss = loss_of_cut(model, graph, {name: kept}, recalibration, apart, label_loss=label_loss, precision=precision)
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss is {loss} with {len(kept)} of {graph.groups[name].width} channels of {name!r}")
        return loss

    curves, whole = {}, None
    for name, values in scores.items():
        width = graph.groups[name].width
        order = torch.sort(-values.reshape(-1, width).amax(0), stable=True).indices.tolist()
        if whole is None:
            whole = loss_without(name, tuple(range(width)))
        measured = {count: loss_without(name, tuple(sorted(order[:count]))) - whole for count in measured_widths(width)}
        curves[name] = Sensitivity((*measured, width), (*measured.values(), 0.0))
    return curves


def measured_widths(width: int) -> list[int]:
    """The widths that are measured of a group, ascending, without the whole one."""
    return sorted({max(1, math.ceil(width * share - 1e-9)) for share in SHARES} - {width})


def loss_of_cut(
    model: nn.Module,
    graph: ChannelGraph,
    kept: Kept,
    recalibration: Sequence[Batch],
    images: Sequence[Batch],
    *,
    label_loss: LabelLoss = cross_entropy,
    precision: Precision = "auto",
) -> float:
    """The mean loss of a network once it is cut, without training.

    It is really cut, its batch normalisation is recalibrated, and it is run in evaluation mode.

    Args:
        model: the network, which stays as it is.
        graph: its channel graph.
        kept: group -> channels that stay; others stay whole.
        recalibration: batches on the network's device, of which the labels are not used.
        images: batches on the network's device that the loss is measured on, at least one.
        label_loss: of logits and targets, a mean.
        precision: of the forward passes.

    Returns:
        The mean over the labelled samples; it may not be finite.
    """
    device = images[0][0].device
    network = apply_spec(duplicate(model, share=True), make_spec(graph, kept))
    recalibrate_on(network, recalibration, device=device, precision=precision)
    values, samples = [], []
    with mode(network, training=False), torch.inference_mode(), autocast(device, precision):
        for x, y in images:
            values.append(label_loss(network(to_memory_format(x, network)), y))
            samples.append(float(labelled(y)))
    return float(np.average(torch.stack(values).double().cpu(), weights=samples))


def narrowed(
    graph: ChannelGraph, sensitivities: Mapping[str, Sensitivity], floors: Counts, round_to: int, macs: float
) -> tuple[Counts, Counts]:
    """The widths of least total increase within a budget.

    Args:
        graph: the channel graph.
        sensitivities: of its groups; others stay whole.
        floors: the narrowest widths [G].
        round_to: widths are multiples of it, or whole.
        macs: the budget, as thop counts.

    Returns:
        The widths, and the floors that hold here: no group gets narrower than what was measured. int64 [G].

    Raises:
        InputError: a curve of another network.
    """
    full = graph.widths().astype(np.int64)
    losses, least = [], floors.copy()
    for place, (name, width) in enumerate(zip(graph.groups, full.tolist(), strict=True)):
        curve = sensitivities.get(name, Sensitivity((width,), (0.0,)))
        if curve.widths[-1] != width:
            raise InputError(f"group {name!r} has {width} channels, but its sensitivity is of {curve.widths[-1]}")
        least[place] = min(width, -(-max(int(floors[place]), curve.widths[0]) // round_to) * round_to)
        widths = np.arange(width + 1)
        allowed = (widths >= least[place]) & ((widths % round_to == 0) | (widths == width))
        even = _EVEN * (width / np.maximum(widths, 1) - 1)
        losses.append(np.where(allowed, curve.at(widths) + even, np.inf))
    return solve(graph.tables["macs"], losses, macs), least
