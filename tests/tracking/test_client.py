"""rssearch.tracking: one run for each trial, whatever happens in between."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rssearch.storage.records import TrialRecord
from rssearch.tracking import client as tracking
from rssearch.tracking import runs
from rssearch.tracking.client import Tracker, default_uri
from tests.support.databases import put_into


def tracker(tmp_path: Path, uri: str | None = None) -> Tracker:
    put_into(tmp_path)
    made = Tracker(uri or default_uri(tmp_path), "s", tmp_path / "mlartifacts" / "s")
    made.open()
    return made


@pytest.fixture
def started_writers(start_real_writer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers are started as outside of tests."""
    monkeypatch.setattr(tracking, "start_writer", start_real_writer)


def record(key: str, status: str = "finished", epochs: int = 3, **more: Any) -> TrialRecord:
    line = {
        "kind": "trial",
        "key": key,
        "title": f"trial {key}",
        "point": {"rate": 0.5},
        "params": {"rate": 0.5},
        "status": status,
        "reason": None if status == "finished" else "why",
        "metrics": {"val_accuracy": 0.75, "macs": 100, "macs_counter": "thop", "unknown": None},
        "best": {"best/val_accuracy": 0.8},
        "history": [{"epoch": e, "val_accuracy": e / 4} for e in range(1, epochs + 1)],
        "ended": time.time(),
        **more,
    }
    return TrialRecord.from_json(line)


def found(tmp_path: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(tmp_path))
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    keys = Counter(run.data.tags["rssearch.key"] for run in runs)
    assert max(keys.values()) == 1
    return {run.data.tags["rssearch.key"]: run for run in runs}


def steps(tmp_path: Path, run: Any, metric: str = "epoch") -> list[int]:
    from mlflow import MlflowClient

    return [
        m.step for m in MlflowClient(tracking_uri=default_uri(tmp_path)).get_metric_history(run.info.run_id, metric)
    ]


@pytest.mark.usefixtures("started_writers")
def test_a_trial_is_one_run_with_params_epochs_and_final_metrics(tmp_path: Path) -> None:
    writer = tracker(tmp_path)
    for epoch in (1, 2, 3):
        writer.epoch("k", "trial k", {"rate": 0.5}, {"epoch": epoch, "val_accuracy": epoch / 4}, epoch)
    done = record("k")
    writer.ended(done)
    assert writer.close([done], status="FINISHED", pareto={"k"}, metrics={"front_size": 1}, note="| a | b |") == 0
    run = found(tmp_path)["k"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "trial k")
    assert run.data.params == {"rate": "0.5"}
    assert run.data.metrics == {"epoch": 3, "val_accuracy": 0.75, "macs": 100, "best/val_accuracy": 0.8}
    assert steps(tmp_path, run) == [1, 2, 3]
    assert run.data.tags["rssearch.pareto"] == "true"
    summary = found(tmp_path)["study:s"]
    assert summary.data.metrics["front_size"] == 1
    assert summary.data.tags["mlflow.note.content"].startswith("What concerns the whole study.")
    assert summary.data.tags["mlflow.note.content"].endswith("\n\n| a | b |")
    assert summary.info.status == "FINISHED"


def test_epochs_that_a_killed_driver_did_not_send_are_sent_at_the_end(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    first.epoch("k", "trial k", {"rate": 0.5}, {"epoch": 1, "val_accuracy": 0.25}, 1)
    _drain(first)  # the driver is killed here: no close
    assert found(tmp_path)["k"].info.status == "RUNNING"
    second = tracker(tmp_path)
    second.epoch("k", "trial k", {"rate": 0.5}, {"epoch": 3, "val_accuracy": 0.75}, 3)
    done = record("k")
    second.ended(done)
    second.close([done], status="FINISHED")
    run = found(tmp_path)["k"]
    assert sorted(steps(tmp_path, run)) == [1, 2, 3]
    assert run.info.status == "FINISHED"


def test_the_final_value_is_shown_though_a_killed_driver_sent_more_epochs_than_it_wrote_down(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    first.epoch("k", "trial k", {"rate": 0.5}, {"epoch": 3, "val_accuracy": 0.99}, 3)
    _drain(first)  # the trial had its last checkpoint: it ends without another epoch
    second = tracker(tmp_path)
    done = record("k", epochs=0)
    second.ended(done)
    second.close([done], status="FINISHED")
    assert found(tmp_path)["k"].data.metrics["val_accuracy"] == 0.75


def _drain(writer: Tracker) -> None:
    """The driver is gone: the writer writes what it was told, and ends without closing anything."""
    writer._end()


def test_runs_left_running_are_closed_at_the_next_start(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    first.epoch("gone", "trial gone", {}, {"epoch": 1}, 1)
    _drain(first)
    tracker(tmp_path).close([], status="FINISHED")
    assert found(tmp_path)["gone"].info.status == "KILLED"


def test_trials_under_way_are_closed_when_the_session_ends(tmp_path: Path) -> None:
    writer = tracker(tmp_path)
    writer.epoch("open", "trial open", {}, {"epoch": 1}, 1)
    writer.close([], status="KILLED")
    assert {key: run.info.status for key, run in found(tmp_path).items()} == {"open": "KILLED", "study:s": "KILLED"}


def test_a_record_that_mlflow_lacks_is_sent_once(tmp_path: Path) -> None:
    records = [record("a"), record("b", status="failed"), record("c", epochs=0)]
    tracker(tmp_path).close(records, status="FINISHED")
    tracker(tmp_path).close(records, status="FINISHED")
    runs = found(tmp_path)
    assert set(runs) == {"a", "b", "c", "study:s"}
    assert runs["b"].info.status == "FAILED"
    assert runs["b"].data.tags["rssearch.reason"] == "why"
    assert steps(tmp_path, runs["a"], "macs") == [3]
    assert steps(tmp_path, runs["c"], "macs") == [0]


def test_a_trial_that_failed_and_then_finished_is_one_run(tmp_path: Path) -> None:
    tracker(tmp_path).close([record("a", status="failed")], status="FINISHED")
    tracker(tmp_path).close([record("a")], status="FINISHED")
    run = found(tmp_path)["a"]
    assert (run.info.status, run.data.tags["rssearch.status"]) == ("FINISHED", "finished")


def test_the_front_moves(tmp_path: Path) -> None:
    records = [record("a"), record("b")]
    tracker(tmp_path).close(records, status="FINISHED", pareto={"a"})
    tracker(tmp_path).close(records, status="FINISHED", pareto={"b"})
    runs = found(tmp_path)
    assert (runs["a"].data.tags["rssearch.pareto"], runs["b"].data.tags["rssearch.pareto"]) == ("false", "true")


def artifacts(tmp_path: Path, key: str) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(tmp_path))
    return [file.path for file in client.list_artifacts(found(tmp_path)[key].info.run_id)]


def test_a_picture_is_attached_to_its_run_once(tmp_path: Path) -> None:
    from mlflow.artifacts import load_text

    picture = tmp_path / "a.png"
    for text in ("first", "second"):
        picture.write_text(text)
        tracker(tmp_path).close([record("a"), record("b")], status="FINISHED", pareto={"a"}, pictures={"a": picture})
    assert artifacts(tmp_path, "a") == ["predictions.png"]
    assert artifacts(tmp_path, "b") == []
    assert load_text(f"{found(tmp_path)['a'].info.artifact_uri}/predictions.png") == "first"


def test_files_of_members_and_baselines_are_attached_to_their_runs(tmp_path: Path) -> None:
    paths = [tmp_path / "confusion.csv", tmp_path / "per_class.csv"]
    for path in paths:
        path.write_text(path.name)
    records = [record("a"), record("baseline-x", kind="baseline")]
    for some in (paths[:1], paths, paths):  # what is there stays
        members = {"a": some, "baseline-x": some, "baseline-of-another-study": some}
        assert tracker(tmp_path).close(records, status="FINISHED", pareto={"a"}, members=members) == 0
    assert artifacts(tmp_path, "a") == artifacts(tmp_path, "baseline-x") == ["confusion.csv", "per_class.csv"]


def test_a_picture_that_mlflow_lacks_is_sent_by_the_next_session(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    tracker(tmp_path).close([record("a")], status="FINISHED", pareto={"a"})
    assert artifacts(tmp_path, "a") == []
    picture.write_text("picture")
    assert tracker(tmp_path).close([record("a")], status="FINISHED", pareto={"a"}, pictures={"a": picture}) == 0
    assert artifacts(tmp_path, "a") == ["predictions.png"]


def test_long_histories_travel_in_several_batches(tmp_path: Path) -> None:
    done = record("long", epochs=700)
    tracker(tmp_path).close([done], status="FINISHED")
    assert steps(tmp_path, found(tmp_path)["long"]) == list(range(1, 701))


def test_a_server_that_is_away_is_told_once_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    writer = tracker(tmp_path, "http://127.0.0.1:9")  # nobody listens
    records = [record("a"), record("b")]
    for each in records:
        writer.ended(each)
    assert writer.close(records, status="FINISHED") == 2
    assert sum("does not take results" in line for line in caplog.messages) <= 2  # the first, and the last try
    assert tracker(tmp_path).close(records, status="FINISHED") == 0
    assert set(found(tmp_path)) == {"a", "b", "study:s"}


@pytest.mark.usefixtures("started_writers")
def test_a_writer_that_dies_is_told_and_nothing_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = tracker(tmp_path)
    writer._process.kill()
    records = [record("a"), record("b")]
    writer.ended(records[0])
    assert writer.close(records, status="FINISHED") == 2
    assert "the writer of MLflow's record died" in caplog.text
    assert writer.left(2, tmp_path) == (
        f"MLflow was away: 2 runs wait in {tmp_path}; the next `rssearch search` sends them"
    )
    assert tracker(tmp_path).close(records, status="FINISHED") == 0
    assert set(found(tmp_path)) == {"a", "b", "study:s"}


@pytest.mark.usefixtures("started_writers")
def test_a_writer_that_hangs_is_waited_for_with_a_word_and_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "_WORD", 1.0)
    monkeypatch.setattr(tracking, "_SILENCE", 2.0)
    writer = tracker(tmp_path)
    os.kill(writer._process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        assert writer.close([record("a")], status="FINISHED") == 1
    finally:
        writer._process.kill()  # a stopped process would outlive a failure
    assert time.monotonic() - begun < 20
    assert "waiting for MLflow, which has 0 runs by now; at most " in caplog.text
    assert "is too slow: its writer is stopped" in caplog.text


def test_runs_that_are_there_are_not_said_to_wait(tmp_path: Path) -> None:
    """The front's files cannot be sent: in the place of the artifacts is a file."""
    records = [record("a"), record("b")]
    picture = tmp_path / "a.png"
    picture.write_text("picture")
    (tmp_path / "mlartifacts").touch()
    writer = tracker(tmp_path)
    unsent = writer.close(records, status="FINISHED", pareto={"a"}, pictures={"a": picture})
    assert unsent == 0
    assert writer.left(unsent, tmp_path) == (
        "MLflow was away at the end: every run was sent; the next `rssearch search` sends this session's files"
    )
    (tmp_path / "mlartifacts").unlink()
    writer = tracker(tmp_path)
    assert writer.close(records, status="FINISHED", pareto={"a"}, pictures={"a": picture}) == 0
    assert writer.left(0, tmp_path) is None
    assert artifacts(tmp_path, "a") == ["predictions.png"]


def test_a_database_that_is_damaged_meanwhile_is_said_at_once_and_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put_into(tmp_path)
    path.write_bytes(b"noise" * 5000)
    writer = tracker(tmp_path)
    unsent = writer.close([record("a")], status="FINISHED")
    assert unsent == 1
    problem = f"MLflow's database {path} cannot be used: file is not a database. Move it away (with mlflow.db-journal"
    assert f"does not take results ({problem}" in caplog.text
    assert "they stay in the journal until this is mended" in caplog.text
    left = writer.left(unsent, tmp_path / "trials.jsonl")
    assert left is not None
    assert left.startswith(f"MLflow does not take results, and will not until this is mended: {problem}")
    assert left.endswith(f"; 1 run waits in {tmp_path}/trials.jsonl")
    path.rename(tmp_path / "away.db")  # the remedy
    assert tracker(tmp_path).close([record("a")], status="FINISHED") == 0


def test_default_uri_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_uri("results") == f"sqlite:///{tmp_path}/results/mlflow.db"
    assert runs.RUN_STATUS["infeasible"] == "FINISHED"
