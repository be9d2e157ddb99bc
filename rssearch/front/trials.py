"""The trials of a study as fronts, one for each dataset: what is best, and what became of the rest.

A trial is a flat mapping from a column to a value, with at least ``key`` and ``status`` (finished, stopped,
failed or infeasible). Accuracies on different datasets cannot be compared, so there is one front for each dataset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rssearch.errors import InputError
from rssearch.front import gains
from rssearch.front.constraints import broken, is_feasible
from rssearch.front.pareto import Direction, chance, hypervolume, knee, non_dominated, reference_point
from rssearch.front.spending import Spent, spent
from rssearch.metrics import human, number

if TYPE_CHECKING:
    from rssearch.config.schema import Bound

Row = Mapping[str, Any]
References = Mapping[str | None, Mapping[str, float]]  # of each dataset: an objective and where its hypervolume begins


@dataclass(frozen=True)
class Front:
    """The trials of one dataset and what is best among them."""

    dataset: str | None
    objectives: Mapping[str, Direction]
    trials: list[Row]  # all, in the order of the record; the next five are a partition of them
    dominated: list[Row]  # finished and feasible
    members: list[Row]  # by rising cost
    infeasible: list[Row]
    stopped: list[Row]  # before their last epoch
    failed: list[Row]
    knee: Row | None
    reference: dict[str, float] | None
    hypervolume: float
    relative_hypervolume: float | None
    baselines: list[dict[str, Any]]  # rows of `rssearch.front.gains.baselines`: those that know all objectives
    note: str | None  # why the front is empty; None if it is not
    spent: Spent  # what all of its trials took


def fronts(
    trials: Iterable[Row],
    objectives: Mapping[str, Direction],
    constraints: Mapping[str, Bound] | None = None,
    references: References | None = None,
) -> list[Front]:
    """The front of each dataset, in the order of their names; always at least one, which may be empty.

    A finished trial that breaks one of the constraints counts as infeasible, and one that lacks an objective (None,
    NaN) as failed.

    Args:
        trials: all trials of a study.
        objectives: metrics and their directions.
        constraints: limits of metrics.
        references: what hypervolumes and knees are measured from, as `rssearch.front.references` keeps it for a study.
            What is missing comes from the trials, see `known_reference` and `rssearch.front.reference_point`.

    Raises:
        InputError: there is no objective.
    """
    return [
        _front(dataset, group, objectives, constraints or {}, (references or {}).get(dataset, {}))
        for dataset, group in _groups(trials, objectives)
    ]


def _groups(trials: Iterable[Row], objectives: Mapping[str, Direction]) -> list[tuple[str | None, list[Row]]]:
    if not objectives:
        raise InputError("a front needs at least one objective")
    groups = by_dataset(trials) or {None: []}
    return sorted(groups.items(), key=lambda item: item[0] or "")


def by_dataset(trials: Iterable[Row]) -> dict[str | None, list[Row]]:
    """The trials of each dataset, in their order; None for those that name none."""
    groups: dict[str | None, list[Row]] = {}
    for trial in trials:
        groups.setdefault(dataset_of(trial), []).append(trial)
    return groups


def dataset_of(trial: Row) -> str | None:
    """The name of a trial's dataset, or None."""
    dataset = trial.get("dataset")
    return None if dataset is None else str(dataset)


def known_reference(trials: Sequence[Row], objectives: Mapping[str, Direction]) -> dict[str, float]:
    """What of the reference does not depend on how good the trials are, from the trials of one dataset.

    A quality begins at chance (`rssearch.front.chance`), where the trials say how many ``classes`` there are; a cost at
    the largest of the unpruned networks.
    """
    found = {name: _baseline_limit(trials, name) for name, direction in objectives.items() if direction == "min"}
    classes = max((value for trial in trials if (value := number(trial.get("classes"))) is not None), default=0.0)
    if classes >= 2:
        found |= {name: chance(name, classes) for name, direction in objectives.items() if direction == "max"}
    return {name: value for name, value in found.items() if value is not None}


def front_rows(
    trials: Iterable[Row], objectives: Mapping[str, Direction], constraints: Mapping[str, Bound] | None = None
) -> list[dict[str, Any]]:
    """The non-dominated trials among the finished and feasible, with all columns; by dataset, then by rising cost."""
    found = [_sorted(group, objectives, constraints or {})["members"] for _, group in _groups(trials, objectives)]
    return [dict(row) for members in found for row in members]


def progress(front: Front) -> list[float]:
    """The hypervolume after each trial of a front, in the order of the record, from the reference of the end.

    It is relative where the front's is known relative to its baseline. Only trials that change the front cost a
    computation, so a long study takes O(N F), F members.
    """
    if front.reference is None:
        return [0.0] * len(front.trials)
    reference, directions = list(front.reference.values()), list(front.objectives.values())
    finished = {id(trial) for trial in (*front.members, *front.dominated)}
    best, volume, volumes = _points([], front.objectives), 0.0, []
    for trial in front.trials:
        if id(trial) in finished:
            points = np.vstack([best, _points([trial], front.objectives)])
            mask = non_dominated(points, directions)
            if mask[-1]:
                best = points[mask]
                volume = hypervolume(best, reference, directions)
        volumes.append(volume)
    if front.relative_hypervolume is None:
        return volumes
    return [_relative(volume, reference, directions) or 0.0 for volume in volumes]


def _front(
    dataset: str | None,
    trials: list[Row],
    objectives: Mapping[str, Direction],
    constraints: Mapping[str, Bound],
    fixed: Mapping[str, float],
) -> Front:
    found, directions = _sorted(trials, objectives, constraints), list(objectives.values())
    members, infeasible = found["members"], found["infeasible"]
    points = _points(members, objectives)
    known = {**known_reference(trials, objectives), **fixed}
    reference = reference_point(points, directions, [known.get(name) for name in objectives]) if members else None
    volume = hypervolume(points, reference, directions) if reference is not None else 0.0
    return Front(
        dataset=dataset,
        objectives=objectives,
        trials=trials,
        dominated=found["dominated"],
        members=members,
        infeasible=infeasible,
        stopped=found["stopped"],
        failed=found["failed"],
        knee=members[knee(points, directions, reference)] if members else None,
        reference=None if reference is None else dict(zip(objectives, reference.tolist(), strict=True)),
        hypervolume=volume,
        relative_hypervolume=None if reference is None else _relative(volume, reference.tolist(), directions),
        baselines=[row for row in gains.baselines(trials) if row.keys() >= objectives.keys()],
        note=None if members else _why_empty(infeasible, [*found["stopped"], *found["failed"]], constraints),
        spent=spent(trials),
    )


def _sorted(
    trials: Iterable[Row], objectives: Mapping[str, Direction], constraints: Mapping[str, Bound]
) -> dict[str, list[Row]]:
    """A partition of the trials of one dataset into the lists of a `Front`."""
    found: dict[str, list[Row]] = {
        name: [] for name in ("members", "dominated", "infeasible", "stopped", "failed", "complete")
    }
    for trial in trials:
        finished = trial["status"] == "finished"
        if trial["status"] == "stopped":
            found["stopped"].append(trial)
        elif trial["status"] == "infeasible" or (finished and not is_feasible(constraints, trial)):
            found["infeasible"].append(trial)
        elif finished and all(number(trial.get(name)) is not None for name in objectives):
            found["complete"].append(trial)
        else:
            found["failed"].append(trial)
    complete = found.pop("complete")
    for trial, on_front in zip(
        complete, non_dominated(_points(complete, objectives), [*objectives.values()]), strict=True
    ):
        found["members" if on_front else "dominated"].append(trial)
    cost = next((name for name, direction in objectives.items() if direction == "min"), next(iter(objectives)))
    found["members"].sort(key=lambda t: (t[cost], str(t.get("key"))))
    return found


def _why_empty(infeasible: Sequence[Row], others: Sequence[Row], constraints: Mapping[str, Bound]) -> str:
    """One sentence; when every trial is infeasible it names the one that misses the constraints least."""
    if others or not infeasible:
        return "No finished trial yet."
    text = "No trial satisfies the constraints."
    missed = [(sum(misses.values()), i) for i, t in enumerate(infeasible) if (misses := broken(constraints, t))]
    if not missed:
        return text
    nearest = infeasible[min(missed)[1]]
    values = ", ".join(f"{name} {human(name, nearest[name])}" for name in broken(constraints, nearest))
    return f"{text} Nearest: {nearest['key']} with {values}."


def _points(trials: Sequence[Row], objectives: Mapping[str, Direction]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([[float(t[name]) for name in objectives] for t in trials]).reshape(len(trials), len(objectives))


def _relative(volume: float, reference: Sequence[float], directions: Sequence[Direction]) -> float | None:
    """The volume with each cost in units of its reference.

    For accuracy against MACs with the baseline's MACs as reference: how far the best accuracy within a budget is above
    chance, averaged over all budgets from 0 to the baseline's. It lies between 0 and 1 - chance.
    """
    scale = math.prod(value for value, direction in zip(reference, directions, strict=True) if direction == "min")
    return volume / scale if scale > 0 else None


def _baseline_limit(trials: Sequence[Row], name: str) -> float | None:
    """The largest baseline cost of the models."""
    return max((value for trial in trials if (value := gains.before(trial, name)) is not None), default=None)
