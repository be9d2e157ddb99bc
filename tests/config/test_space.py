"""rssearch.config.space."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rssearch.config.space import (
    Choice,
    Range,
    contains,
    content_key,
    draw,
    ends,
    grid,
    grid_size,
    parse_dimension,
    sample,
    size_text,
    tidy,
)


def test_a_list_is_a_choice_and_keeps_its_order() -> None:
    assert parse_dimension("m", ["b", "a"]) == Choice(("b", "a"))


def test_one_value_is_a_choice_of_one() -> None:
    assert parse_dimension("m", "resnet20") == Choice(("resnet20",))


def test_a_stepped_range_has_tidy_cells() -> None:
    cells = parse_dimension("rate", {"low": 0.1, "high": 0.7, "step": 0.1}).cells()
    assert list(cells or ()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("spec", "count", "inside", "outside"),
    [
        ({"low": 0, "high": 100_000_000}, 100_000_001, 99_999_999, 100_000_001),
        ({"low": 1, "high": 2**53, "log": True}, 2**53, 2**52 + 1, 0),
        ({"low": 0, "high": 10**12, "step": 3}, 333_333_333_334, 999_999_999_999, 10**12),
        ({"low": 0.5, "high": 1e9, "step": 0.5}, 2_000_000_000, 123_456_789.5, 123_456_789.25),
    ],
)
def test_a_long_range_is_not_kept_in_memory(spec: dict[str, float], count: int, inside: float, outside: float) -> None:
    dimension = parse_dimension("x", spec)
    cells = dimension.cells()
    assert cells is not None
    assert (len(cells), cells[0], grid_size({"x": dimension})) == (count, spec["low"], count)
    assert (contains({"x": dimension}, {"x": inside}), contains({"x": dimension}, {"x": outside})) == (True, False)
    assert not contains({"x": dimension}, {"x": True})
    assert draw(dimension, random.Random(0)) in cells


def test_a_whole_range_counts_by_one() -> None:
    assert list(parse_dimension("depth", {"low": 2, "high": 5}).cells() or ()) == [2, 3, 4, 5]


def test_a_step_that_does_not_reach_high_stops_below_it() -> None:
    assert parse_dimension("x", {"low": 0, "high": 10, "step": 4}).cells() == range(0, 11, 4)


def test_a_real_range_has_no_cells() -> None:
    assert parse_dimension("rate", {"low": 0.1, "high": 0.7}).cells() is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "the list is empty"),
        ([0.3, 0.3], "listed twice"),
        ([[1]], "not a plain value"),
        ([float("nan")], "not finite"),
        ({"low": 1}, "needs both low and high"),
        ({"low": 2, "high": 1}, "low 2 must be below high 1"),
        ({"low": 0, "high": 1, "steps": 1}, "not steps"),
        ({"low": 0, "high": 1, "step": 0}, "must be above 0"),
        ({"low": 0, "high": 1, "log": True}, "needs low above 0"),
        ({"low": "a", "high": 1}, "x.low: 'a' is not a number"),
        ({"low": 1.0, "high": 2.0, "log": "yes"}, "not true or false"),
        ({"low": 0, "high": 2**53 + 1}, "x.high: 9007199254740993 is too large"),
        ({"low": -1e308, "high": 1e308}, "too far for floating-point numbers"),
        ({"low": 1.0, "high": 2.0, "step": 1e-13}, "x.step: 1e-13 is too fine"),
    ],
)
def test_bad_dimensions_name_themselves(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"^x") as caught:
        parse_dimension("x", spec)
    assert message in str(caught.value)


def test_grid_varies_the_last_dimension_fastest() -> None:
    space = {"a": Choice((1, 2)), "b": Choice(("x", "y"))}
    assert list(grid(space)) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip
    assert grid_size(space) == 4


def test_a_continuous_dimension_has_no_grid() -> None:
    space = {"a": Choice((1, 2)), "b": Range(0.0, 1.0)}
    assert grid_size(space) is None
    with pytest.raises(ValueError, match="b: a continuous range"):
        list(grid(space))
    assert sample(space, 4) == [{"a": 1, "b": 0.0}, {"a": 1, "b": 1.0}, {"a": 2, "b": 0.0}, {"a": 2, "b": 1.0}]


def test_a_large_space_is_stood_for_by_a_sample() -> None:
    space = {f"x{i}": Range(0.0, 1.0) for i in range(30)} | {"m": Choice(("a", "b", "c")), "s": Range(0, 10**8)}
    points = sample(space, 300)
    assert len(points) == 300
    assert points == sample(space, 300)
    assert points[0] == {**{f"x{i}": 0.0 for i in range(30)}, "m": "a", "s": 0}
    assert points[-1] == {**{f"x{i}": 1.0 for i in range(30)}, "m": "c", "s": 10**8}
    assert Counter(point["m"] for point in points) == {"a": 100, "b": 100, "c": 100}
    assert Counter(point["x17"] for point in points) == {0.0: 150, 1.0: 150}
    assert len(sample({"m": Choice(tuple(range(50))), "n": Choice(tuple(range(50)))}, 7)) == 50  # no choice is left out


def test_ends_keep_what_is_chosen() -> None:
    space = {"m": Choice(("a", "b")), "few": Range(0, 3), "many": Range(0, 200), "real": Range(0.1, 0.5)}
    low, high = ends(space, {"m": "b", "few": 2, "many": 7, "real": 0.3})
    assert low == {"m": "b", "few": 2, "many": 0, "real": 0.1}
    assert high == {"m": "b", "few": 2, "many": 200, "real": 0.5}


def test_sizes_are_short() -> None:
    assert [size_text(n) for n in (12, 10**8, 2**30, 2**20_000)] == ["12", "100000000", "about 10^9", "about 10^6021"]


def test_yaml_round_trip() -> None:
    for spec in ([1, "a", None, True], {"low": 1, "high": 9, "step": 2}, {"low": 0.01, "high": 1.0, "log": True}):
        assert parse_dimension("x", spec).to_yaml() == spec


def test_content_key_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1, "b": [1, 2]}) != content_key({"a": 1, "b": [2, 1]})
    assert content_key({"a": 1}) != content_key({"a": "1"})
    assert len(content_key({})) == 16


def test_content_key_is_stable_between_versions() -> None:
    # Records on disk are found by it: this value may change only on purpose.
    assert content_key({"method": "l1", "rate": 0.3}) == "232b1eba3111da35"


def test_contains() -> None:
    space = {"a": Choice((1, "x")), "b": Range(0.0, 1.0), "c": Range(0, 4, 2)}
    assert contains(space, {"a": "x", "b": 0.5, "c": 4})
    assert not contains(space, {"a": "y", "b": 0.5, "c": 4})
    assert not contains(space, {"a": 1, "b": 1.5, "c": 4})
    assert not contains(space, {"a": 1, "b": 0.5, "c": 3})
    assert not contains(space, {"a": 1, "b": 0.5})
    assert not contains(space, {"a": True, "b": 0.5, "c": 0})


def test_tidy() -> None:
    assert tidy(0.1 + 0.2) == 0.3
    assert tidy("a") == "a"
    assert tidy(True) is True


def test_draw_stays_inside() -> None:
    rng = random.Random(0)
    values = [draw(Range(0.001, 1.0, log=True), rng) for _ in range(200)]
    assert all(0.001 <= float(v) <= 1.0 for v in values)  # type: ignore[arg-type]
    assert sum(float(v) < 0.0316 for v in values) > 60  # log-uniform: half of them below the geometric mean
    assert {draw(Choice((1, 2)), rng) for _ in range(50)} == {1, 2}
