"""rssearch.tracking.views: a study's description and saved views as tags of its experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rssearch.config.loading import parse_study
from rssearch.config.space import parse_dimension
from rssearch.study.definition import StudyDefinition
from rssearch.tracking.client import Tracker, addresses, default_uri
from rssearch.tracking.views import FRONT, TRIALS, address, experiment_tags
from tests.tracking.test_client import found, record

SPACE = {
    "model": parse_dimension("model", "resnet20"),
    "method": parse_dimension("method", ["l1", "lfp"]),
    "rate": parse_dimension("rate", {"low": 0.1, "high": 0.9}),
}


def state(tags: dict[str, str], view: str) -> dict[str, Any]:
    saved = json.loads(tags[f"mlflow.sharedViewState.{view}"])
    assert isinstance(saved["createdAt"], int)
    return json.loads(saved["state"])


def test_the_views_show_what_varies_and_the_objectives_the_best_first() -> None:
    tags = experiment_tags("s", {"val_accuracy": "max", "macs": "min"}, SPACE)
    trials, front = state(tags, TRIALS), state(tags, FRONT)
    assert trials["selectedColumns"] == [
        *("metrics.`val_accuracy`", "metrics.`test_accuracy`", "metrics.`macs`"),
        *("params.`method`", "params.`rate`", "attributes.`Duration`"),
    ]
    assert (trials["orderByKey"], trials["orderByAsc"]) == ("metrics.`val_accuracy`", False)
    scatter, parallel, curves = trials["compareRunCharts"]
    assert (scatter["xaxis"]["key"], scatter["yaxis"]["key"]) == ("macs", "val_accuracy")
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (["method", "rate"], ["macs", "val_accuracy"])
    assert curves["metricKey"] == "val_accuracy"
    sections = {section["uuid"] for section in trials["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in trials["compareRunCharts"]} <= sections
    assert front == trials | {"searchFilter": "tags.`rssearch.pareto` = 'true'"}
    assert max(map(len, tags.values())) < 5000  # MLflow's limit


def test_one_objective_to_minimise_is_ordered_upwards() -> None:
    trials = state(experiment_tags("s", {"loss": "min"}, SPACE), TRIALS)
    assert (trials["orderByKey"], trials["orderByAsc"]) == ("metrics.`loss`", True)
    assert [chart["type"] for chart in trials["compareRunCharts"]] == ["PARALLEL", "LINE"]


def test_the_experiment_has_the_tags_and_the_ui_its_addresses(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tags = experiment_tags("s", {"val_accuracy": "max", "macs": "min"}, SPACE)
    for _ in range(2):
        tracker = Tracker(default_uri(tmp_path), "s", tmp_path / "mlartifacts")
        tracker.open()
        tracker.describe(tags)
        assert tracker.close([], status="FINISHED") == 0
    experiment = MlflowClient(tracking_uri=default_uri(tmp_path)).get_experiment_by_name("s")
    assert experiment is not None
    assert tags.items() <= experiment.tags.items()
    view = address("http://here:1", experiment.experiment_id)
    assert view.startswith(f"http://here:1/#/experiments/{experiment.experiment_id}/runs?")
    assert addresses(default_uri(tmp_path), "http://here:1") == [("s", view)]


def test_a_run_that_is_sent_later_lasts_as_long_as_its_trial(tmp_path: Path) -> None:
    tracker = Tracker(default_uri(tmp_path), "s", tmp_path / "mlartifacts")
    tracker.open()
    assert tracker.close([record("a", started=1000.5, ended=1004.0)], status="FINISHED") == 0
    run = found(tmp_path)["a"]
    assert (run.info.start_time, run.info.end_time) == (1_000_500, 1_004_000)


def test_trials_put_away_leave_the_front_and_the_view_of_trials(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tags = experiment_tags("s", {"val_accuracy": "max", "macs": "min"}, SPACE)
    for keys in (["old", "older"], ["new"]):
        tracker = Tracker(default_uri(tmp_path), "s", tmp_path / "mlartifacts")
        tracker.open()
        if keys == ["new"]:
            tracker.supersede()
        assert tracker.close([record(key) for key in keys], status="FINISHED", pareto=keys[:1]) == 0
    client = MlflowClient(tracking_uri=default_uri(tmp_path))
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    for view in (TRIALS, FRONT):
        shown = client.search_runs([experiment.experiment_id], filter_string=state(tags, view)["searchFilter"])
        assert [run.data.tags["rssearch.key"] for run in shown] == ["new"]


def test_names_of_runs_have_numbers_that_people_can_read() -> None:
    space = {"rate": {"low": 0.1, "high": 0.9}, "lr": {"low": 1e-6, "high": 0.1, "log": True}, "seed": [0, 1]}
    search = {"sampler": "random", "trials": 1}
    definition = StudyDefinition(
        parse_study({"study": "s", "trial": "tests.support.toy:plain", "space": space, "search": search})
    )
    title = definition.title({"rate": 0.448691940213, "lr": 4.523148049e-05, "seed": 1})
    assert title == "rate=0.4487 lr=4.523e-05 seed=1"
