"""A driver that is killed: the same command goes on, nothing is lost, nothing runs twice."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rssearch.storage.journal import Journal
from tests.support.forked import Forked, start_driver

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PROJECT = Path(__file__).parents[2]
TRIALS, EPOCHS = 6, 4


def write_study(tmp_path: Path, seconds: float) -> Path:
    document: dict[str, Any] = {
        "study": "s",
        "trial": "tests.support.toy:slow",
        "space": {"rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
        "settings": {"options": {"log": str(tmp_path / "epochs.log"), "epochs": EPOCHS, "seconds": seconds}},
        "resources": {"max_concurrent": 2},
        "storage": str(tmp_path / "results"),
    }
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def start(path: Path, *, forked: bool = False) -> subprocess.Popen[bytes] | Forked:
    """Start a driver with a Ray of its own, or fork one, which takes a fraction of the time."""
    arguments = [str(path), "--address", "local"]
    command = [sys.executable, str(PROJECT / "search.py"), *arguments]
    with (path.parent / "console.log").open("ab") as log:
        if forked:
            return start_driver(arguments, log)
        return subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True)


def epochs(tmp_path: Path) -> list[tuple[str, int]]:
    log = tmp_path / "epochs.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def wait_for_epochs(tmp_path: Path, count: int, process: subprocess.Popen[bytes] | Forked) -> None:
    deadline = time.monotonic() + 300
    while len(epochs(tmp_path)) < count:
        assert process.poll() is None, (tmp_path / "console.log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "console.log").read_text()
        time.sleep(0.02)


def children_end(pids: list[psutil.Process]) -> None:
    """Ray's processes end with their driver; help those along that take their time."""
    _, alive = psutil.wait_procs(pids, timeout=20)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=10)


def mlflow_runs(tmp_path: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/results/mlflow.db")
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return [run for run in found if run.data.tags["rssearch.kind"] == "trial"]


def test_three_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    path = write_study(tmp_path, seconds=0.5)
    finished_before: list[tuple[set[str], int]] = []
    kills = 0
    for more in (3, 6, 5):
        process = start(path, forked=kills > 0)
        wait_for_epochs(tmp_path, len(epochs(tmp_path)) + more, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        kills += 1
        children_end(family)
        journal = Journal(tmp_path / "results" / "s" / "trials.jsonl")
        finished_before.append((set(journal.records), len(epochs(tmp_path))))
    process = start(path, forked=True)
    assert process.wait(timeout=400) == 0, (tmp_path / "console.log").read_text()

    journal = Journal(tmp_path / "results" / "s" / "trials.jsonl")
    assert len(journal.records) == TRIALS
    assert {record.status for record in journal.records.values()} == {"finished"}
    with (tmp_path / "results" / "s" / "trials.csv").open() as file:
        assert {row["key"] for row in csv.DictReader(file)} == set(journal.records)

    ran = epochs(tmp_path)
    for keys, seen in finished_before:
        assert not keys & {key for key, _ in ran[seen:]}, "a finished trial ran again"
    times = Counter(ran)
    assert set(times) == {(key, epoch) for key in journal.records for epoch in range(1, EPOCHS + 1)}
    # A kill costs at most the epoch in progress of each of the two trials that ran.
    assert sum(times.values()) - len(times) <= 2 * kills
    assert any(record.metrics["resumed_from"] > 0 for record in journal.records.values())

    runs = mlflow_runs(tmp_path)
    assert sorted(run.data.tags["rssearch.key"] for run in runs) == sorted(journal.records)
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        record = journal.records[run.data.tags["rssearch.key"]]
        assert run.data.metrics["val_accuracy"] == record.metrics["val_accuracy"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_cleanly_and_the_study_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    path = write_study(tmp_path, seconds=0.3)
    process = start(path)
    wait_for_epochs(tmp_path, 3, process)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, number)
    assert process.wait(timeout=120) == 130, (tmp_path / "console.log").read_text()
    children_end(family)
    console = (tmp_path / "console.log").read_text()
    assert "interrupted" in console
    assert "Traceback" not in console
    assert all(run.info.status != "RUNNING" for run in mlflow_runs(tmp_path))
    process = start(path, forked=True)
    assert process.wait(timeout=400) == 0, (tmp_path / "console.log").read_text()
    assert len(Journal(tmp_path / "results" / "s" / "trials.jsonl").records) == TRIALS
    assert len(mlflow_runs(tmp_path)) == TRIALS
