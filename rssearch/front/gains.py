"""What a pruned network lost and gained: where a trial is paired with its baseline, the network before pruning.

A trial's row has what its baseline reached and cost as ``baseline_<metric>``. `compared` adds the differences to it,
and `baselines` makes rows of the baselines themselves. What a trial does not say of its baseline is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rssearch.metrics import DIFFERENCE, SPEEDUP, is_quality, number

__all__ = ["BEFORE", "IDENTITY", "baselines", "before", "compared", "is_disturbed", "spread"]

BEFORE = "baseline_"
IDENTITY = "baseline_id"  # of the data, network and recipe of a baseline, the same for all seeds
_LATENCY, _SPREAD = "latency_ms", "latency_iqr_ms"
_COSTS = ("macs", "params", "bytes")
_MACHINE = ("latency_device", "latency_threads")
_DISTURBED = 0.1  # of the median

Row = Mapping[str, Any]


def compared(row: Row) -> dict[str, Any]:
    """A row with what it lost and gained; what it says of that itself stays.

    Added are ``<quality>_difference`` (trial minus baseline, a share), ``speedup`` (the baseline's median latency over
    that of the trial; ``speedup_<runtime>_b<batch>`` where it is not that of one image in eager mode; only where both
    were measured on one kind of machine with as many threads) and ``<cost>_ratio`` (trial over baseline).
    """
    found: dict[str, Any] = {}
    alike = all(row.get(name) == row.get(BEFORE + name) for name in _MACHINE)
    for column in row:
        name = column.removeprefix(BEFORE)
        if name == column or (own := number(row.get(name))) is None or (whole := number(row[column])) is None:
            continue
        if is_quality(name):
            found[name + DIFFERENCE] = own - whole
        elif name.startswith(_LATENCY) and own > 0 and alike:
            found[SPEEDUP + name.removeprefix(_LATENCY)] = whole / own
        elif name in _COSTS and whole > 0:
            found[f"{name}_ratio"] = own / whole
    return dict(row) | {name: value for name, value in found.items() if name not in row}


def before(row: Row, name: str) -> float | None:
    """The value of a metric before pruning, of a trial that knows its baseline.

    Ratios to the baseline and the speed-up are 1 there, differences 0.
    """
    if (value := number(row.get(BEFORE + name))) is not None:
        return value
    itself = 1.0 if name.endswith("_ratio") or name.startswith(SPEEDUP) else 0.0 if name.endswith(DIFFERENCE) else None
    return itself if itself is not None and _has_baseline(row) else None


def baselines(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row for each baseline, by model: the metrics of the trials, as far as they are known, mean of the seeds.

    Beside the metrics it has ``dataset`` and ``model``, where trials name them, and ``methods``: those that begin with
    it, where a model has several baselines, because a method trains its own.

    Args:
        rows: trials or means of one dataset. Those that do not say which baseline is theirs (as an earlier release
            recorded them) count where no other trial of their model does; all of them share one then.
    """
    known = [row for row in rows if _has_baseline(row)]
    named = {row.get("model") for row in known if row.get(IDENTITY) is not None}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in known:
        if row.get(IDENTITY) is not None or row.get("model") not in named:
            groups.setdefault((str(row.get("model")), str(row.get(IDENTITY))), []).append(row)
    models = [model for model, _ in groups]
    return [
        _baseline(group) | ({"methods": _texts(group, "method")} if models.count(model) > 1 else {})
        for (model, _), group in sorted(groups.items())
    ]


def spread(row: Row, name: str) -> float | None:
    """The interquartile range of a latency, in its unit; None for other metrics, and where it is not known."""
    if not name.removeprefix(BEFORE).startswith(_LATENCY):
        return None
    return number(row.get(name.replace(_LATENCY, _SPREAD, 1)))


def is_disturbed(row: Row, name: str) -> bool:
    """Whether the interquartile range of a latency is above a tenth of its median: other work was on the machine."""
    wide, median = spread(row, name), number(row.get(name))
    return wide is not None and median is not None and wide > _DISTURBED * median


def _has_baseline(row: Row) -> bool:
    return any(name.startswith(BEFORE) and row[name] is not None for name in row)


def _baseline(rows: Sequence[Row]) -> dict[str, Any]:
    """Of a configuration that lacks seeds the mean is another one: those with most seeds say it."""
    most = max(row.get("seeds", 1) for row in rows)
    full = [row for row in rows if row.get("seeds", 1) == most]
    found: dict[str, Any] = {name: full[0].get(name) for name in ("dataset", "model") if name in full[0]}
    for column in dict.fromkeys(column for row in full for column in row):
        name = column.removeprefix(BEFORE)
        if name in found or name.startswith("requested_"):
            continue
        if by_seed := {(str(row.get("seed")), value) for row in full if (value := before(row, name)) is not None}:
            found[name] = fmean(value for _, value in sorted(by_seed))
    return found


def _texts(rows: Iterable[Row], column: str) -> list[str]:
    return sorted({str(row[column]) for row in rows if row.get(column) is not None})
