"""rssearch.trials.outlays: epochs of the whole network, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rssearch.config.settings import Settings
from rssearch.trials.outlays import outlay

SETTINGS: dict[str, Any] = {
    "train": {"epochs": 10},
    "finetune": {"epochs": 4},
    "slimmable": {"epochs": 3, "budgets": [0.5, 0.25, 0.1]},
}


def points(*methods: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"dataset": "synthetic", "model": "resnet20", "method": method, "macs_ratio": ratio, "seed": seed, **more}
        for method in methods
        for ratio in (0.5, 0.25)
        for seed in (0, 1)
    ]


def test_ways_to_a_front_are_told_by_what_they_train() -> None:
    study = points("l1", "scratch", "rewind", "channel_nas", "slimmable", "none")
    found = outlay(study, Settings.model_validate(SETTINGS))
    assert found == pytest.approx(
        {
            "scratch": 0.75 * 10,
            "l1": 10 + 0.75 * 4,
            "slimmable": 10 + 0.75 * 3 + 0.75 * 4,
            "rewind": 10 + 0.75 * 10,
            "channel_nas": 10 + 2 * 10 * 2 + 0.75 * 4,
        }
    )
    assert list(found) == ["scratch", "l1", "slimmable", "rewind", "channel_nas"]


def test_one_search_may_serve_all_budgets() -> None:
    settings = Settings.model_validate(SETTINGS | {"nas": {"target": 0.3}})
    assert outlay(points("channel_nas"), settings)["channel_nas"] == 10 + 2 * 10 + 0.75 * 4


def test_a_sandwich_trains_its_widths_in_each_step() -> None:
    sandwich = {"form": "sandwich", "epochs": 2, "structures": 2, "budgets": [0.5, 0.2]}
    found = outlay(points("slimmable"), Settings.model_validate(SETTINGS | {"slimmable": sandwich}))
    assert found["slimmable"] == pytest.approx(10 + 2 * (0.2 + 2 * 0.6 + 1 / 3) + 0.75 * 4)


def test_from_scratch_is_no_way_where_weights_are_given() -> None:
    given = SETTINGS | {"train": {"epochs": 0}, "model": {"weights": "IMAGENET1K_V1"}}
    settings = Settings.model_validate(given)
    study = [point | {"model": "resnet18"} for point in points("l1")]
    assert outlay(study, settings) == {"l1": 3.0}


def test_sizes_that_follow_from_scores_are_not_guessed() -> None:
    by_rate = [{"dataset": "synthetic", "model": "resnet20", "method": "compound", "rate": 0.5}]
    assert outlay(by_rate, Settings.model_validate(SETTINGS)) == {}
