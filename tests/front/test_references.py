"""rssearch.front.references: what a study's hypervolumes and knee are measured from is fixed once."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.front import references
from rssearch.front.trials import fronts
from rssearch.report import recorded
from rssearch.report.compare import compare
from rssearch.report.recorded import choose
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.study import run
from rssearch.study.recorder import Recorder
from rssearch.study.simulation import Simulator, simulate
from rssearch.trials import curves
from tests.support.records import record

TWO: Any = {"val_accuracy": "max", "macs": "min"}
SCALE = {"input_size": 32}


def trial(key: str, accuracy: float, macs: float, dataset: str = "lakes", **more: Any) -> dict[str, Any]:
    about = {"key": key, "status": "finished", "dataset": dataset, "val_accuracy": accuracy, "macs": macs}
    return about | {"baseline_macs": 100.0} | more


def config(folder: Path, **more: Any) -> StudyConfig:
    document = {"study": "s", "trial": "trials.curves:synthetic", "space": {"rate": [0.0, 0.5, 0.8]}}
    return parse_study(document | {"settings": {"train": {"epochs": 3}}, "storage": str(folder)} | more)


def simulated(config: StudyConfig) -> Recorder:
    recorder = simulate(config, Simulator(2))
    recorder.fix_references()  # as at the end of a session
    return recorder


def test_a_study_fixes_its_reference_before_its_first_trial(tmp_path: Path) -> None:
    class Looking(Simulator):
        def run_jobs(self, *arguments: Any, **more: Any) -> None:
            (entry,) = json.loads((tmp_path / "s" / "reference.json").read_text())["datasets"]
            assert entry == {"dataset": None, "reference": {"val_accuracy": 0.1, "macs": 40_000_000}}
            assert not (tmp_path / "s" / "trials.jsonl").exists()
            super().run_jobs(*arguments, **more)

    recorder = simulate(config(tmp_path), Looking(2))
    assert recorder.references == {None: {"val_accuracy": 0.1, "macs": 40_000_000}}


def test_a_larger_baseline_and_a_resumed_study_do_not_move_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = simulated(config(tmp_path))
    written = (tmp_path / "s" / "reference.json").read_bytes()
    monkeypatch.setattr(curves, "MACS", 400_000_000)
    after = simulated(config(tmp_path, space={"rate": [0.0, 0.5, 0.8, 0.9]}))
    assert max(row["baseline_macs"] for row in after.rows()) == 400_000_000
    assert after.references == before.references
    assert (tmp_path / "s" / "reference.json").read_bytes() == written
    (first,), (second,) = (fronts(r.rows(), TWO, None, r.references) for r in (before, after))
    assert second.reference == first.reference == {"val_accuracy": 0.1, "macs": 40_000_000}
    assert second.hypervolume >= first.hypervolume
    monkeypatch.setattr(curves, "unpruned", lambda *_: pytest.fail("asked again"))
    assert simulated(config(tmp_path)).references == before.references


def test_settings_that_change_every_cost_begin_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated(config(tmp_path))
    monkeypatch.setattr(curves, "MACS", 160_000_000)
    epochs = simulated(config(tmp_path, settings={"train": {"epochs": 4}}))
    assert epochs.references == {None: {"val_accuracy": 0.1, "macs": 40_000_000}}
    larger = simulated(config(tmp_path, settings={"train": {"epochs": 3}, "input_size": 64}))
    assert larger.references == {None: {"val_accuracy": 0.1, "macs": 160_000_000}}


def test_a_fresh_study_begins_a_new_one(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    references.write(folder, {None: {"macs": 1.0}}, TWO, SCALE)
    definition: Any = SimpleNamespace(folder=folder, points=[], key=None, store=Store(tmp_path))
    tracker: Any = SimpleNamespace(supersede=lambda: None)
    run._start_from_scratch(definition, Journal(folder / "trials.jsonl"), tracker)
    assert not (folder / "reference.json").exists()


def test_what_a_study_recorded_before_goes_before_what_its_space_has_now() -> None:
    rows = [trial("a", 0.5, 60), trial("b", 0.7, 90)]
    now = [{"dataset": "lakes", "classes": 5, "baseline_macs": 900.0}]
    found = references.fixed({}, rows, TWO, {}, now)
    assert found == {"lakes": {"val_accuracy": 0.2, "macs": 100.0}}
    assert references.fixed(found, [], TWO, {}, [now[0] | {"classes": 50}]) == found
    dear = references.fixed(found, [trial("r", 0.5, 950, "roads", baseline_macs=1e3)], TWO, {}, now)
    assert dear == found | {"roads": {"val_accuracy": 0.0, "macs": 1e3}}


def test_what_nobody_knows_beforehand_is_fixed_by_the_first_session() -> None:
    slow: Any = {"val_accuracy": "max", "latency_ms": "min"}
    rows = [trial("a", 0.5, 60, latency_ms=2.0), trial("b", 0.7, 90, latency_ms=5.0), trial("c", 0.1, 9, latency_ms=99)]
    assert references.fixed({}, [], slow, {}, [{"dataset": "lakes", "classes": 10}]) == {"lakes": {"val_accuracy": 0.1}}
    found = references.fixed({"lakes": {"val_accuracy": 0.1}}, rows, slow, {})
    assert found == {"lakes": {"val_accuracy": 0.1, "latency_ms": 5.0}}  # c is dominated
    assert references.fixed(found, [*rows, trial("d", 0.9, 9, latency_ms=50.0)], slow, {}) == found
    assert references.fixed({}, [], slow, {}) == {}


def test_the_file_says_what_it_goes_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert references.read(tmp_path, TWO) == {}
    kept = {"lakes": {"val_accuracy": 0.1, "macs": 100.0}, None: {"macs": 7.0}}
    references.write(tmp_path, kept, TWO, SCALE)
    assert references.read(tmp_path, TWO) == references.read(tmp_path, TWO, SCALE) == kept
    assert references.read(tmp_path, TWO, {"input_size": 64}) == {}
    assert references.read(tmp_path, {"macs": "max", "val_accuracy": "max"})["lakes"] == {"val_accuracy": 0.1}
    assert not caplog.records
    for text in ("{", "[]", '{"schema": 1}', '{"settings": 1, "objectives": {}, "datasets": [1]}'):
        (tmp_path / "reference.json").write_text(text)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert references.read(tmp_path, TWO) == {}
        assert "reference.json is damaged and left out" in caplog.text


def write(storage: Path, name: str, rows: dict[str, tuple[float, float]], baseline: float) -> Path:
    """A study's folder as a search of an earlier release leaves it."""
    folder = storage / name
    folder.mkdir()
    document = {"study": name, "trial": "trials.curves:synthetic", "space": {"rate": [0.5]}}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    journal = Journal(folder / "trials.jsonl")
    for key, (accuracy, macs) in rows.items():
        metrics = {"val_accuracy": accuracy, "macs": macs, "baseline_macs": baseline}
        journal.add(record(key, point={"dataset": "lakes", "rate": 0.5}, metrics=metrics))
    with (folder / "trials.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["key"], *([key] for key in rows)])
    return folder


def test_a_study_recorded_before_knows_its_classes_from_its_networks(tmp_path: Path) -> None:
    write(tmp_path, "s", {"a": (0.5, 20), "b": (0.4, 30)}, 100)
    assert recorded.read("s", tmp_path).front()[0].reference == {"val_accuracy": 0.0, "macs": 100}
    Store(tmp_path).put("models", "a", {"about.json": json.dumps({"classes": ["x", "y", "z", "u"]}).encode()})
    (front,) = recorded.read("s", tmp_path).front()
    assert front.reference == {"val_accuracy": 0.25, "macs": 100}
    assert front.hypervolume == pytest.approx(0.25 * 80)


def test_what_is_read_and_compared_is_measured_from_what_was_fixed(tmp_path: Path) -> None:
    one = write(tmp_path, "one", {"a": (0.5, 20), "b": (0.9, 90)}, 100)
    two = write(tmp_path, "two", {"c": (0.5, 20), "d": (0.7, 150)}, 400)
    references.write(one, {"lakes": {"val_accuracy": 0.1, "macs": 100.0}}, TWO, SCALE)
    references.write(two, {"lakes": {"val_accuracy": 0.1, "macs": 200.0}}, TWO, SCALE)
    first, second = (recorded.read(name, tmp_path) for name in ("one", "two"))
    assert first.front()[0].reference == {"val_accuracy": 0.1, "macs": 100.0}
    assert second.front()[0].reference == {"val_accuracy": 0.1, "macs": 200.0}  # not 400, of a later network
    assert choose(first)["key"] == "a"  # 0.4 * 80 against 0.8 * 10
    (found,) = compare([first, second])
    assert found.reference == {"val_accuracy": 0.1, "macs": 200.0}
    assert [entry.hypervolume for entry in found.entries] == [
        pytest.approx(0.4 * 180 + 0.4 * 110),
        pytest.approx(0.4 * 180 + 0.2 * 50),
    ]
