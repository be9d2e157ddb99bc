"""Latency as an objective and a constraint of a study: what is run, refused and recorded."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from rssearch.backend.stop import Stop
from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.config.space import content_key
from rssearch.sampling.sampler import CAPABILITIES, Proposer
from rssearch.storage.journal import Journal
from rssearch.storage.records import Status
from rssearch.study import run as study
from rssearch.study.definition import StudyDefinition
from rssearch.study.stages import Stages
from tests.support.databases import put_into

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

SLOW = {"latency_ms": {"max": 6.5}}


def make(folder: Path, **search: Any) -> StudyConfig:
    axis = {"low": 0.1, "high": 0.9, "step": 0.1}
    depth = axis if search["sampler"] == "cmaes" else [1.0]  # which needs two dimensions
    return parse_study(
        {
            "study": "s",
            "trial": "tests.support.timed:run",
            "space": {"rate": axis, "depth": depth},
            "search": {"trials": 5, "objectives": {"val_accuracy": "max", "latency_ms": "min"}, **search},
            "settings": {"options": {"log": str(folder / "trained")}},
            "resources": {"max_concurrent": 1},  # a worker starts for longer than they run
            "storage": str(folder),
        }
    )


def run(config: StudyConfig) -> list[dict[str, Any]]:
    """The records of a study's trials."""
    put_into(Path(config.storage))
    assert study.search(config, console=Console(file=io.StringIO(), width=200)) == 0
    return list(Journal(Path(config.storage) / "s" / "trials.jsonl").records.values())


@pytest.mark.parametrize("sampler", [name for name in CAPABILITIES if name != "grid"])
def test_every_sampler_serves_it_and_what_is_refused_costs_no_budget(tmp_path: Path, sampler: str) -> None:
    objectives = {"latency_ms": "min"} if sampler == "cmaes" else {"val_accuracy": "max", "latency_ms": "min"}
    config = make(tmp_path, sampler=sampler, objectives=objectives, constraints=SLOW)
    proposer = Proposer(config.space, config.search, key_of=content_key)
    ended: list[str] = []
    while (proposed := proposer.ask()) is not None:
        key, point = proposed
        metrics = {"latency_ms": 10 * (1 - point["rate"])}
        if metrics["latency_ms"] > 6.5:
            ended.append(proposer.tell(key, Status.INFEASIBLE, metrics).status)
        else:
            ended.append(proposer.tell(key, Status.FINISHED, metrics | {"val_accuracy": point["rate"]}).status)
    assert ended.count("finished") == 5
    assert set(ended) <= {"finished", "infeasible"}


def test_slow_networks_are_not_trained(tmp_path: Path) -> None:
    records = run(make(tmp_path, sampler="grid", constraints=SLOW))
    finished = {r.key for r in records if r.status == "finished"}
    assert len(records) == 9
    for record in records:
        metrics = record.metrics
        assert metrics["latency_ms"] == pytest.approx(10 * (1 - record.point["rate"]))
        assert record.status == ("finished" if metrics["latency_ms"] <= 6.5 else "infeasible")
        assert ("val_accuracy" in metrics) == (record.status == "finished")
    assert set((tmp_path / "trained").read_text().split()) == finished
    assert len(finished) == 6


def test_early_stopping_judges_by_it(tmp_path: Path) -> None:
    config = make(tmp_path, sampler="random", trials=8, early_stopping="moasha")
    records = run(config)
    assert {r.status for r in records} == {"finished", "stopped"}
    for record in records:
        assert all(epoch["latency_ms"] == record.metrics["latency_ms"] for epoch in record.history)


def test_the_front_is_measured_again_for_a_runtime_that_is_listed_later(tmp_path: Path) -> None:
    objectives = {"val_accuracy": "max", "macs": "min"}
    config = make(tmp_path, sampler="random", objectives=objectives)
    first = {r.key: r for r in run(config)}
    listed = config.settings.model_copy(
        update={"latency": config.settings.latency.model_copy(update={"batches": (1, 8)})}
    )
    second = {r.key: r for r in run(config.model_copy(update={"settings": listed}))}
    assert first.keys() == second.keys()
    for key, record in first.items():
        assert record.ended == second[key].ended  # no trial ran again
        if record.measured:
            assert record.measured == {"latency_ms": 1.0}
            assert second[key].measured == {"latency_ms": 1.0, "latency_ms_eager_b8": 8.0}
    assert any(record.measured for record in first.values())


def test_a_record_of_an_earlier_version_is_completed_and_not_measured_a_third_time(tmp_path: Path) -> None:
    """As that of a study whose members have no baseline beside them yet."""
    config = make(tmp_path, sampler="random", objectives={"val_accuracy": "max", "macs": "min"})
    definition = StudyDefinition(config)
    assert {r.key: r.measured for r in run(config) if r.measured}
    journal = Journal(tmp_path / "s" / "trials.jsonl")
    stages = Stages(definition, SimpleNamespace(), {}, None, Stop(), lambda *_: None)  # type: ignore[arg-type]
    members = [record for record in journal.records.values() if record.measured]
    assert not any(stages._lacks(record) for record in members)
    definition.module = SimpleNamespace(MEASURED=("baseline_bytes",))  # type: ignore[assignment]
    assert all(stages._lacks(record) for record in members)
    for record in members:
        journal.extend(record.key, measured={**(record.measured or {}), "baseline_bytes": 2})
    assert not any(stages._lacks(journal.records[record.key]) for record in members)
