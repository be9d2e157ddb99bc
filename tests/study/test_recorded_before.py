"""A study that an earlier release recorded (tests/support/recorded, by the release before the packages) resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

from rssearch.config.loading import load_study
from rssearch.report import files, recorded
from rssearch.storage.journal import Journal
from rssearch.study.definition import StudyDefinition
from rssearch.study.planning import plan

RECORDED = Path(__file__).parents[1] / "support" / "recorded"


def test_no_trial_runs_again(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "recorded")
    config = load_study(tmp_path / "recorded" / "study.yaml", {"storage": str(tmp_path), "data_root": str(tmp_path)})
    definition = StudyDefinition(config)
    journal = Journal(definition.folder / "trials.jsonl")
    keys = {key for key, record in journal.records.items() if record.kind == "trial"}
    assert {record.key for record in definition.current(journal)} == keys == {*map(definition.key, definition.points)}
    assert plan(config).finished == 4


def test_its_front_is_read(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "recorded")
    found = recorded.read("recorded", tmp_path)
    assert [row["status"] for row in found.rows] == ["finished"] * 4
    (front,) = found.front()
    assert front.members
    assert front.hypervolume > 0


def test_it_shows_what_it_has_of_its_baseline(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "recorded")
    found = recorded.read("recorded", tmp_path)
    text = files.format_front(found.rows, found.objectives, "md", study="s", dimensions=found.dimensions)
    assert isinstance(text, str)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = "|  | Method | Rate | Validation accuracy | Difference (points) | MACs | MACs left | Parameters |"
    assert lines[0].startswith(heads)
    assert lines[2].startswith("|  | baseline |  | 41.0 % |  | 41.3 M | 100.0 % | 270 k |")
    assert "★ against its baseline: validation accuracy +12.3 points, 47.9 % of the MACs" in text
    assert "Latency" not in text  # it measured none
