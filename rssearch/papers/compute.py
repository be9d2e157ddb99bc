"""The figures of a published table, counted again on networks that are built for it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

import torch
from torch import nn

from rssearch import models
from rssearch.cost.counting import duplicate, profile
from rssearch.papers.counters import RULES, older_thop
from rssearch.papers.table import Cell, Cut, Listed, Network, Paper, Row, Table, Trained, Uniform, Unpublished
from rssearch.pruning.allocate import allocate
from rssearch.pruning.channels import ChannelGraph, Kept
from rssearch.pruning.graph import trace
from rssearch.pruning.ratios import ratios_of
from rssearch.pruning.surgery import apply_spec, make_spec


def recompute(paper: Paper) -> Table:
    """Build, trace and cut the networks of a paper's table, and count them."""
    return Table(paper, tuple(_cells(row, paper.counters) for row in paper.rows))


def _cells(row: Row, counters: tuple[str, ...]) -> tuple[Cell, ...]:
    found = _counts(row.network, row.cut, counters)
    cells = [Cell(row.name, "params", row.params, found["params"], True, row.why.get("params", ""))]
    for counter in () if row.network.part else counters:
        if counter == row.counter:
            cells.append(Cell(row.name, counter, row.macs, found[counter], True, row.why.get("macs", "")))
        elif len(found[counter]) == 1:
            cells.append(Cell(row.name, counter, row.macs, found[counter], False))
    return tuple(cells)


@cache
def _counts(network: Network, cut: Cut, counters: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Parameters and operations: one figure, two where only the range is known, none where nothing is."""
    found: dict[str, list[int]] = {name: [] for name in ("params", *counters)}
    if cut is None:
        return _whole(network, counters)
    if not isinstance(cut, Unpublished):
        model, graph = _traced(network)
        for kept in _kept(cut, graph, network.model):
            known = {
                "params": graph.params(kept),
                "MAC": graph.conv_linear_macs(kept),
                "thop-0.1.1": graph.macs(kept),
            }
            for name, values in found.items():
                values.append(_older(model, graph, kept, name) if name in RULES else known[name])
    return {name: tuple(values) for name, values in found.items()}


def _whole(network: Network, counters: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The figures of a network, or the parameters of its part, from shapes alone: nothing is allocated or computed."""
    with torch.device("meta"):
        model = _build(network)
    if network.part:
        return {"params": (sum(p.numel() for p in model.get_submodule(network.part).parameters()),)}
    image = (3, network.size, network.size)
    cost = profile(model, image)
    known = {"params": cost.params, "MAC": cost.conv_linear_macs, "thop-0.1.1": cost.macs}
    return {name: (older_thop(model, image, name) if name in RULES else known[name],) for name in ("params", *counters)}


def _build(network: Network) -> nn.Module:
    options = dict(network.options)
    with torch.random.fork_rng(devices=[]):
        return models.create(
            network.model, network.classes, input_size=network.size, shortcut=network.shortcut, **options
        ).eval()


@lru_cache(maxsize=1)  # a table has the rows of one network behind one another, and a network can be half a gigabyte
def _traced(network: Network) -> tuple[nn.Module, ChannelGraph]:
    model = _build(network)
    return model, trace(model, torch.zeros(1, 3, network.size, network.size))


def _kept(cut: Cut, graph: ChannelGraph, model: str) -> Iterator[Kept]:
    """The channels that a cut leaves; the fewest and the most where training decides."""
    ones = {name: torch.ones(group.width) for name, group in graph.groups.items()}
    match cut:
        case Listed():
            yield allocate(graph, ones, allocation="uniform", rates=ratios_of(cut.ratios, model))
        case Uniform():
            normed = {n: ones[n] for n, group in graph.groups.items() if any(m.kind == "norm" for m in group.members)}
            yield allocate(graph, normed, allocation="uniform", rate=cut.rate)
        case Trained():
            yield {name: (0,) for name, group in graph.groups.items() if cut.may_be_cut(group)}
            yield {}


def _older(model: nn.Module, graph: ChannelGraph, kept: Kept, release: str) -> int:
    """The count of an older thop, on the network that was really cut."""
    smaller = apply_spec(duplicate(model, share=True), make_spec(graph, kept)) if kept else model
    return older_thop(smaller, graph.input_shape[1:], release)  # type: ignore[arg-type]
