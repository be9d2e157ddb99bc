"""Costs outside of the layers that the cost tables know, as functions of the widths.

Attention multiplies maps, a fixed filter is convolved with as many channels as there are, a layer runs over channels as
if they were positions: what such operations cost at other widths is found by cutting the network and counting it. The
tables of `rssearch.pruning.cost_table` get what they miss, again as a polynomial of degree two.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.cost.counting import PLAIN_LAYERS, Counts, count, duplicate, warn_uncounted
from rssearch.pruning.channels import ChannelGraph
from rssearch.pruning.cost_table import Array, Shapes
from rssearch.pruning.cost_table import Count as Channels
from rssearch.pruning.surgery import apply_spec, make_spec

_log = logging.getLogger(__name__)

TABLES = ("macs", "conv_linear_macs", "params")
_MOST_CUTS = 100  # networks that are cut and counted, before costs are said not to be exact
NEAR = 3  # what one operation reads comes from groups that follow each other closely

Removed = dict[str, int]  # group -> how many of its channels are gone
Missing = Callable[[Removed], Array]  # what the tables miss [3]
Terms = dict[tuple[str, ...], Array]  # coefficients [3] of products of one or two numbers of removed channels


def fit(
    model: nn.Module, graph: ChannelGraph, image: Tensor, calls: Mapping[str, Sequence[Shapes]], counts: Counts
) -> None:
    """Make the tables of a graph hold at all widths, in place; a warning says where that fails.

    Args:
        model: the network that the graph is of.
        graph: its tables are right for the whole network.
        image: [1, C, H, W] on the device of the network.
        calls: the shapes of each layer's inputs and outputs.
        counts: of the whole network.
    """
    warn_uncounted(model, counts)
    if not counts.functional and not _has_special_layers(model, calls, image.dim()):
        return
    halves = {name: group.width // 2 for name, group in graph.groups.items() if group.width > 1}
    quarters = {name: math.ceil(half / 2) for name, half in halves.items()}
    most = {name: min(half + quarters[name], graph.groups[name].width - 1) for name, half in halves.items()}
    missing = _measured(model, graph, image)
    try:
        terms = _terms(missing, halves, quarters) if missing(halves).any() else {}
        followed = all(np.array_equal(missing(at), _value(terms, at)) for at in (halves, quarters, most))
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError):  # it does not run at these widths
        followed = False
    if not followed:
        places = ", ".join(counts.functional) or "its layers"
        _log.warning(
            "the costs of a pruned %s are not exact: those of %s do not follow the widths", type(model).__name__, places
        )
        return
    position = {name: i for i, name in enumerate(graph.groups)}
    for names, coefficients in terms.items():
        gone = [Channels(graph.groups[n].width, -np.eye(len(position))[position[n]]) for n in names]
        for table, coefficient in zip(TABLES, coefficients.tolist(), strict=True):
            if len(gone) == 1:
                graph.tables[table].add(coefficient, gone[0])
            else:
                graph.tables[table].add_product(coefficient, *gone)


def _has_special_layers(model: nn.Module, calls: Mapping[str, Sequence[Shapes]], dims: int) -> bool:
    """Whether a layer has code of its own, or reads what is no map (convolution) and no vector (linear layer)."""
    for name, shapes in calls.items():
        layer = model.get_submodule(name)
        if isinstance(layer, _ConvNd | nn.Linear):
            usual = dims if isinstance(layer, _ConvNd) else 2
            if type(layer) not in PLAIN_LAYERS or any(len(x) != usual for x, _ in shapes):
                return True
    return False


def _measured(model: nn.Module, graph: ChannelGraph, image: Tensor) -> Missing:
    """Cut, count, and subtract what the tables say."""
    seen: dict[tuple[tuple[str, int], ...], Array] = {}

    def missing(removed: Removed) -> Array:
        key = tuple(sorted(removed.items()))
        if key not in seen:
            if len(seen) >= _MOST_CUTS:
                raise ArithmeticError("too many groups have a part in it")
            kept = {name: tuple(range(graph.groups[name].width - gone)) for name, gone in removed.items()}
            counts = count(apply_spec(duplicate(model, share=True), make_spec(graph, kept)), image, in_place=True)
            found = (counts.macs, counts.conv_linear_macs, counts.params)
            seen[key] = np.array(found, float) - [graph.tables[name](graph.widths(kept)) for name in TABLES]
        return seen[key]

    return missing


def _terms(missing: Missing, halves: Removed, quarters: Removed) -> Terms:
    """The polynomial, from one or two points for each group that matters and one for each pair of neighbours."""
    terms: Terms = {}
    found = _that_matter(missing, halves, list(halves))
    for name in found:
        near, far = quarters[name], halves[name]
        slope, square = missing({name: far}) / far, np.zeros(len(TABLES))
        if near < far:
            square = (slope - missing({name: near}) / near) / (far - near)
        terms[name,] = slope - square * far
        terms[name, name] = square
    for i, first in enumerate(found):
        for second in found[i + 1 : i + 1 + NEAR]:
            at = {first: halves[first], second: halves[second]}
            terms[first, second] = (missing(at) - _value(terms, at)) / (halves[first] * halves[second])
    return terms


def _that_matter(missing: Missing, halves: Removed, names: list[str]) -> list[str]:
    """The groups whose widths change what is missing, by bisection."""
    if not names or not missing({name: halves[name] for name in names}).any():
        return []
    if len(names) == 1:
        return names
    middle = len(names) // 2
    return _that_matter(missing, halves, names[:middle]) + _that_matter(missing, halves, names[middle:])


def _value(terms: Terms, removed: Removed) -> Array:
    """The polynomial at some numbers of removed channels."""
    total = np.zeros(len(TABLES))
    for names, coefficients in terms.items():
        total += coefficients * math.prod(removed.get(name, 0) for name in names)
    return total
