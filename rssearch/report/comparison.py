"""How studies compare: their hypervolumes and how much of each front another one covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from rssearch.front.pairs import Pair
from rssearch.front.pareto import Direction
from rssearch.front.trials import Front


@dataclass(frozen=True)
class Entry:
    """What one study reached on one dataset.

    Attributes:
        trials: all, whatever became of them.
        finished: those that count: finished, and within the study's constraints.
        front: how many are on its front.
        hypervolume: of the front, up to the common reference, in the product of the objectives' units.
        relative_hypervolume: the same with each cost in units of its reference; None where one of them is not positive.
        difference: of the hypervolume to the first study's, as a share of that; None where that is 0.
        best: the best value of the quality.
        seconds: that its trials kept a worker busy, baselines not counted; what was not written down counts as 0.
        compute: MACs of all trials and of what they share, see `rssearch.front.spending`; None where it is not known.
        by_seed: the hypervolume (relative, where there is one) of the trials of each seed alone; seeds that lack trials
            which others have are left out. Empty where the seed is no column.
        curve: compute and hypervolume after each trial, as they ended; None where the compute is not known.
    """

    study: str
    trials: int
    finished: int
    front: int
    hypervolume: float
    relative_hypervolume: float | None
    difference: float | None
    best: float | None
    seconds: float
    compute: int | None = None
    by_seed: Mapping[str, float] = field(default_factory=dict)
    curve: Sequence[tuple[int, float]] | None = None


@dataclass(frozen=True)
class Comparison:
    """The studies that have trials on a dataset.

    Attributes:
        reference: of all hypervolumes: for each objective the worst of the studies' own references, which are fixed
            (`rssearch.front.references`): a quality begins at chance, a cost at the largest of the unpruned networks.
        quality: the objective of `Entry.best`: the first to maximise, or the first of all.
        coverage: [i][j], see `coverage`: the share of study j's front that study i's front covers.
        fronts: of the entries, for a plot.
        pairs: of entries, by their hypervolumes seed by seed; empty where no two have a seed in common.
        ranks: mean rank of each entry over the seeds that all have.
        critical_difference: of these ranks by Nemenyi; None where there are fewer than two such seeds.
    """

    dataset: str | None
    objectives: Mapping[str, Direction]
    reference: dict[str, float] | None
    quality: str
    entries: list[Entry]
    coverage: list[list[float | None]]
    fronts: list[Front]
    pairs: list[Pair] = field(default_factory=list)
    ranks: Mapping[str, float] = field(default_factory=dict)
    critical_difference: float | None = None


def coverage(one: ArrayLike, other: ArrayLike, directions: Sequence[Direction]) -> float | None:
    """The share of the other points that some point of the first covers: is at least as good in every objective.

    Zitzler and Thiele 1999, "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto
    approach", definition 3: C(X', X''). C(X', X'') and C(X'', X') need not sum to 1.

    Args:
        one: [N, M].
        other: [K, M].
        directions: ``max`` or ``min`` for each of the M objectives.

    Returns:
        From 0 to 1; None where there are no other points.
    """
    signs = np.array([-1.0 if direction == "max" else 1.0 for direction in directions])
    first = np.asarray(one, dtype=float).reshape(-1, len(signs)) * signs
    second = np.asarray(other, dtype=float).reshape(-1, len(signs)) * signs
    if not len(second):
        return None
    return float((first[:, None] <= second[None]).all(axis=2).any(axis=0).mean())
