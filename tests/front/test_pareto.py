"""Non-dominated sets, hypervolumes and knees against brute force and values computed by hand."""

import itertools
import time

import numpy as np
import pytest

from rssearch.errors import InputError
from rssearch.front.pareto import chance, hypervolume, knee, layers, non_dominated, reference_point

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


FRONT = [[0.5, 10], [0.8, 20], [0.88, 40], [0.9, 100]]


def test_knee_has_the_largest_hypervolume_of_its_own():
    # above a chance of 0.1, below 100: 0.4 * 90 = 36, 0.7 * 80 = 56, 0.78 * 60 = 46.8, 0
    assert knee(FRONT, MAX_MIN, [0.1, 100]) == 1
    assert knee(FRONT, MAX_MIN, [0.1, 1000]) == 2  # 396, 686, 748.8, 720
    assert knee([[0.1, 500], [np.nan, 1], *FRONT], MAX_MIN, [0.1, 100]) == 3
    three = [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0.2, 0.2, 0.2]]
    assert knee(three, ["min"] * 3, [2, 2, 2]) == 3  # 1.8 ** 3 against 2 * 2 * 1
    assert knee([[0.2], [0.7], [0.4]], ["max"], [0.1]) == 1


@pytest.mark.parametrize(
    "bad",
    [
        [0.1, 0.001],  # a tiny network at chance
        [0.05, 0.0],  # below chance, for nothing
        [0.9001, 99.9],  # dear, and hardly better
        [0.95, 5000],  # beyond the reference
        [0.4, 60],  # dominated
        [-1e9, -1e9],
        [0.8, 20],  # a copy: the lowest index stays
        [np.nan, 0],
    ],
)
def test_a_bad_point_does_not_move_the_knee(bad):
    assert knee([*FRONT, bad], MAX_MIN, [0.1, 100]) == 1
    if bad[1] < 100:  # without a reference a dearer member can move it
        assert knee([*FRONT, bad], MAX_MIN) == knee(FRONT, MAX_MIN) == 1


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_knee_stays_or_is_the_point_that_is_added(objectives):
    """Independence of irrelevant alternatives: of any points, not only of bad ones."""
    rng, moved = np.random.default_rng(objectives), 0
    for _ in range(200):
        points, directions = rng.random((12, objectives)), rng.choice(["max", "min"], objectives)
        reference = np.where(directions == "max", 0.1, 0.9)
        before = knee(points, directions, reference)
        new = rng.normal(0.5, 1, objectives)
        found = knee(np.vstack([points, new]), directions, reference)
        moved += found == 12
        gain = np.where(directions == "max", new - reference, reference - new)
        own = np.where(directions == "max", points[before] - reference, reference - points[before])
        expected = (gain > 0).all() and gain.prod() > own.clip(0).prod()
        assert found == (12 if expected else before)
        without = [i for i in range(12) if i != before and rng.random() < 0.5] + [before]
        assert without[knee(points[without], directions, reference)] == before
    assert 0 < moved < 200


def test_knee_does_not_depend_on_units():
    rng = np.random.default_rng(1)
    for _ in range(20):
        points, unit = rng.random((30, 2)), np.array([100, 1e9])
        assert knee(points * unit, MAX_MIN) == knee(points, MAX_MIN)
        moved = knee(points * unit + [5, 7], MAX_MIN, [0.1, 1] * unit + [5, 7])
        assert moved == knee(points, MAX_MIN, [0.1, 1])


def test_knee_of_small_and_odd_fronts():
    assert knee([[0.5, 3]], MAX_MIN) == 0
    assert knee([[0.5, 3], [0.9, 7]], MAX_MIN, [0.1, 5]) == 0  # the other costs more than the reference
    assert knee([[0.5, 7], [0.9, 9]], MAX_MIN, [0.1, 5]) == 1  # both do: the better first objective
    assert knee([[0.9, 7], [0.9, 7]], MAX_MIN, [0.1, 10]) == 0  # copies: the lowest index
    assert knee([[-0.2, 1], [-0.4, 0.5], [-0.1, 9]], MAX_MIN) == 0  # the worst quality, where none is above 0
    assert knee([[0.5, np.inf], [0.4, 1], [0.3, 0.5]], MAX_MIN) == 2  # 0.3 * 0.5 against 0
    assert knee([[np.inf, 3]], MAX_MIN) == 0
    with pytest.raises(InputError, match="no knee"):
        knee([[np.nan, 1]], MAX_MIN)
    with pytest.raises(InputError, match="reference point"):
        knee(FRONT, MAX_MIN, [0, np.nan])


def test_chance_of_accuracies_and_mious():
    assert chance("val_accuracy", 10) == chance("val_pixel_accuracy", 10) == 0.1
    assert chance("test_miou", 2) == pytest.approx(1 / 3)
    assert chance("val_miou", 6) == 1 / 11
    assert chance("val_loss", 10) is None


@pytest.mark.parametrize("shares", [[0.25] * 4, [0.7, 0.2, 0.06, 0.04]])
def test_chance_is_what_random_answers_reach(shares):
    rng, pixels = np.random.default_rng(0), 200_000
    truth, answers = rng.choice(4, pixels, p=shares), rng.integers(0, 4, pixels)
    assert (truth == answers).mean() == pytest.approx(chance("accuracy", 4), abs=0.005)
    both = [((truth == k) & (answers == k)).sum() / ((truth == k) | (answers == k)).sum() for k in range(4)]
    if shares[0] == 0.25:
        assert np.mean(both) == pytest.approx(chance("miou", 4), abs=0.005)
    else:
        assert np.mean(both) < chance("miou", 4)


def test_reference_point():
    points = [[0.9, 50], [0.7, 20], [np.nan, 500]]
    assert reference_point(points, MAX_MIN).tolist() == [0, 50]
    assert reference_point(points, MAX_MIN, [None, 100]).tolist() == [0, 100]
    assert reference_point([], MAX_MIN, [None, 100]).tolist() == [0, 100]
    assert reference_point([[-3.0], [1.0]], ["max"]).tolist() == [-3]
    with pytest.raises(InputError, match="neither a known value nor a point"):
        reference_point([], MAX_MIN)
