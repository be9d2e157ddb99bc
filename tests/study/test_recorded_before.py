"""A study that an earlier release recorded (tests/support/recorded, by the release before the packages) resumes."""

from __future__ import annotations

import shutil
from pathlib import Path

from rssearch.config.loading import load_study
from rssearch.report import recorded
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
