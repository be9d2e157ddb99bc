"""What is recorded, as MLflow's entities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["metrics_of", "params_of", "tags_of"]

_QUALITIES = ("val_accuracy", "val_miou")


def metrics_of(values: Mapping[str, Any], step: int, now: int) -> list[Any]:
    """The numbers among some values, at a step and a time in milliseconds; of a device as ``latency_ms/pi``."""
    from mlflow.entities import Metric

    return [Metric(name.replace("@", "/"), float(value), now, step) for name, value in _numbers(values).items()]


def params_of(values: Mapping[str, Any]) -> list[Any]:
    """Parameters, each cut to what MLflow takes."""
    from mlflow.entities import Param

    return [Param(name, str(value)[:500]) for name, value in values.items()]


def tags_of(values: Mapping[str, str]) -> list[Any]:
    """Tags of a run."""
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in values.items()]


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    names = sorted(values, key=lambda name: name not in _QUALITIES)  # MLflow's comparison opens with the first metric
    return {name: float(values[name]) for name in names if _is_number(values[name])}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
