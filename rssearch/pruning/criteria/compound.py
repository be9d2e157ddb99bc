"""Compound pruning: a filter goes if both its elasticity and the scale behind it are among the network's smallest.

Both criteria are ranked over all N filters of the network that have a batch normalisation behind them. A score is a
share of ranks, (ascending rank + 1) / N, so that ``score <= rate`` picks exactly the ``floor(rate * N)`` smallest; of
equal values the one that is computed first, then the one with the lower index, has the lower rank. The allocation
``joint`` removes a channel if all its scores are at most the rate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate
from rssearch.device import reproducible, seed_epoch
from rssearch.errors import InputError, unknown
from rssearch.pruning.channels import ChannelGraph, Group, Member
from rssearch.pruning.criteria.batches import Batches, on_device
from rssearch.pruning.elasticity import Elasticity
from rssearch.train.losses import cross_entropy

SCHEMES = ("A", "B")
Judged = dict[str, list[tuple[Member, Member]]]  # group -> convolutions, each with the normalisation behind it


def compound(
    model: nn.Module,
    graph: ChannelGraph,
    data: Batches | None,
    seed: int,
    *,
    elasticity: Mapping[str, Tensor] | None = None,
    scheme: str = "A",
) -> dict[str, Tensor]:
    """Ranks of each channel by elasticity (row 0) and by the absolute scale |gamma| (row 1).

    A filter is judged if a batch normalisation follows its convolution directly; both rankings run over all such
    filters, also those that must stay. A channel that several convolutions compute has the highest of their ranks in
    each row: it goes only if each would let it go. A unit of several channels (grouped convolutions) has the mean of
    their ranks. The paper leaves open which channels of a residual network are cut:

    * Scheme A cuts the groups that one judged convolution computes, that one branch reads, and that feed neither a
      linear layer nor one whose outputs must stay: the inner convolutions of residual blocks, and all but the last of a
      VGG. A grouped or depthwise convolution over the group's own channels passes them on: it counts neither as another
      source nor as a branch, but has a say by its own ranks. Nor do convolutions without normalisation count as
      branches (those that squeeze for squeeze-and-excitation).
    * Scheme B cuts every group with a judged convolution.

    Args:
        model: the network, which stays as it is.
        graph: its channel graph.
        data: batches (images, labels), used where there is no record: the elasticity of the cross entropy is then added
            up over them in training mode while the weights stay, where the paper lets them learn.
        seed: of dropout on these batches.
        elasticity: convolution -> [out_channels], as `rssearch.pruning.Elasticity` recorded it in the training.
        scheme: ``A`` or ``B``.

    Returns:
        Group -> [2, width], float64 on the CPU, in (0, 1]; groups that may not be cut are left out.

    Raises:
        InputError: neither a record nor data, a record of another network, or nothing that may be cut.
    """
    if scheme not in SCHEMES:
        raise unknown("scheme of compound", scheme, SCHEMES)
    judged = {name: _judged(model, group) for name, group in graph.groups.items()}
    names = [name for name, pairs in judged.items() if pairs and (scheme == "B" or _is_inner(graph, name, judged))]
    if not names:
        other = ", but scheme B may cut some" if scheme == "A" and any(judged.values()) else ""
        raise InputError(
            f"method 'compound', scheme {scheme}, cuts channels of convolutions with normalisation behind them; "
            f"{type(model).__name__} has none that it may cut{other}"
        )
    record = _measure(model, data, seed) if elasticity is None else elasticity
    shares = _shares(model, graph, [pair for pairs in judged.values() for pair in pairs], record)
    return {
        name: torch.stack(
            [shares[conv.layer][:, torch.from_numpy(conv.index)].mean(2) for conv, _ in judged[name]]
        ).amax(0)
        for name in names
    }


def _judged(model: nn.Module, group: Group) -> list[tuple[Member, Member]]:
    """The convolutions of a group whose output goes through a normalisation with scales first."""
    pairs = []
    for place, conv in enumerate(group.members):
        if not conv.is_producer or conv.kind != "conv":
            continue
        behind = (m for m in group.members[place + 1 :] if m.kind == "norm" or m.is_producer)
        norm = next(behind, None)
        if (
            norm is not None
            and norm.kind == "norm"
            and norm.index.shape == conv.index.shape
            and getattr(model.get_submodule(norm.layer), "weight", None) is not None
        ):
            pairs.append((conv, norm))
    return pairs


def _is_inner(graph: ChannelGraph, name: str, judged: Judged) -> bool:
    """Whether scheme A may cut a group."""
    group = graph.groups[name]
    passing = {member.layer for member in group.members if member.side == "in" and member.grouped}
    sources = {conv.layer for conv, _ in judged[name]} - passing
    normalised = {conv.layer for pairs in judged.values() for conv, _ in pairs}
    branches = {member.layer for member in group.readers if member.kind == "index" or member.layer in normalised}
    feeds_head = any(member.kind == "linear" or member.layer in graph.fixed for member in group.readers)
    return len(sources) == 1 and len(branches) <= 1 and not feeds_head


def _measure(model: nn.Module, data: Batches | None, seed: int) -> dict[str, Tensor]:
    """The elasticity over batches, at fixed weights."""
    twin = duplicate(model).train().requires_grad_(True)
    twin.zero_grad()
    record = Elasticity(twin)
    for step, (x, y) in enumerate(on_device(data, twin, "compound")):
        if len(x) < 2:
            raise InputError("method 'compound' runs in training mode: it needs batches of two images or more")
        with reproducible(x.device), torch.enable_grad():
            seed_epoch(seed, step, x.device)
            loss = cross_entropy(twin(x), y)
            torch.autograd.backward(loss)
        record.update(loss)
        twin.zero_grad()
    return record.values()


def _shares(
    model: nn.Module, graph: ChannelGraph, pairs: list[tuple[Member, Member]], record: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The shares of ranks of all filters: convolution -> [2, out_channels], float64; NaN where none was asked for."""
    position = {layer: place for place, (layer, _) in enumerate(graph.sizes)}
    columns: list[list[np.ndarray]] = [[], [], [], []]  # place of the layer, channel, elasticity, scale
    for conv, norm in pairs:
        outputs = graph.sizes[conv.layer, "out"]
        values = record.get(conv.layer, torch.empty(0))
        if values.shape != (outputs,) or not bool(values.isfinite().all()):
            raise InputError(
                f"method 'compound': the record of elasticity must have {outputs} finite values for {conv.layer!r}"
            )
        scales = model.get_submodule(norm.layer).get_parameter("weight").detach().abs()
        channels = conv.index.ravel()
        columns[0].append(np.full(len(channels), position[conv.layer]))
        columns[1].append(channels)
        columns[2].append(values.double().cpu().numpy()[channels])
        columns[3].append(scales.double().cpu().numpy()[norm.index.ravel()])
    places, channels, *criteria = (np.concatenate(column) for column in columns)
    shares = np.empty((2, len(places)))
    for row, values_ in enumerate(criteria):
        shares[row, np.lexsort((channels, places, values_))] = np.arange(1, len(places) + 1) / len(places)
    result = {}
    for layer in {conv.layer for conv, _ in pairs}:
        of_layer = np.full((2, graph.sizes[layer, "out"]), np.nan)
        here = places == position[layer]
        of_layer[:, channels[here]] = shares[:, here]
        result[layer] = torch.from_numpy(of_layer)
    return result
