"""Faults in the middle of a study: as many trials finish as without them, none twice, and each is one MLflow run."""

from __future__ import annotations

import csv
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rssearch.storage.journal import Journal
from tests.support.forked import Forked, start_driver
from tests.support.servers import PATIENCE, end_family

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PROJECT = Path(__file__).parents[2]
KILLS = 20


class Study:
    """A study of toy trials in a process of its own; the trials write down every epoch that they run.

    Args:
        folder: where everything is.
        address: of a running Ray.
        function: of `tests.support.toy`.
        space: of the study.
        options: settings.options beside the log.
        more: other keys of the YAML.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        function: str,
        space: dict[str, list[Any]],
        options: dict[str, Any],
        **more: Any,
    ) -> None:
        self.folder, self.address = folder, address
        self.log, self.console = folder / "epochs.log", folder / "console.log"
        document = {
            "study": "s",
            "trial": f"tests.support.toy:{function}",
            "space": space,
            "settings": {"options": {"log": str(self.log), **options}},
            "storage": str(folder / "results"),
            **more,
        }
        self.path = folder / "s.yaml"
        self.path.write_text(yaml.safe_dump(document))
        self._process: subprocess.Popen[bytes] | Forked | None = None

    def start(self, *, forked: bool = False) -> None:
        """Start its driver, or fork one, which takes a fraction of the time."""
        arguments = [str(self.path), "--address", self.address]
        with self.console.open("ab") as log:
            if forked:
                self._process = start_driver(arguments, log)
                return
            command = [sys.executable, str(PROJECT / "search.py"), *arguments]
            self._process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True)

    @property
    def text(self) -> str:
        return self.console.read_text(errors="replace")

    def running(self) -> bool:
        assert self._process is not None
        return self._process.poll() is None

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=400)

    def kill(self) -> None:
        """Kill the driver. Its writer of MLflow's record writes what it was told, and ends by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        if self._process is not None:
            end_family(self._process, signal.SIGKILL)

    def epochs(self) -> list[tuple[str, int]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def wait_for_epochs(self, count: int, at_most: float = float("inf")) -> None:
        started = time.monotonic()
        while len(self.epochs()) < count and self.running() and time.monotonic() - started < at_most:
            assert time.monotonic() - started < PATIENCE, self.text
            time.sleep(0.02)

    def journal(self) -> Journal:
        return Journal(self.folder / "results" / "s" / "trials.jsonl")

    def runs(self) -> dict[str, Any]:
        """MLflow's runs of trials by their key, of which each has one."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{self.folder}/results/mlflow.db")
        experiment = client.get_experiment_by_name("s")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id], filter_string="tags.`rssearch.kind` = 'trial'")
        keys = [run.data.tags["rssearch.key"] for run in found]
        assert len(keys) == len(set(keys)), Counter(keys)
        return dict(zip(keys, found, strict=True))

    def whole(self, trials: int) -> None:
        """As many trials as planned finished; every file can be read; MLflow has each once, with what it was worth."""
        records = self.journal().records
        assert Counter(record.status for record in records.values()) == {"finished": trials}
        folder = self.folder / "results" / "s"
        with (folder / "trials.csv").open() as file:
            assert {row["key"] for row in csv.DictReader(file)} == set(records)
        assert yaml.safe_load((folder / "study.yaml").read_text())["study"] == "s"
        for name in ("front.json", "environment.json"):
            json.loads((folder / name).read_text())
        runs = self.runs()
        assert runs.keys() == records.keys()
        for key, run in runs.items():
            assert run.info.status == "FINISHED"
            assert run.data.params == {name: str(value) for name, value in records[key].params.items()}
            expected = records[key].metrics
            assert {name: run.data.metrics[name] for name in expected} == expected


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.mark.timeout(1800)
def test_twenty_kills_of_the_driver_lose_nothing_and_double_nothing(address: str, tmp_path: Path) -> None:
    """At random moments: while it starts, between two trials, in the middle of an epoch, while files are written."""
    trials, epochs = 14, 10
    rates = [round(0.05 * n, 2) for n in range(1, trials + 1)]
    study = Study(tmp_path, address, "slow", {"rate": rates}, {"epochs": epochs, "seconds": 0.2})
    moments, before = random.Random(20), []
    try:
        for _ in range(KILLS):
            study.start(forked=True)
            if more := moments.choice([0, 1, 2, 4]):
                study.wait_for_epochs(len(study.epochs()) + more)
                time.sleep(moments.uniform(0, 0.3))
            else:
                # However fast the machine starts a driver: no kill comes later than after five epochs.
                study.wait_for_epochs(len(study.epochs()) + 5, at_most=moments.uniform(0, 8))
            assert study.running(), f"it ended too early to be killed {KILLS} times: {study.text}"
            study.kill()
            before.append((set(study.journal().records), len(study.epochs())))
        study.start()
        assert study.wait() == 0, study.text
    finally:
        study.end()
    study.whole(trials)
    ran = study.epochs()
    for keys, seen in before:
        # Workers outlive their driver for a moment: they may end the epoch that they were in.
        assert not keys & {key for key, _ in ran[seen + 2 :]}, "a finished trial ran again"
    times = Counter(ran)
    assert set(times) == {(key, epoch) for key in study.journal().records for epoch in range(1, epochs + 1)}
    assert sum(times.values()) - len(times) <= 2 * KILLS, "a kill costs at most the epoch in progress of each trial"
    with sqlite3.connect(tmp_path / "results" / "mlflow.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finished = [len(keys) for keys, _ in before]
    assert finished == sorted(finished), "a trial that had ended was lost"
    assert "is damaged" not in study.text
    assert "writer of MLflow's record died" not in study.text
    print(f"\n{KILLS} kills; trials finished before each: {finished}; epochs run twice: {len(ran) - len(times)}")


def test_training_that_runs_out_of_memory_goes_on_in_micro_batches(address: str, tmp_path: Path) -> None:
    study = Study(tmp_path, address, "cramped", {"limit": [5, 16, 1]}, {})
    try:
        study.start()
        assert study.wait() == 1, study.text
    finally:
        study.end()
    records = {record.point["limit"]: record for record in study.journal().records.values()}
    assert {limit: record.status for limit, record in records.items()} == {
        5: "finished",
        16: "finished",
        1: "failed",
    }
    assert records[1].reason.startswith("out of memory with 2 images at a time of the batch of 16")
    assert "out of memory with 8 images at a time; it resumes with 4 micro-batches for each batch" in study.text
    runs = study.runs()
    assert runs[records[5].key].data.metrics["micro_batches"] == 4
    assert "micro_batches" not in runs[records[16].key].data.metrics
    assert runs[records[1].key].info.status == "FAILED"


def test_a_worker_that_ray_kills_for_its_memory_goes_on_in_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._common.utils import get_system_memory
    from ray._private.utils import get_used_memory

    total = get_system_memory()
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{(get_used_memory() + (5 << 30)) / total:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    # Other tests take memory, too: a worker that died for theirs is started again.
    study = Study(tmp_path, "local", "greedy", {"most": [12]}, {}, resources={"max_failures": 8})
    try:
        study.start()
        assert study.wait() == 0, study.text
    finally:
        study.end()
    study.whole(1)
    (run,) = study.runs().values()
    assert run.data.metrics["macs"] == 1
    assert run.data.metrics["micro_batches"] in {2**n for n in range(1, 9)}  # 2, if no other test took memory
    assert "its worker died" in study.text


def test_lost_nodes_do_not_count_as_failures(tmp_path: Path) -> None:
    """Two nodes are lost one after the other and another comes each time; no failure at all is allowed."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    study = Study(
        tmp_path,
        cluster.address,
        "slow",
        {"rate": [0.1, 0.2, 0.3, 0.4]},
        {"epochs": 8, "seconds": 0.3},
        resources={"cpus": 1, "gpus": 1, "max_failures": 0},
    )
    try:
        node = cluster.add_node(num_cpus=2, num_gpus=2)
        study.start()
        for epochs in (5, 16):
            study.wait_for_epochs(epochs)
            cluster.remove_node(node, allow_graceful=False)
            node = cluster.add_node(num_cpus=2, num_gpus=2)
        assert study.wait() == 0, study.text
    finally:
        study.end()
        cluster.shutdown()
    study.whole(4)
    times = Counter(study.epochs())
    assert len(times) == 4 * 8
    assert sum(times.values()) - len(times) <= 4, (
        "a lost node costs at most the epoch in progress of each of its trials"
    )
    assert 2 <= study.text.count("its worker died") <= 4
