"""rssearch.front.incremental: the layers of non-dominated sorting, one point after another."""

from __future__ import annotations

import numpy as np
import pytest

from rssearch.front.incremental import Layers
from rssearch.front.pareto import layers


@pytest.mark.parametrize("values", [3, 12, 1000])
def test_they_are_those_of_sorting_from_scratch(values: int) -> None:
    rng = np.random.default_rng(values)
    for size in (1, 2, 30, 120):
        points = rng.integers(0, values, size=(size, 2)).astype(float)  # with copies
        found = Layers()
        for count in range(1, size + 1):
            layer = found.add(*points[count - 1])
            expected = layers(points[:count], ["min", "min"])
            assert layer == expected[-1]
            assert found.better(layer) == (expected < layer).sum()
            for number in {*expected.tolist()}:
                mine = np.array(found.distinct(number))
                assert (mine == np.unique(points[:count][expected == number], axis=0)).all()


def test_points_in_a_row_and_in_a_column() -> None:
    for points, expected in (
        ([(float(n), 0.0) for n in range(20)], list(range(20))),
        ([(float(-n), 0.0) for n in range(20)], [0] * 20),  # each moves all others on
        ([(float(n), float(-n)) for n in range(20)], [0] * 20),
        ([(1.0, 1.0)] * 20, [0] * 20),
    ):
        found = Layers()
        assert [found.add(*point) for point in points] == expected
        assert found.better(1000) == 20
