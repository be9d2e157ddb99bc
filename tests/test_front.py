"""Non-dominated sets, hypervolumes and knees against brute force and values computed by hand."""

import itertools
import time

import numpy as np
import pytest

from rssearch.errors import InputError
from rssearch.front import hypervolume, knee, layers, non_dominated, reference_point

MAX_MIN = ("max", "min")


def brute_force(points, directions):
    costs = np.where([d == "max" for d in directions], -points, points)
    return np.array([not any((b <= a).all() and (b < a).any() for b in costs) for a in costs])


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [3, 1000])  # 3: many ties and copies
def test_non_dominated_equals_brute_force(objectives, levels):
    rng = np.random.default_rng(objectives + levels)
    for _ in range(20):
        points = rng.integers(0, levels, (60, objectives)) / 7
        directions = rng.choice(["max", "min"], objectives)
        assert (non_dominated(points, directions) == brute_force(points, directions)).all()


def test_all_copies_of_a_member_are_members_and_nan_is_never():
    points = [[0.9, 5], [0.9, 5], [0.9, 6], [np.nan, 1], [0.5, np.nan], [0.5, 2]]
    assert non_dominated(points, MAX_MIN).tolist() == [True, True, False, False, False, True]


def test_minus_zero_is_zero():
    assert non_dominated([[0.0, 1.0], [-0.0, 1.0]], MAX_MIN).tolist() == [True, True]


def test_infinite_values_are_compared():
    assert non_dominated([[np.inf, 1], [1, 2], [-np.inf, 0]], MAX_MIN).tolist() == [True, False, True]


def test_no_points():
    assert non_dominated([], MAX_MIN).tolist() == []
    assert hypervolume([], [0, 10], MAX_MIN) == 0


@pytest.mark.parametrize(
    ("points", "directions", "message"),
    [
        ([[1, 2, 3]], MAX_MIN, r"\(1, 3\) do not fit 2 objectives"),
        ([1, 2], MAX_MIN, "expected"),
        ([[1, 2]], ("max", "least"), "'least' is not allowed"),
    ],
)
def test_bad_input(points, directions, message):
    with pytest.raises(InputError, match=message):
        non_dominated(points, directions)


def test_ten_thousand_points_take_no_time():
    angle = np.random.default_rng(0).random(10_000) * np.pi / 2
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)  # all are members: the worst case
    begin = time.perf_counter()
    assert non_dominated(points, ("max", "max")).all()
    assert hypervolume(points, [0, 0], ("max", "max")) == pytest.approx(np.pi / 4, abs=1e-3)
    assert time.perf_counter() - begin < 2


def test_layers_are_peeled_fronts():
    rng = np.random.default_rng(0)
    for directions in (["max"], ["max", "min"], ["min", "min", "max"]):
        points = rng.integers(0, 6, size=(60, len(directions))).astype(float)
        found, rest, depth = layers(points, directions), np.arange(60), 0
        while rest.size:
            on = non_dominated(points[rest], directions)
            assert set(found[rest[on]]) == {depth}
            rest, depth = rest[~on], depth + 1
        assert found.max() == depth - 1


def test_layers_of_nothing_and_of_nan():
    assert layers([], ["max", "min"]).tolist() == []
    with pytest.raises(InputError, match="NaN has no layer"):
        layers([[0.5, np.nan]], ["max", "min"])


def test_hypervolume_by_hand():
    assert hypervolume([[0.9]], [0.25], ["max"]) == pytest.approx(0.65)
    assert hypervolume([[3.0], [2.0]], [10], ["min"]) == 8
    # a staircase: 0.5 over [2, 10] and 0.4 more over [5, 10]
    assert hypervolume([[0.5, 2], [0.9, 5]], [0, 10], MAX_MIN) == pytest.approx(0.5 * 8 + 0.4 * 5)
    # two unit-high boxes of 3 x 3 x 1 and 1 x 1 x 3 that share 1
    assert hypervolume([[3, 3, 1], [1, 1, 3]], [0, 0, 0], ["max"] * 3) == 9 + 3 - 1


def union_of_boxes(points, reference):
    """Inclusion and exclusion: exact and slow, for minimisation."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            total -= (-1) ** size * np.prod(np.clip(reference - np.max(subset, axis=0), 0, None))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_hypervolume_equals_inclusion_and_exclusion(objectives):
    rng = np.random.default_rng(objectives)
    for _ in range(5):
        points, reference = rng.random((8, objectives)), rng.random(objectives) * 0.3 + 0.8
        expected = union_of_boxes(points, reference)
        assert hypervolume(points, reference, ["min"] * objectives) == pytest.approx(expected, rel=1e-9)
        assert hypervolume(-points, -reference, ["max"] * objectives) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_agrees_with_monte_carlo(objectives):
    rng = np.random.default_rng(7)
    points, samples = rng.random((200, objectives)), rng.random((20_000, objectives))
    dominated = (points[None] <= samples[:, None]).all(-1).any(1).mean()
    assert hypervolume(points, np.ones(objectives), ["min"] * objectives) == pytest.approx(dominated, abs=0.01)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_dominated_points_copies_and_points_beyond_the_reference_change_nothing(objectives):
    rng = np.random.default_rng(objectives)
    points, directions = rng.random((15, objectives)), ["min"] * objectives
    volume = hypervolume(points, np.ones(objectives), directions)
    beyond = np.array([[0.0] * (objectives - 1) + [1.0]])  # best in all but one: on the reference in that
    more = np.vstack([points, points + 0.01, points, beyond, np.full((1, objectives), np.nan)])
    assert hypervolume(rng.permutation(more), np.ones(objectives), directions) == pytest.approx(volume, rel=1e-12)
    better = np.vstack([points, points.min(axis=0) * 0.9])
    assert hypervolume(better, np.ones(objectives), directions) > volume


def test_hypervolume_needs_finite_numbers():
    with pytest.raises(InputError, match="reference point"):
        hypervolume([[1, 2]], [0, np.inf], MAX_MIN)
    with pytest.raises(InputError, match="infinite"):
        hypervolume([[np.inf, 2]], [0, 3], MAX_MIN)


def test_knee_is_furthest_from_the_chord():
    front = [[0.5, 10], [0.8, 20], [0.88, 40], [0.9, 100]]
    # scaled costs: (1, 0), (.25, .111), (.05, .333), (0, 1): sums 1, .361, .383, 1
    assert knee(front, MAX_MIN) == 1
    # dominated and missing points do not count, although the first would change the scale
    assert knee([[0.1, 500], [np.nan, 1], *front], MAX_MIN) == 3


def test_knee_does_not_depend_on_units():
    rng = np.random.default_rng(1)
    points = rng.random((30, 2))
    assert knee(points * [100, 1e9] + [5, 7], MAX_MIN) == knee(points, MAX_MIN)


def test_knee_of_small_and_odd_fronts():
    assert knee([[0.5, 3]], MAX_MIN) == 0
    assert knee([[0.5, 3], [0.9, 7]], MAX_MIN) == 1  # two members: the better first objective
    assert knee([[0.9, 7], [0.9, 7]], MAX_MIN) == 0  # copies: the lowest index
    assert knee([[0.2], [0.7], [0.4]], ["max"]) == 1
    assert knee([[0.5, 1], [0.55, 5], [0.9, 7]], MAX_MIN) == 2  # bulges away from the ideal: an end
    assert knee([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0.2, 0.2, 0.2]], ["min"] * 3) == 3
    with pytest.raises(InputError, match="no knee"):
        knee([[np.nan, 1]], MAX_MIN)


def test_reference_point():
    points = [[0.9, 50], [0.7, 20], [np.nan, 500]]
    assert reference_point(points, MAX_MIN).tolist() == [0, 50]
    assert reference_point(points, MAX_MIN, [None, 100]).tolist() == [0, 100]
    assert reference_point([], MAX_MIN, [None, 100]).tolist() == [0, 100]
    assert reference_point([[-3.0], [1.0]], ["max"]).tolist() == [-3]
    with pytest.raises(InputError, match="neither a known value nor a point"):
        reference_point([], MAX_MIN)
