"""rssearch.front.pairs: paired tests with Holm's correction, and ranks; against scipy, statsmodels and tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rssearch.front.pairs import critical_difference, holm, mean_ranks, paired_p, pairs


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_and_the_paired_test_are_those_of_other_libraries():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    p_values = [*rng.random(20) ** 3, 0.2, 0.2]
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1].tolist())
    one, other = rng.normal(1, 1, 5), rng.normal(0, 1, 5)
    assert paired_p((one - other).tolist()) == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_pairs_are_seed_by_seed():
    """Blocks are far apart; within them `a` is better by 1, 1.1 and 0.9, and `c` has one seed less."""
    values = {
        "a": {"0": 11.0, "1": 21.1, "2": 30.9},
        "b": {"0": 10.0, "1": 20.0, "2": 30.0},
        "c": {"0": 10.5, "1": 19.0},
    }
    ab, ac, bc = pairs(values)
    assert (ab.one, ab.other, ab.seeds, ab.is_separable) == ("a", "b", 3, True)
    assert ab.difference == pytest.approx(1)
    assert ab.interval == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert ab.p == pytest.approx(stats.ttest_1samp([1, 1.1, 0.9], 0).pvalue)
    assert ab.adjusted == pytest.approx(3 * ab.p)
    assert (ac.seeds, bc.seeds, ac.is_separable, bc.is_separable) == (2, 2, False, False)
    assert mean_ranks(values) == {"a": 1.0, "b": 2.5, "c": 2.5}  # over the seeds 0 and 1, which all have


def test_nothing_is_said_of_one_seed_or_none():
    (pair,) = pairs({"a": {"0": 1.0}, "b": {"0": 2.0}})
    assert (pair.seeds, pair.difference, pair.p, pair.is_separable) == (1, -1.0, None, False)
    (pair,) = pairs({"a": {"0": 1.0}, "b": {"1": 2.0}})
    assert (pair.seeds, pair.difference, pair.p) == (0, None, None)
    assert paired_p([0.5, 0.5]) == 0.0
    assert paired_p([0.0, 0.0]) == 1.0


def test_critical_differences_are_those_of_the_tables():
    """Demsar 2006, table 5: q is 1.960 for 2 classifiers, 2.343 for 3, 3.164 for 10."""
    assert critical_difference(2, 1) == pytest.approx(1.960, abs=2e-3)
    assert critical_difference(3, 5) == pytest.approx(2.343 * (12 / 30) ** 0.5, abs=2e-3)
    assert critical_difference(10, 10) == pytest.approx(3.164 * (110 / 60) ** 0.5, abs=3e-3)
    assert critical_difference(19, 3) == pytest.approx(16, abs=0.5)
