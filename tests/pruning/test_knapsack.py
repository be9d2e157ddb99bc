"""Widths of least loss within a budget: against every combination of small networks, and its limits."""

import itertools

import numpy as np
import pytest

from rssearch.pruning.cost_table import CostTable, Count
from rssearch.pruning.knapsack import solve


def chain(seed, groups=4, *, couple=False):
    """A cost table of layers that read each other, and falling losses of widths 1 to 7..12 of each group."""
    rng = np.random.default_rng(seed)
    quadratic = np.zeros((groups, groups))
    for first, second in itertools.pairwise(range(groups)):
        quadratic[first, second] = rng.integers(1, 10)
    if couple:  # a group that reads itself, as the convolutions of a residual stage without bottlenecks do
        quadratic[groups - 1, groups - 1] = rng.integers(1, 5)
    table = CostTable(float(rng.integers(0, 20)), rng.integers(0, 20, groups).astype(float), quadratic)
    losses = []
    for width in rng.integers(7, 13, groups):
        falling = np.sort(rng.exponential(size=width) ** rng.choice([1, 2, 3]))[::-1]
        losses.append(np.concatenate([[np.inf], falling[:-1], [0.0]]))
    return table, losses


def best(table, losses, budget):
    widths = np.stack(np.meshgrid(*(np.flatnonzero(np.isfinite(row)) for row in losses), indexing="ij"), -1)
    widths = widths.reshape(-1, len(losses)).astype(float)
    costs = table.constant + widths @ table.linear + np.einsum("ni,ij,nj->n", widths, table.quadratic, widths)
    totals = sum(row[widths[:, group].astype(int)] for group, row in enumerate(losses))
    return float(totals[costs <= budget].min())


def total(losses, widths):
    return float(sum(row[width] for row, width in zip(losses, widths, strict=True)))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(12))
def test_four_groups_are_as_good_as_the_best_of_all_combinations(seed, share):
    table, losses = chain(seed, couple=seed % 2 == 0)
    budget = share * table(np.array([len(row) - 1.0 for row in losses]))
    widths = solve(table, losses, budget)
    assert table(widths.astype(float)) <= budget
    assert total(losses, widths) == pytest.approx(best(table, losses, budget), abs=1e-9)


@pytest.mark.parametrize("budget", [3.0, 6.9, 10.0])
def test_one_group_gets_what_fits_whether_or_not_it_is_on_the_hull(budget):
    losses = [np.array([np.inf, 3.0, 2.9, 2.8, 0.1, 0.0])]  # 2 and 3 are above the line from 1 to 4
    (width,) = solve(CostTable(0.0, np.array([2.0]), np.zeros((1, 1))), losses, budget)
    assert width == int(budget // 2)


def test_widths_that_a_group_may_not_have_are_not_taken():
    losses = [np.full(17, np.inf), np.full(17, np.inf)]
    for row in losses:
        row[[4, 8, 12, 16]] = [3.0, 2.0, 1.0, 0.0]
    losses[1] *= 2
    table = CostTable(0.0, np.ones(2), np.zeros((2, 2)))
    assert solve(table, losses, 25.0).tolist() == [8, 16]
    assert solve(table, losses, 32.0).tolist() == [16, 16]
    assert solve(table, losses, 7.0).tolist() == [4, 4]  # nothing fits: the narrowest


def test_a_cost_that_is_truncated_is_not_exceeded():
    table = CostTable(0.0, np.array([1.0, 1.0]), np.zeros((2, 2)))
    table.truncated.append((0.3, 1, Count(0.0, np.array([1.0, 1.0]))))
    losses = [np.array([np.inf, *np.linspace(scale, 0, 10)]) for scale in (1.0, 2.0)]
    widths = solve(table, losses, 15.0)
    assert table(widths.astype(float)) <= 15
    assert widths.tolist() == [1, 10]
