"""Importances and slices of the dimensions: from made-up trials of which it is known what matters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rssearch.front.trials import fronts
from rssearch.report.columns import plain
from rssearch.report.page import dimensions
from rssearch.report.page.dimensions import ENOUGH, explained
from tests.support.pages import TWO, trial

ASKED = ["model", "method", "rate", "seed"]


def grid(**more: Any) -> list[dict[str, Any]]:
    """The accuracy depends on the method alone, the MACs on the rate; of the seed nothing does."""
    return [
        trial(f"{method}{rate}{seed}", accuracy, int(1e8 * (1 - rate)), method, seed=seed) | {"rate": rate} | more
        for method, accuracy in (("l1", 0.9), ("lfp", 0.7), ("a<b>", 0.5))
        for rate in (0.3, 0.5, 0.7)
        for seed in (0, 1)
    ]


def of(rows: list[dict[str, Any]], objectives: Any = TWO, asked: list[str] | None = None) -> dict[str, Any]:
    (front,) = fronts(rows, objectives)
    return explained(front, asked or ASKED)


def test_importances_are_of_what_matters() -> None:
    found = of(grid())
    assert found["titles"] == ["Method", "Rate", "Seed"]
    accuracy, macs = found["objectives"]
    assert (accuracy["title"], macs["title"]) == ("Validation accuracy", "MACs")
    assert accuracy["importances"] == pytest.approx([1, 0, 0], abs=0.01)
    assert macs["importances"] == pytest.approx([0, 1, 0], abs=0.01)
    assert found["notes"][0].startswith("Of 18 finished trials.")
    assert found["notes"][1:] == ["One value alone: Model."]


def test_slices_are_optunas_with_every_trial() -> None:
    found = of(grid())
    method, rate, seed = found["objectives"][0]["slices"]
    assert json.loads(json.dumps(plain(found))) == found  # nothing but JSON
    points = set(zip(method["data"][0]["x"], method["data"][0]["y"], strict=True))
    assert points == {("l1", 90.0), ("lfp", 70.0), ("a&lt;b&gt;", 50.0)}
    assert len(method["data"][0]["x"]) == 18
    assert method["layout"]["xaxis"]["categoryarray"] == ["a&lt;b&gt;", "l1", "lfp"]
    assert sorted(set(rate["data"][0]["x"])) == [0.3, 0.5, 0.7]
    assert set(seed["data"][0]["x"]) == {"0", "1"}  # numbers without an order
    assert rate["layout"]["yaxis"]["title"]["text"] == "Validation accuracy (%)"


def test_too_few_trials_are_said() -> None:
    rows = grid()[: ENOUGH - 1]
    rows += [row | {"key": row["key"] + "f", "status": "failed"} for row in rows]
    found = of(rows)
    assert found["notes"] == ["Left out: 7 finished trials, and at least 8 are needed."]
    assert found["objectives"] == []
    assert of(grid()[:ENOUGH])["objectives"]


def test_nothing_that_varies_is_said() -> None:
    found = of(grid(), asked=["model"])
    assert (found["notes"], found["objectives"]) == (
        ["Left out: no dimension has two values among the finished trials."],
        [],
    )


def test_an_objective_without_variance_has_slices_alone() -> None:
    found = of([row | {"macs": 5} for row in grid()])
    assert found["objectives"][1]["importances"] is None
    assert len(found["objectives"][1]["slices"]) == 3
    assert "MACs is the same in all of them." in found["notes"]


def test_a_dimension_that_not_all_trials_have_is_left_out_of_the_importances() -> None:
    rows = [row | ({"allocation": row["seed"]} if row["method"] == "l1" else {}) for row in grid()]
    found = of(rows, asked=["method", "allocation"])
    assert found["titles"] == ["Method"]
    assert "Not asked of all trials, so without importance: Allocation." in found["notes"]
    assert [len(one["data"][0]["x"]) for one in found["objectives"][0]["slices"]] == [18, 6]


def test_a_large_study_is_sampled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimensions, "MOST", 12)
    found = of(grid())
    assert found["notes"][0].startswith("Of 12 of 18 finished trials.")
    assert len(found["objectives"][0]["slices"][0]["data"][0]["x"]) == 12
