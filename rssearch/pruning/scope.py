"""Where a network may be cut: which groups lose channels, and how many of each must stay."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError, unknown
from rssearch.pruning.channels import ChannelGraph, Group

__all__ = ["SCOPES", "Scope", "channels_to_keep", "check_scope", "may_be_cut", "share_of"]

Scope = Literal["all", "inner"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


def share_of(widths: npt.NDArray[np.int64], share: float | npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The smallest numbers of channels that are at least a share of these widths: 3 is 0.1 of 30."""
    return np.ceil(np.round(widths * share, 9)).astype(np.int64)


def check_scope(groups: str, keep: Mapping[str, float] | None, rates: Mapping[str, float] | None = None) -> None:
    """Check what is asked for without a network. Raises InputError."""
    if groups not in SCOPES:
        raise unknown("groups", groups, SCOPES)
    if rates is not None and groups == "inner":
        raise InputError("groups 'inner' goes with rate or macs_ratio: rates name the layers to be cut themselves")
    for pattern, share in (keep or {}).items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InputError(f"keep[{pattern}] is {share!r}, but must be a number in (0, 1]")


def may_be_cut(graph: ChannelGraph, groups: Scope) -> npt.NDArray[np.bool_]:
    """Which groups may lose channels [G]. Raises InputError where none may."""
    found = np.array([groups == "all" or group.is_inner for group in graph.groups.values()], bool)
    if len(found) and not found.any():
        reasons = ", ".join(f"{name} {group.joined}" for name, group in list(graph.groups.items())[:4])
        raise InputError(f"groups 'inner': the network has no inner group ({reasons}, ...); take groups 'all'")
    return found


def channels_to_keep(
    graph: ChannelGraph, keep: Mapping[str, float] | None, whole: ChannelGraph | None = None
) -> npt.NDArray[np.int64]:
    """How many channels must stay of each group [G]: 0 where no pattern fits, of several that fit the most.

    Args:
        graph: the channel graph.
        keep: pattern (as of `fnmatch`) of names of groups, or of layers that compute them -> share of the channels.
        whole: of the network that the shares are of, where that of `graph` was cut from it; None: `graph`.

    Raises:
        InputError: a pattern that fits no group.
    """
    whole = whole or graph
    least = dict.fromkeys(map(_identity, whole.groups.values()), 0)
    for pattern, share in (keep or {}).items():
        fitting = [group for group in whole.groups.values() if _fits(pattern, group)]
        if not fitting:
            raise InputError(f"keep: {pattern!r} fits no group of channels; groups: {', '.join(whole.groups)}")
        for group in fitting:
            least[_identity(group)] = max(least[_identity(group)], int(share_of(np.array(group.width), share)))
    return np.array([least.get(_identity(group), 0) for group in graph.groups.values()], np.int64)


def _fits(pattern: str, group: Group) -> bool:
    names = {group.name, *(member.layer for member in group.producers)}
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def _identity(group: Group) -> tuple[tuple[str, str, int], ...]:
    """What a cut changes nothing of, and two groups do not have in common."""
    return tuple((member.layer, member.side, member.index.shape[1]) for member in group.members)
