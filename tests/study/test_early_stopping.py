"""Early stopping on Ray Tune: a whole study, what is recorded of it, and what a later session does."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.storage.journal import Journal
from rssearch.study import run as study
from tests.support.databases import put_into

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True, scope="module")
def _ray() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def make(folder: Path, rule: Any) -> StudyConfig:
    return parse_study(
        {
            "study": "s",
            "trial": "tests.support.toy:counted",
            "space": {"rate": [0.9, 0.5, 0.7, 0.95]},
            "settings": {"options": {"log": str(folder / "epochs")}},
            "search": {"early_stopping": rule},
            "storage": str(folder),
        }
    )


def run(config: StudyConfig) -> tuple[int, str]:
    text = io.StringIO()
    put_into(Path(config.storage))
    return study.search(config, console=Console(file=text, width=200)), text.getvalue()


def test_trials_are_stopped_recorded_and_not_run_again(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    config = make(tmp_path, {"rule": "asha", "factor": 2})
    status, text = run(config)
    assert status == 0
    assert "4 of 4" not in text
    assert "2 of 4 done, 2 stopped" in text
    # One slot, so that the order is known. After the first epoch 0.9 is the best of one, 0.5 not the best of two, 0.7
    # among the best two of three; after the second one 0.7 is not the best of two.
    ran = [line.split() for line in (tmp_path / "epochs").read_text().splitlines()]
    assert [(rate, epoch) for rate, epoch, _ in ran] == [
        ("0.9", "1"), ("0.9", "2"), ("0.9", "3"), ("0.5", "1"), ("0.7", "1"), ("0.7", "2"),
        ("0.95", "1"), ("0.95", "2"), ("0.95", "3"),
    ]  # fmt: skip
    assert len({process for *_, process in ran}) == 1  # the worker of a stopped trial runs the next one
    with (tmp_path / "s" / "trials.csv").open() as file:
        rows = {row["rate"]: row for row in csv.DictReader(file)}
    assert {rate: row["status"] for rate, row in rows.items()} == {
        "0.9": "finished", "0.5": "stopped", "0.7": "stopped", "0.95": "finished",
    }  # fmt: skip
    assert rows["0.7"]["reason"] == "asha: not among the best after epoch 2"
    assert float(rows["0.7"]["val_accuracy"]) == 0.7 * 2 / 3
    assert rows["0.7"]["epoch"] == "2"
    assert not list((tmp_path / "store").rglob("checkpoint*.pt"))

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    found = {
        r.data.params["rate"]: r for r in client.search_runs([experiment.experiment_id]) if "rate" in r.data.params
    }
    assert {rate: (r.info.status, r.data.tags["rssearch.status"]) for rate, r in found.items()} == {
        "0.9": ("FINISHED", "finished"), "0.5": ("FINISHED", "stopped"),
        "0.7": ("FINISHED", "stopped"), "0.95": ("FINISHED", "finished"),
    }  # fmt: skip
    history = client.get_metric_history(found["0.7"].info.run_id, "val_accuracy")
    assert sorted({(m.step, m.value) for m in history}) == [(1, 0.7 / 3), (2, 1.4 / 3)]
    assert found["0.7"].data.tags["rssearch.pareto"] == "false"

    before = Journal(tmp_path / "s" / "trials.jsonl").records
    assert run(config)[0] == 0
    assert Journal(tmp_path / "s" / "trials.jsonl").records == before
    plan = study.plan(config)
    assert (plan.trials, plan.finished, plan.stopped) == (4, 2, 2)

    assert run(make(tmp_path, "none"))[0] == 0  # without a rule they are trained to their end
    assert [line.split()[:2] for line in (tmp_path / "epochs").read_text().splitlines()][len(ran) :] == [
        ["0.5", "1"], ["0.5", "2"], ["0.5", "3"], ["0.7", "1"], ["0.7", "2"], ["0.7", "3"],
    ]  # fmt: skip
    assert {r.status for r in Journal(tmp_path / "s" / "trials.jsonl").records.values()} == {"finished"}
