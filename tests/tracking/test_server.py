"""Studies that record on an MLflow server with PostgreSQL, and what happens when one of them is away."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.storage.journal import Journal
from rssearch.storage.records import Status, TrialRecord
from rssearch.study import run as study
from rssearch.tracking.client import Tracker
from tests.support.servers import MlflowServer, Postgres, end_family, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PROJECT = Path(__file__).parents[2]
STUDIES = 8


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    made = Postgres(tmp_path_factory.mktemp("postgres"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("mlflow"), postgres.uri)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def document(name: str, tmp_path: Path, uri: str, gated: bool = False) -> dict[str, Any]:
    """A study of four trials; if it is gated, they get past their second epoch once a file is there."""
    options = {"log": str(tmp_path / f"{name}.log"), "epochs": 4, "seconds": 0.2}
    return {
        "study": name,
        "trial": "tests.support.toy:slow",
        "space": {"rate": [0.1, 0.2, 0.3, 0.4]},
        "settings": {"options": options | ({"gate": str(tmp_path / "gate")} if gated else {})},
        "storage": str(tmp_path / "results"),
        "tracking_uri": uri,
    }


class Meanwhile:
    """Does something in a thread once a study's trials have run some epochs; the `with` block hands its error on."""

    def __init__(self, log: Path, *steps: tuple[int, Callable[[], None]]) -> None:
        self._log, self._steps = log, steps
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for epochs, action in self._steps:
                wait_until(lambda: self._epochs() >= epochs, f"{epochs} epochs", self._log)  # noqa: B023
                action()
        except BaseException as error:  # noqa: BLE001
            self._error = error

    def _epochs(self) -> int:
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error


def run(config: dict[str, Any]) -> str:
    text = StringIO()
    assert study.search(parse_study(config), console=Console(file=text, width=200)) == 0, text.getvalue()
    return text.getvalue()


def complete(config: dict[str, Any]) -> None:
    """MLflow holds what the journal holds, and each trial once."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=config["tracking_uri"])
    experiment = client.get_experiment_by_name(config["study"])
    assert experiment is not None
    runs = {run.data.tags["rssearch.key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(client.search_runs([experiment.experiment_id]))
    summary = runs.pop(f"study:{config['study']}")
    records = Journal(Path(config["storage"]) / config["study"] / "trials.jsonl").records
    assert len(records) == len(config["space"]["rate"])
    assert runs.keys() == records.keys()
    for key, record in records.items():
        run = runs[key]
        assert (run.info.status, run.info.lifecycle_stage) == ("FINISHED", "active")
        assert run.data.params == {"rate": str(record.point["rate"])}
        assert {name: run.data.metrics[name] for name in record.metrics} == record.metrics
        assert run.data.tags["rssearch.status"] == "finished"
        epochs = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "epoch")]
        assert sorted(epochs) == [(epoch["epoch"], epoch["epoch"]) for epoch in record.history]
        best = max(epoch["val_accuracy"] for epoch in record.history)
        assert run.data.metrics["best/val_accuracy"] == best
    assert any(run.data.tags["rssearch.pareto"] == "true" for run in runs.values())
    assert summary.info.status == "FINISHED"
    assert summary.data.metrics["trials_finished"] == len(records)
    names = {item.path for item in client.list_artifacts(summary.info.run_id)}
    assert {"front.html", "front.csv", "trials.csv", "study.yaml"} <= names


def test_results_wait_for_a_server_that_does_not_come_back_before_the_end(
    local_ray: str, server: MlflowServer, tmp_path: Path
) -> None:
    config = document("gone", tmp_path, server.uri, gated=True)
    try:
        with Meanwhile(tmp_path / "gone.log", (3, server.stop), (3, (tmp_path / "gate").touch)):
            text = run(config)
    finally:
        server.start()
    assert "MLflow was away: 4 runs wait in " in text
    assert "MLflow was away" not in run(config)
    complete(config)
    run(config)
    complete(config)


def test_a_server_that_returns_while_the_study_runs(local_ray: str, server: MlflowServer, tmp_path: Path) -> None:
    config = document("back", tmp_path, server.uri, gated=True)
    steps = [(3, server.stop), (4, server.start), (4, (tmp_path / "gate").touch)]
    with Meanwhile(tmp_path / "back.log", *steps):
        text = run(config)
    assert "MLflow was away" not in text
    complete(config)


def test_a_database_that_is_stopped_and_started(
    local_ray: str, server: MlflowServer, postgres: Postgres, tmp_path: Path
) -> None:
    config = document("database", tmp_path, server.uri, gated=True)
    steps = [(3, postgres.stop), (4, lambda: time.sleep(5)), (4, postgres.start), (4, (tmp_path / "gate").touch)]
    with Meanwhile(tmp_path / "database.log", *steps):
        text = run(config)
    assert "MLflow was away" not in text
    complete(config)


def test_eight_studies_at_once_on_one_server(local_ray: str, server: MlflowServer, tmp_path: Path) -> None:
    configs = [document(f"study{n}", tmp_path, server.uri) | {"resources": {"cpus": 0.25}} for n in range(STUDIES)]
    processes, logs = [], []
    try:
        for config in configs:
            path, log = tmp_path / f"{config['study']}.yaml", tmp_path / f"{config['study']}.txt"
            path.write_text(yaml.safe_dump(config))
            command = [sys.executable, str(PROJECT / "search.py"), str(path), "--address", local_ray]
            with log.open("wb") as out:
                processes.append(subprocess.Popen(command, cwd=PROJECT, stdout=out, stderr=out, start_new_session=True))
            logs.append(log)
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=400) == 0, log.read_text()
            assert "MLflow" in log.read_text()
            assert "does not take results" not in log.read_text()
    finally:
        for process in processes:
            end_family(process, signal.SIGKILL)
    for config in configs:
        complete(config)


def test_eight_writers_meet_in_an_empty_database(postgres: Postgres, tmp_path: Path) -> None:
    """MLflow makes its tables at the first touch, where all but one of the others meet errors."""
    from mlflow import MlflowClient

    uri = postgres.database("empty")
    writers = [Tracker(uri, f"study{n}", tmp_path) for n in range(STUDIES)]
    keys = [f"trial{n}" for n in range(5)]
    for writer in writers:
        writer.open()
        for key in keys:
            for epoch in (1, 2, 3):
                writer.epoch(key, key, {"rate": 0.5}, {"epoch": epoch, "loss": 1 / epoch}, epoch)
    records = [
        TrialRecord(
            key, {"rate": 0.5}, Status.FINISHED, title=key, params={"rate": 0.5}, metrics={"val_accuracy": 0.5},
            history=[{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)], ended=time.time(),
        )
        for key in keys
    ]  # fmt: skip
    closed = [writer.close(records, status="FINISHED") for writer in writers]
    assert closed == [0] * STUDIES
    client = MlflowClient(tracking_uri=uri)
    for n in range(STUDIES):
        experiment = client.get_experiment_by_name(f"study{n}")
        runs = client.search_runs([experiment.experiment_id])
        assert Counter(run.data.tags["rssearch.key"] for run in runs) == Counter([*keys, f"study:study{n}"])
        for run in runs:
            history = client.get_metric_history(run.info.run_id, "loss")
            assert len(history) == (3 if run.data.tags["rssearch.kind"] == "trial" else 0)
