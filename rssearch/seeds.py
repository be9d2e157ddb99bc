"""Several seeds: one row for each configuration, with means, their spread, and what is better beyond noise.

A configuration is a point of the space without its seed. Its row looks like a trial's, so that the front, the plots and
the tables of trials serve for means as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, Literal

from rssearch.units import number

Row = Mapping[str, Any]
SEED = "seed"
STD = "_std"
INTERVAL = "_interval"
LEVEL = 0.95  # of the interval, and one minus the risk of calling noise a difference


def vary(trials: Iterable[Row], dimensions: Sequence[str]) -> bool:
    """Whether some configuration was asked for with more than one seed."""
    groups = _groups(trials, dimensions).values()
    return SEED in dimensions and any(len({trial.get(SEED) for trial in group}) > 1 for group in groups)


def shown(trials: Sequence[Row], dimensions: Sequence[str]) -> list[Row]:
    """What people look at: where seeds vary, the means and the trials that have not finished; else the trials."""
    if not vary(trials, dimensions):
        return list(trials)
    return [*means(trials, dimensions), *(trial for trial in trials if trial["status"] != "finished")]


def means(trials: Iterable[Row], dimensions: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each configuration that has finished trials, in the order of the record.

    It holds the configuration, the number of ``seeds``, and of each number that all its finished trials have the mean.
    Where they differ there are also ``<name>_std``, the sample standard deviation, and ``<name>_interval``, half the
    width of the 95 % interval of the mean by Student's t; neither is known of one seed. Text and lists that are the
    same in all trials stay. ``key`` is that of one trial, the first, and ``keys`` names all.

    Args:
        trials: of a study; those that have not finished count for nothing.
        dimensions: the columns that hold what the space asked for.
    """
    rows = []
    for group in _groups((t for t in trials if t["status"] == "finished"), dimensions).values():
        row: dict[str, Any] = {}
        for name in group[0]:
            values = [trial.get(name) for trial in group]
            numbers = [value for value in map(number, values) if value is not None]
            if name == SEED:
                continue
            if all(value == values[0] for value in values):
                row[name] = values[0]
            elif len(numbers) == len(group):
                row |= _spread(name, numbers)
        rows.append(row | {"key": group[0]["key"], "keys": [t["key"] for t in group], "seeds": len(group)})
    return rows


def note(rows: Iterable[Row]) -> str | None:
    """What the rows are means of, in words; None if they are trials."""
    counts = sorted({row["seeds"] for row in rows if "seeds" in row})
    if not counts:
        return None
    return f"means of {counts[0]} seeds" if len(counts) == 1 else f"means of {counts[0]} to {counts[-1]} seeds"


def ties(members: Sequence[Row], objectives: Mapping[str, Literal["max", "min"]]) -> set[str]:
    """Keys of the members of a front of means that may owe their place to chance.

    Such a member costs more than its cheaper neighbour on the front, and its quality is not better by more than chance
    explains, by a one-sided t-test for unequal variances (Welch 1947, "The generalization of Student's problem when
    several different population variances are involved") at a risk of 5 %. Of a single seed nothing is said.

    Args:
        members: rows of `means`, by rising cost.
        objectives: metrics and directions. Quality is the first to maximise; where there is none, or nothing to
            minimise, nothing is said.
    """
    quality = next((name for name, direction in objectives.items() if direction == "max"), None)
    if quality is None or "min" not in objectives.values():
        return set()
    return {better["key"] for cheaper, better in pairwise(members) if _by_chance(better, cheaper, quality)}


def _by_chance(better: Row, worse: Row, name: str) -> bool:
    counts = (better.get("seeds", 1), worse.get("seeds", 1))
    spreads = (better.get(name + STD, 0.0), worse.get(name + STD, 0.0))
    if min(counts) < 2:
        return False
    if not any(spreads):
        return bool(better[name] <= worse[name])
    from scipy.stats import ttest_ind_from_stats

    (one, other), (first, second) = spreads, counts
    test = ttest_ind_from_stats(
        better[name], one, first, worse[name], other, second, equal_var=False, alternative="greater"
    )
    return bool(test.pvalue >= 1 - LEVEL)


def _groups(trials: Iterable[Row], dimensions: Sequence[str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for trial in trials:
        point = repr([trial.get(name) for name in dimensions if name != SEED])
        groups.setdefault(point, []).append(trial)
    return groups


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    from scipy.stats import t as student

    deviation = stdev(values)
    half = student.ppf((1 + LEVEL) / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    return {name: fmean(values), name + STD: deviation, name + INTERVAL: float(half)}
