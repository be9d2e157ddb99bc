"""Limits of metrics: the one place of their arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rssearch.config.schema import Bound
from rssearch.metrics import number

__all__ = ["broken", "is_feasible", "violations"]


def violations(constraints: Mapping[str, Bound], metrics: Mapping[str, Any]) -> dict[str, float]:
    """How far each bounded metric that is known lies outside its bounds, relative to the bound; <= 0 is feasible.

    Returns:
        One entry for each limit, named as ``macs<=2e+07``: the form that Optuna's constraints have.
    """
    return {limit: excess for _, limit, excess in _excesses(constraints, metrics)}


def broken(constraints: Mapping[str, Bound], metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that break a constraint, and by how much, relative to the limit."""
    return {name: excess for name, _, excess in _excesses(constraints, metrics) if excess > 0}


def is_feasible(constraints: Mapping[str, Bound], metrics: Mapping[str, Any]) -> bool:
    """Whether no constraint is broken by what is known."""
    return not broken(constraints, metrics)


def _excesses(constraints: Mapping[str, Bound], metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    for name, bound in constraints.items():
        value = number(metrics.get(name))
        if value is None:
            continue
        if bound.max is not None:
            yield name, f"{name}<={bound.max:g}", (value - bound.max) / (abs(bound.max) or 1.0)
        if bound.min is not None:
            yield name, f"{name}>={bound.min:g}", (bound.min - value) / (abs(bound.min) or 1.0)
