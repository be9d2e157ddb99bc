"""Weights of a file in the network that a name means, and what would fit where they do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from torch import nn

from rssearch.errors import InputError, cut
from rssearch.models import weights as files
from rssearch.models.weights import Shapes, Weights

_log = logging.getLogger(__name__)

Options = dict[str, Any]


class Network(NamedTuple):
    """What a network is made of: its name, classes, bands, and options without weights."""

    name: str
    classes: int
    bands: int
    options: Options

    def __str__(self) -> str:
        options = "".join(f", {option}: {value}" for option, value in self.options.items())
        return f"{self.name} with {self.classes} classes and {self.bands} bands{options}"


class Known(NamedTuple):
    """What is known of networks.

    Attributes:
        shapes_of: the tensors of one; raises InputError where it cannot be built.
        values_of: the options of one by its name, with their allowed values; None where every value may be.
        others: that a file may be of instead.
    """

    shapes_of: Callable[[Network], Shapes]
    values_of: Callable[[str], Mapping[str, tuple[str, ...] | None]]
    others: Iterable[Network]


def load(model: nn.Module, weights: Weights, network: Network, known: Known) -> None:
    """Put the weights of a file into a network, in place; tensors that are none of it are named in the log.

    Raises:
        InputError: they do not fit; see `check`.
    """
    expected = files.shapes_of(model)
    tensors = files.renamed(weights, expected, str(network), lambda found: hint(found, network, known))
    try:
        files.load_into(model, tensors)
    except InputError as error:
        raise InputError(f"weights {cut(weights.name, 300)} do not fit {network}: {error}") from None
    if weights.beside:
        _log.warning(
            "weights %s: left out, as they lie beside the network's: %s", weights.name, _listed(weights.beside)
        )
    if more := files.left_out(weights, expected):
        _log.warning("weights %s: left out, as %s has none: %s", weights.name, network.name, _listed(more))


def check(weights: Weights, network: Network, known: Known) -> None:
    """Refuse weights that do not fit a network.

    Args:
        weights: of the file.
        network: what it is made of.
        known: what is tried for the message.

    Raises:
        InputError: how many tensors are missing, unexpected or of another shape, the first of each, and which number
            of classes or bands, option or other network would fit.
    """
    expected = known.shapes_of(network)
    files.renamed(weights, expected, str(network), lambda found: hint(found, network, known))


def hint(found: Shapes, network: Network, known: Known) -> str | None:
    """What would fit the tensors of a file, in words; None where nothing that is tried does."""
    for candidate in (near for one in (network, *known.others) for near in _nearby(found, one, known)):
        with suppress(Exception):  # of shapes that no file should have, and of a user's own network: anything
            if files.difference(found, known.shapes_of(candidate)).total == 0:
                return _changes(network, candidate)
    return None


def _nearby(found: Shapes, network: Network, known: Known) -> Iterator[Network]:
    """The same network with the file's numbers of classes and bands, and each value of its options."""
    classes = dict.fromkeys([network.classes, files.num_classes(found) or network.classes])
    bands = dict.fromkeys([network.bands, files.num_bands(found) or network.bands])
    allowed = {option: values for option, values in known.values_of(network.name).items() if option != "weights"}
    changes = [{}, *({option: value} for option, values in allowed.items() for value in values or ())]
    for change in changes:
        for count in classes:
            for band in bands:
                yield network._replace(classes=count, bands=band, options={**network.options, **change})


def _changes(network: Network, other: Network) -> str:
    """In what another network differs."""
    if other.name != network.name:
        return f"{other}"
    words = []
    if other.classes != network.classes:
        words.append(f"{other.classes} classes")
    if other.bands != network.bands:
        words.append(f"{other.bands} bands")
    new = {option: value for option, value in other.options.items() if network.options.get(option) != value}
    words += [f"the option {option}: {value}" for option, value in new.items()]
    return " and ".join(words)


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(map(cut, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def without_weights(options: Mapping[str, Any]) -> Options:
    """The options that say of what shape a network is."""
    return {name: value for name, value in options.items() if name != "weights" and value is not None}
