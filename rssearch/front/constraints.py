"""Limits of metrics: the one place of their arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rssearch.config.schema import Bound


def violations(constraints: Mapping[str, Bound], metrics: Mapping[str, Any]) -> dict[str, float]:
    """How far each bounded metric that is known lies outside its bounds, relative to the bound; <= 0 is feasible."""
    result = {}
    for name, bound in constraints.items():
        value = metrics.get(name)
        if value is None:
            continue
        if bound.max is not None:
            result[f"{name}<={bound.max:g}"] = (value - bound.max) / max(abs(bound.max), 1e-12)
        if bound.min is not None:
            result[f"{name}>={bound.min:g}"] = (bound.min - value) / max(abs(bound.min), 1e-12)
    return result
