"""Functional ANOVA by a random forest: the share of a variance that each dimension explains by itself.

Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance". Optuna's evaluator
does the same, and walks through its trees in Python for each interval of each dimension: 20 seconds for two metrics of
1,000 trials. Here the leaves of a tree are boxes in arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["shares"]

_TREES, _DEPTH, _SEED = 64, 64, 0  # those of Optuna
Array = NDArray[np.float64]


def shares(dimensions: Sequence[Sequence[float] | Sequence[str]], values: Sequence[float]) -> list[float] | None:
    """The share of the variance of some values that each dimension explains, together 1.

    Args:
        dimensions: for each the value of all N trials, numbers or texts, at least two different ones.
        values: [N].

    Returns:
        None where no tree of the forest finds a difference.
    """
    from sklearn.ensemble import RandomForestRegressor  # takes a second

    encoded = [_encoded(dimension) for dimension in dimensions]
    ends = np.cumsum([columns.shape[1] for columns, _ in encoded])
    owned = [np.arange(end - columns.shape[1], end) for end, (columns, _) in zip(ends, encoded, strict=True)]
    bounds = np.concatenate([limits for _, limits in encoded])
    forest = RandomForestRegressor(n_estimators=_TREES, max_depth=_DEPTH, random_state=_SEED)
    forest.fit(np.concatenate([columns for columns, _ in encoded], axis=1), np.asarray(values, dtype=float))
    found = [own for e in forest.estimators_ if (own := _of_tree(e.tree_, bounds, owned)) is not None]
    if not found:
        return None
    mean = np.mean(found, axis=0)
    return (mean / mean.sum() if mean.sum() > 0 else np.full(len(mean), 1 / len(mean))).tolist()


def _encoded(dimension: Sequence[float] | Sequence[str]) -> tuple[Array, Array]:
    """The columns of a dimension [N, C], and the bounds of each [C, 2]: texts become one column each."""
    if any(isinstance(value, str) for value in dimension):
        texts = np.array([str(value) for value in dimension])
        columns = (texts[:, None] == np.unique(texts)).astype(float)
        return columns, np.tile([0.0, 1.0], (columns.shape[1], 1))
    numbers = np.array(dimension, dtype=float)[:, None]
    return numbers, np.array([[numbers.min(), numbers.max()]])


def _of_tree(tree: Any, bounds: Array, owned: Sequence[NDArray[np.int64]]) -> list[float] | None:
    """The share of each dimension, by its columns, in the variance of a tree; None where it has none."""
    lower, upper = _boxes(tree, bounds)
    leaves = tree.children_left < 0
    lower, upper, values = lower[leaves], upper[leaves], tree.value[leaves].reshape(-1)
    sizes = upper - lower
    whole = _variance(values, sizes.prod(axis=1))
    if whole <= 0:
        return None
    return [_marginal(lower[:, own], upper[:, own], values, np.delete(sizes, own, axis=1).prod(axis=1), bounds[own])
            / whole for own in owned]  # fmt: skip


def _boxes(tree: Any, bounds: Array) -> tuple[Array, Array]:
    """Where each node of a tree begins and ends, [nodes, columns]; level by level: a child is within its parent."""
    lower, upper = (np.tile(limit, (tree.node_count, 1)) for limit in bounds.T)
    level = np.array([0])
    while level.size:
        inner = level[tree.children_left[level] >= 0]
        left, right = tree.children_left[inner], tree.children_right[inner]
        for child in (left, right):
            lower[child], upper[child] = lower[inner], upper[inner]
        upper[left, tree.feature[inner]] = lower[right, tree.feature[inner]] = tree.threshold[inner]
        level = np.concatenate([left, right])
    return lower, upper


def _marginal(lower: Array, upper: Array, values: Array, others: Array, bounds: Array) -> float:
    """The variance over a dimension of the mean over all others.

    Args:
        lower: where the leaves begin in the dimension's columns, [L, C].
        upper: where they end.
        values: of the leaves, [L].
        others: the volumes of the leaves in all other columns, [L].
        bounds: of the columns, [C, 2].
    """
    inside, widths = [], []
    for low, high, limits in zip(lower.T, upper.T, bounds, strict=True):
        edges = np.unique(np.concatenate([low, high, limits]))
        middle = (edges[1:] + edges[:-1]) / 2
        inside.append((low < middle[:, None]) & (middle[:, None] <= high))
        widths.append(np.diff(edges))
    # Every combination of an interval in each column, [K, L] and [K].
    within = reduce(lambda a, b: (a[:, None] & b).reshape(-1, a.shape[1]), inside) * others
    size = reduce(lambda a, b: np.outer(a, b).reshape(-1), widths)
    weights = within.sum(axis=1)
    return _variance(within @ values / weights, weights * size)


def _variance(values: Array, weights: Array) -> float:
    mean = np.average(values, weights=weights)
    return float(np.average((values - mean) ** 2, weights=weights))
