"""Several seeds: one row for each configuration, with means, their spread, and what is better beyond noise.

A configuration is a point of the space without its seed. Its row looks like a trial's, so that the front, the plots and
the tables of trials serve for means as well.

Trials of one seed share a baseline, the order of the images and their augmentation, so that configurations are compared
seed by seed: what a good baseline gives to all of its trials is no noise between them. A configuration that lacks seeds
which others have (its trial failed, was stopped, or has not been run) competes with the mean of those that it has, and
is marked wherever it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rssearch.front.pareto import Direction
from rssearch.front.spending import SHARED, shared_of
from rssearch.front.trials import Front, References, Row, by_dataset, dataset_of, fronts
from rssearch.metrics import number
from rssearch.scores import PER_CLASS, pooled

if TYPE_CHECKING:
    from rssearch.config.schema import Bound

__all__ = [
    "INTERVAL",
    "LEVEL",
    "SEED",
    "STD",
    "Step",
    "incomplete",
    "means",
    "note",
    "paired",
    "shown",
    "shown_fronts",
    "steps",
    "ties",
    "vary",
]

SEED = "seed"
STD = "_std"
INTERVAL = "_interval"
BY_SEED, MISSING = "by_seed", "missing_seeds"
LEVEL = 0.95  # of the interval, and one minus the risk of calling noise a difference


def vary(trials: Iterable[Row], dimensions: Sequence[str]) -> bool:
    """Whether some configuration was asked for with more than one seed."""
    groups = _groups(trials, dimensions).values()
    return SEED in dimensions and any(len({_seed(trial) for trial in group}) > 1 for group in groups)


def shown(trials: Sequence[Row], dimensions: Sequence[str]) -> list[Row]:
    """What people look at: where seeds vary, the means and the trials that have not finished; else the trials."""
    if not vary(trials, dimensions):
        return list(trials)
    return [*means(trials, dimensions), *(trial for trial in trials if trial["status"] != "finished")]


def shown_fronts(
    trials: Sequence[Row],
    objectives: Mapping[str, Direction],
    constraints: Mapping[str, Bound] | None,
    dimensions: Sequence[str],
    references: References | None = None,
) -> list[Front]:
    """The fronts of what is `shown`. Those of means are measured from the same references as those of the trials."""
    found = fronts(trials, objectives, constraints, references)
    if not vary(trials, dimensions):
        return found
    same = {front.dataset: front.reference for front in found if front.reference is not None}
    return fronts(shown(trials, dimensions), objectives, constraints, {**(references or {}), **same})


def means(trials: Iterable[Row], dimensions: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each configuration that has finished trials, in the order of the record.

    It holds the configuration, the number of ``seeds``, and of each number that all its finished trials have the mean.
    Where they differ there are also ``<name>_std``, the sample standard deviation, and ``<name>_interval``, half the
    width of the 95 % interval of the mean by Student's t; neither is known of one seed. Text and lists that are the
    same in all trials stay; counts of classes are added, what trials share is put together. ``key`` is that of one
    trial, the first, and ``keys`` names all. ``by_seed`` has for each seed the numbers that differ; ``missing_seeds``
    lists those that another configuration on the same dataset has finished and this one has not.

    Args:
        trials: of a study; those that have not finished count for nothing.
        dimensions: the columns that hold what the space asked for.
    """
    rows = []
    for group in _groups((t for t in trials if t["status"] == "finished"), dimensions).values():
        row: dict[str, Any] = {}
        by_seed: dict[Any, dict[str, float]] = {_seed(trial): {} for trial in group}
        for name in group[0]:
            values = [trial.get(name) for trial in group]
            numbers = [value for value in map(number, values) if value is not None]
            if name == SEED:
                continue
            if name.endswith(PER_CLASS):
                row[name] = pooled(values)
                continue
            if name == SHARED:
                row[name] = {key: macs for trial in group for key, macs in shared_of(trial).items()}
                continue
            if all(value == values[0] for value in values):
                row[name] = values[0]
            elif len(numbers) == len(group):
                row |= _spread(name, numbers)
                for trial, value in zip(group, numbers, strict=True):
                    by_seed[_seed(trial)][name] = value
        keys = [trial["key"] for trial in group]
        rows.append(row | {"key": keys[0], "keys": keys, "seeds": len(group), BY_SEED: by_seed})
    every = {d: dict.fromkeys(s for row in of_d for s in row[BY_SEED]) for d, of_d in by_dataset(rows).items()}
    for row in rows:
        row[MISSING] = [seed for seed in every[dataset_of(row)] if seed not in row[BY_SEED]]
    return rows


def incomplete(rows: Iterable[Row]) -> set[str]:
    """Keys of the rows of `means` that lack seeds which others have."""
    return {row["key"] for row in rows if row.get(MISSING)}


def note(rows: Iterable[Row]) -> str | None:
    """What the rows are means of, in words; None if they are trials."""
    counts = sorted({row["seeds"] for row in rows if "seeds" in row})
    if not counts:
        return None
    return f"means of {counts[0]} seeds" if len(counts) == 1 else f"means of {counts[0]} to {counts[-1]} seeds"


@dataclass(frozen=True)
class Step:
    """From a member of a front of means to the next dearer one: what the quality gains, seed by seed.

    Attributes:
        key: of the dearer one.
        than: key of the cheaper one.
        seeds: how many both have.
        difference: mean of the gains over these seeds; None where there is none. Positive is better.
        interval: half the width of its 95 % interval by Student's t, seeds - 1 degrees of freedom; None of one seed.
        by_chance: whether a gain of this size is explained by chance, see `ties`.
    """

    key: str
    than: str
    seeds: int
    difference: float | None
    interval: float | None
    by_chance: bool


def steps(members: Sequence[Row], objectives: Mapping[str, Direction]) -> list[Step]:
    """The steps along a front of means, by rising cost.

    Args:
        members: rows of `means`, on each dataset by rising cost.
        objectives: metrics and directions. Quality is the first to maximise; where there is none, or nothing to
            minimise, there are no steps.
    """
    quality = next((name for name, direction in objectives.items() if direction == "max"), None)
    if quality is None or "min" not in objectives.values():
        return []
    groups = by_dataset(row for row in members if BY_SEED in row).values()
    return [_step(cheaper, dearer, quality) for group in groups for cheaper, dearer in pairwise(group)]


def ties(members: Sequence[Row], objectives: Mapping[str, Direction]) -> set[str]:
    """Keys of the members of a front of means that may owe their place to chance.

    Such a member costs more than its cheaper neighbour on the front, and its quality is not better by more than chance
    explains: a paired, one-sided t-test on the differences of the seeds that both have (Student 1908, "The probable
    error of a mean") at a risk of 5 %. Where both have fewer than two seeds nothing is said.

    Args:
        members: as for `steps`.
        objectives: as for `steps`.
    """
    return {step.key for step in steps(members, objectives) if step.by_chance}


def _step(cheaper: Row, dearer: Row, name: str) -> Step:
    # A number that is the same for all seeds of a configuration stands in its row alone.
    common = [seed for seed in cheaper[BY_SEED] if seed in dearer[BY_SEED]]
    gains = [dearer[BY_SEED][s].get(name, dearer[name]) - cheaper[BY_SEED][s].get(name, cheaper[name]) for s in common]
    mean, half = paired(gains)
    return Step(dearer["key"], cheaper["key"], len(gains), mean, half, _by_chance(gains))


def paired(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean of differences and half the width of its 95 % interval by Student's t; None where it is not known."""
    if not differences:
        return None, None
    found = _spread("", differences) if len(differences) > 1 else {}
    return fmean(differences), found.get(INTERVAL)


def _by_chance(gains: Sequence[float]) -> bool:
    if len(gains) < 2:
        return False
    from scipy.stats import t as student

    mean, error = fmean(gains), stdev(gains) / math.sqrt(len(gains))
    if error == 0:
        return mean <= 0
    return bool(student.sf(mean / error, len(gains) - 1) >= 1 - LEVEL)


def _seed(trial: Row) -> Any:
    seed = trial.get(SEED)
    return seed if isinstance(seed, Hashable) else str(seed)  # a user-defined trial may take lists


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
