"""rssearch.space."""

from __future__ import annotations

import random

import pytest

from rssearch.space import (
    Choice,
    Range,
    contains,
    content_key,
    corners,
    draw,
    grid,
    grid_size,
    parse_dimension,
    tidy,
)


def test_a_list_is_a_choice_and_keeps_its_order() -> None:
    assert parse_dimension("m", ["b", "a"]) == Choice(("b", "a"))


def test_one_value_is_a_choice_of_one() -> None:
    assert parse_dimension("m", "resnet20") == Choice(("resnet20",))


def test_a_stepped_range_has_tidy_cells() -> None:
    cells = parse_dimension("rate", {"low": 0.1, "high": 0.7, "step": 0.1}).cells()
    assert cells == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def test_a_whole_range_counts_by_one() -> None:
    assert parse_dimension("depth", {"low": 2, "high": 5}).cells() == (2, 3, 4, 5)


def test_a_step_that_does_not_reach_high_stops_below_it() -> None:
    assert parse_dimension("x", {"low": 0, "high": 10, "step": 4}).cells() == (0, 4, 8)


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
    assert list(corners(space)) == [{"a": 1, "b": 0.0}, {"a": 1, "b": 1.0}, {"a": 2, "b": 0.0}, {"a": 2, "b": 1.0}]


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
