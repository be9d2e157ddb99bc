"""Which of several groups differ beyond noise: all pairs of them, seed by seed, with Holm's correction.

Trials of one seed share a baseline, the order of the images and their augmentation, so differences are taken within a
seed: a paired t-test (Student 1908) for each pair, and its p-value adjusted for the number of pairs (Holm 1979, "A
simple sequentially rejective multiple test procedure"). Ranks alone say far less: Nemenyi's critical difference
(Demšar 2006, "Statistical comparisons of classifiers over multiple data sets") is given to show what they could.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev

from rssearch.front.seeds import LEVEL, paired

__all__ = ["Pair", "common_seeds", "critical_difference", "holm", "mean_ranks", "paired_p", "pairs"]

Values = Mapping[str, Mapping[str, float]]  # of each group: a value for each seed; more is better


@dataclass(frozen=True)
class Pair:
    """How two groups differ.

    Attributes:
        one: the first group.
        other: the second.
        seeds: how many both have.
        difference: the mean over these seeds of the first minus the second; None where there is none.
        interval: half the width of its 95 % interval by Student's t; None of fewer than two seeds.
        p: of the two-sided paired t-test; None of fewer than two seeds.
        adjusted: the same by Holm over all pairs that have one.
        is_separable: whether the adjusted p is below 5 %.
    """

    one: str
    other: str
    seeds: int
    difference: float | None
    interval: float | None
    p: float | None
    adjusted: float | None
    is_separable: bool


def pairs(values: Values) -> list[Pair]:
    """All pairs of some groups, in their order."""
    couples = list(combinations(values, 2))
    differences = [
        [values[one][seed] - values[other][seed] for seed in values[one] if seed in values[other]]
        for one, other in couples
    ]
    tested = [paired_p(each) for each in differences]
    corrected = iter(holm([p for p in tested if p is not None]))
    found = []
    for (one, other), each, p in zip(couples, differences, tested, strict=True):
        adjusted = None if p is None else next(corrected)
        separable = adjusted is not None and adjusted < 1 - LEVEL
        found.append(Pair(one, other, len(each), *paired(each), p, adjusted, separable))
    return found


def paired_p(differences: Sequence[float]) -> float | None:
    """The p-value of a two-sided paired t-test; None of fewer than two differences."""
    if len(differences) < 2:
        return None
    from scipy.stats import t as student

    mean, error = fmean(differences), stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return 0.0 if mean else 1.0
    return float(2 * student.sf(abs(mean) / error, len(differences) - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in their order: the i-th smallest of m times m - i + 1, rising, at most 1."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted


def common_seeds(values: Values) -> list[str]:
    """The seeds that all groups have, in the order of the first."""
    first, *others = values.values()
    return [seed for seed in first if all(seed in other for other in others)]


def mean_ranks(values: Values) -> dict[str, float]:
    """The rank of each group among all, 1 for the best, mean over the common seeds; equal values share their ranks."""
    from scipy.stats import rankdata

    seeds = common_seeds(values)
    ranks = [rankdata([-values[group][seed] for group in values]) for seed in seeds]
    return {group: fmean(float(rank[place]) for rank in ranks) for place, group in enumerate(values)} if seeds else {}


def critical_difference(groups: int, seeds: int) -> float:
    """Mean ranks that differ by less are not separable by Nemenyi's test at 5 %; the largest difference is groups - 1.

    It is q / sqrt(2) * sqrt(k (k + 1) / (6 n)) for k groups and n seeds, q of the studentised range.
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(LEVEL, groups, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(groups * (groups + 1) / (6 * seeds))
