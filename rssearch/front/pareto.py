"""The Pareto front: non-dominated set, hypervolume, knee. Pure NumPy.

Points are arrays of shape [N, M], one row per trial and one column per objective. Inside, every objective is turned
into a cost (smaller is better).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rssearch.errors import InputError
from rssearch.metrics import of_class

Direction = Literal["max", "min"]
Array = NDArray[np.float64]


def non_dominated(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.bool_]:
    """Which points no other point dominates.

    A point dominates another if it is at least as good in every objective and better in one. Equal points do not
    dominate each other, so all copies of a member are members. A row with a NaN is never a member and dominates
    nothing.

    Args:
        points: [N, M].
        directions: ``max`` or ``min`` for each of the M objectives.

    Returns:
        A boolean mask of shape [N]. Sorting makes two objectives cost O(N log N); more cost O(N F), F members.

    Raises:
        InputError: the shapes disagree or a direction is neither ``max`` nor ``min``.
    """
    costs = _costs(points, directions)
    mask = np.zeros(len(costs), dtype=bool)
    valid = np.flatnonzero(~np.isnan(costs).any(axis=1))
    if valid.size:
        distinct, copy_of = np.unique(costs[valid], axis=0, return_inverse=True)
        mask[valid] = _minimal(distinct)[copy_of.reshape(-1)]
    return mask


def layers(points: ArrayLike, directions: Sequence[Direction]) -> NDArray[np.int64]:
    """Non-dominated sorting: 0 for the members of the front, 1 for those of the front of the rest, and so on.

    Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", section III.A; the order of the
    sweep for two objectives is Jensen's (2003). Equal points share a layer.

    Args:
        points: [N, M], without NaN.
        directions: ``max`` or ``min`` for each of the M objectives.

    Returns:
        The layer of each point, of shape [N]. One objective costs O(N log N), two O(N log N), more O(L N F) with L
        layers of F members.

    Raises:
        InputError: the shapes disagree, a direction is neither ``max`` nor ``min``, or a value is NaN.
    """
    costs = _costs(points, directions)
    if np.isnan(costs).any():
        raise InputError("a point with a NaN has no layer")
    if not len(costs):
        return np.zeros(0, dtype=np.int64)
    distinct, copy_of = np.unique(costs, axis=0, return_inverse=True)
    found = np.zeros(len(distinct), dtype=np.int64)
    match costs.shape[1]:
        case 1:
            found[:] = np.arange(len(distinct))
        case 2:
            # In lexicographic order a point is dominated by an earlier one exactly if that has no larger second cost.
            # The smallest second costs of the layers rise from layer to layer.
            smallest: list[float] = []
            for row, second in enumerate(distinct[:, 1].tolist()):
                found[row] = layer = bisect_right(smallest, second)
                smallest[layer : layer + 1] = [second]
        case _:
            rest, layer = np.arange(len(distinct)), 0
            while rest.size:
                best = _minimal(distinct[rest])
                found[rest[best]] = layer
                rest, layer = rest[~best], layer + 1
    return found[copy_of.reshape(-1)]


def hypervolume(points: ArrayLike, reference: ArrayLike, directions: Sequence[Direction]) -> float:
    """Volume between the points and a reference point: what the set dominates, in the product of the units. Exact.

    Two objectives are summed along the sorted front; each further one is sliced (Knowles 2002; While et al. 2006,
    "A faster algorithm for calculating hypervolume": hypervolume by slicing objectives).

    Args:
        points: [N, M]. Points that are not better than the reference in every objective, and rows with a NaN,
            contribute nothing.
        reference: [M], the worst point that still counts; see `reference_point`.
        directions: ``max`` or ``min`` for each of the M objectives.

    Raises:
        InputError: the shapes disagree, or a value that counts is infinite.
    """
    costs = _costs(points, directions)
    corner = _corner(reference, directions)
    costs = costs[(costs < corner).all(axis=1)]
    if np.isinf(costs).any():
        raise InputError("a point with an infinite objective has no hypervolume")
    return _volume(costs, corner)


def knee(points: ArrayLike, directions: Sequence[Direction], reference: ArrayLike | None = None) -> int:
    """Index of the knee: the point that by itself dominates the largest hypervolume.

    That is the largest product of what a point gains over the reference in each objective: accuracy above chance times
    MACs saved. It is the bargaining solution of Nash (1950, "The bargaining problem", Econometrica 18), the one rule
    that neither depends on the objectives' units nor on which other points there are: given a fixed reference, a point
    that is added either is the knee itself or leaves it where it was, be it dominated or at the far end of the front.

    Ties go to the better first objective, then to the lowest index; so do points none of which gains anything.

    Args:
        points: [N, M].
        directions: ``max`` or ``min`` for each of the M objectives.
        reference: [M], as for `hypervolume`. None takes 0 for an objective to maximise (the worst member if
            none is above 0) and the worst member for one to minimise: a dearer member can then move the knee.

    Raises:
        InputError: there is no member (no point, or a NaN in each), the shapes disagree, or the reference is not
            finite.
    """
    costs = _costs(points, directions)
    members = np.flatnonzero(non_dominated(points, directions))
    if not members.size:
        raise InputError("no point without NaN: there is no front and no knee")
    front = costs[members]
    if reference is None:
        worst = np.where(np.isfinite(front), front, -np.inf).max(axis=0)
        zero = np.array([direction == "max" for direction in directions]) & (front.min(axis=0) < 0)
        corner = np.where(zero | ~np.isfinite(worst), 0.0, worst)
    else:
        corner = _corner(reference, directions)
    gains = np.clip(corner - front, 0, None)
    worth = np.where((gains > 0).all(axis=1), np.where(gains > 0, gains, 1.0).prod(axis=1), 0.0)
    # Rounding hides products that are equal but for the last bits, so that ties are ties.
    unit = most if np.isfinite(most := worth.max()) and most > 0 else 1.0
    order = np.lexsort((members, front[:, 0], -np.round(worth / unit, 12)))
    return int(members[order[0]])


def chance(metric: str, classes: float) -> float | None:
    """What a network reaches that answers at random, each class as often as the others; None for other metrics.

    An accuracy is then 1 / classes. The intersection over union of a class with the share p of the pixels is
    p / (p (classes - 1) + 1); its mean over the classes is at most 1 / (2 classes - 1), where all are equally frequent,
    and without the background at most 1 / (2 classes - 2), where there is none. The F1 of such a class is
    2 p / (p classes + 1), its mean at most 1 / classes. Cohen's kappa is 0, the recall of a class 1 / classes.

    Args:
        metric: its name: ``..accuracy``, ``..miou``, ``..miou_foreground``, ``..macro_f1``, ``..kappa``, or the recall
            of a class.
        classes: how many there are, at least 2.
    """
    one = of_class(metric)
    if metric.endswith(("accuracy", "macro_f1")) or (one is not None and one[1] in ("accuracy", "recall")):
        return 1 / classes
    if metric.endswith("kappa"):
        return 0.0
    if metric.endswith("miou_foreground"):
        return 1 / (2 * classes - 2)
    return 1 / (2 * classes - 1) if metric.endswith("miou") else None


def reference_point(
    points: ArrayLike, directions: Sequence[Direction], known: Sequence[float | None] | None = None
) -> Array:
    """A reference point for `hypervolume`, in the units of the objectives.

    A hypervolume can be compared over time and between studies only if its reference does not move with the trials.
    So: a value in `known` is taken as it is (give a quality its `chance`, a cost the value of the unpruned baseline);
    else an objective to maximise gets 0, or the worst value seen if that is negative; else an objective to minimise
    gets the worst value seen. The last two move with the points; `rssearch.front.references` keeps those of a study.

    Args:
        points: [N, M]; rows with a NaN or an infinity are ignored.
        directions: ``max`` or ``min`` for each of the M objectives.
        known: [M], fixed values, None where there is none.

    Raises:
        InputError: an objective to minimise has neither a known value nor a point; or the shapes disagree.
    """
    values = _checked(points, directions)
    values = values[np.isfinite(values).all(axis=1)]
    fixed = [None] * len(directions) if known is None else list(known)
    if len(fixed) != len(directions):
        raise InputError(f"{len(fixed)} known values for {len(directions)} objectives")
    reference = []
    for column, (direction, value) in enumerate(zip(directions, fixed, strict=True)):
        if value is not None:
            reference.append(float(value))
        elif direction == "max":
            reference.append(min([0.0, *values[:, column]]))
        elif len(values):
            reference.append(values[:, column].max())
        else:
            raise InputError(f"objective {column} is to be minimised and has neither a known value nor a point")
    return np.asarray(reference, dtype=float)


def _checked(points: ArrayLike, directions: Sequence[Direction]) -> Array:
    array = np.asarray(points, dtype=float)
    if array.size == 0:
        array = array.reshape(0, len(directions))
    if array.ndim != 2 or array.shape[1] != len(directions) or not len(directions):
        raise InputError(f"points of shape {array.shape} do not fit {len(directions)} objectives: expected [N, M]")
    if wrong := [d for d in directions if d not in ("max", "min")]:
        raise InputError(f"direction {wrong[0]!r} is not allowed; allowed: max, min")
    return array


def _costs(points: ArrayLike, directions: Sequence[Direction]) -> Array:
    signs = np.array([-1.0 if direction == "max" else 1.0 for direction in directions])
    costs: Array = _checked(points, directions) * signs
    return costs


def _corner(reference: ArrayLike, directions: Sequence[Direction]) -> Array:
    corner: Array = _costs(np.atleast_2d(np.asarray(reference, dtype=float)), directions)[0]
    if not np.isfinite(corner).all():
        raise InputError(f"the reference point of a hypervolume must be finite, not {reference!r}")
    return corner


def _minimal(costs: Array) -> NDArray[np.bool_]:
    """Mask of the non-dominated rows among distinct rows in lexicographic order."""
    count, objectives = costs.shape
    mask = np.zeros(count, dtype=bool)
    mask[0] = True
    if objectives == 1:
        return mask
    if objectives == 2:
        mask[1:] = costs[1:, 1] < np.minimum.accumulate(costs[:, 1])[:-1]
        return mask
    rest = np.arange(count)
    while rest.size:  # the first of the rest in lexicographic order is dominated by none of the rest
        first, rest = rest[0], rest[1:]
        mask[first] = True
        rest = rest[(costs[rest] < costs[first]).any(axis=1)]
    return mask


def _volume(costs: Array, corner: Array) -> float:
    """Hypervolume of points that all lie below the corner in every cost."""
    if not len(costs):
        return 0.0
    distinct = np.unique(costs, axis=0)
    front = distinct[_minimal(distinct)]
    if len(corner) == 1:
        return float(corner[0] - front[0, 0])
    if len(corner) == 2:
        heights = np.concatenate([[corner[1]], front[:-1, 1]]) - front[:, 1]
        return float(((corner[0] - front[:, 0]) * heights).sum())
    # Between two neighbouring values of the last cost, the dominated region is a prism over those that came before.
    front = front[np.argsort(front[:, -1], kind="stable")]
    thickness = np.diff(np.append(front[:, -1], corner[-1]))
    return float(sum(_volume(front[: i + 1, :-1], corner[:-1]) * t for i, t in enumerate(thickness) if t > 0))
