"""Files of a study's divisions: those that its settings name, and those that it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch import data
from rssearch.config.loading import parse_study
from rssearch.config.settings import Split
from rssearch.errors import InputError
from rssearch.study import split_files
from rssearch.study.definition import StudyDefinition
from tests.support.fakes import tree


def study(split: Any, **space: Any) -> Any:
    document = {
        "study": "s",
        "trial": "trials.prune:run",
        "space": {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["lfp"], "rate": [0.5], **space},
        "settings": {"split": split},
    }
    return parse_study(document)


@pytest.fixture
def folds(tmp_path: Path) -> list[str]:
    names = [str(tmp_path / f"fold{number}.csv") for number in range(2)]
    for number, name in enumerate(names):
        Path(name).write_text(f"path,split\na,train\nb,{('val', 'test')[number]}\n")
    return names


def test_digests_are_filled_in_and_compared(folds: list[str]) -> None:
    found = StudyDefinition(study({"file": folds[0]})).config.settings.split
    assert found.sha256.keys() == {folds[0]}
    assert study({}).settings.split.model_dump().keys() == {"train", "val", "test", "seed"}
    with pytest.raises(InputError, match=r"settings.split.sha256: the file .*fold0.csv has .*, not 00"):
        StudyDefinition(study({"file": folds[0], "sha256": {folds[0]: "00"}}))
    with pytest.raises(InputError, match=r"settings.split.file: none.csv: cannot be read"):
        StudyDefinition(study({"file": "none.csv"}))


def test_folds_are_a_dimension(folds: list[str]) -> None:
    definition = StudyDefinition(study({}, **{"split.file": folds}))
    assert definition.config.settings.split.sha256.keys() == set(folds)
    assert len({definition.key(point) for point in definition.points}) == 2
    before = {definition.key(point) for point in definition.points}
    Path(folds[1]).write_text("path,split\na,train\nb,val\nc,test\n")
    again = StudyDefinition(study({}, **{"split.file": folds}))
    assert len(before & {again.key(point) for point in again.points}) == 1


def test_each_division_is_written_once(tmp_path: Path) -> None:
    tree(tmp_path / "mine", ["a", "b"], 6)

    def load(name: str = "folder:mine", seed: int = 0, size: int = 16) -> Any:
        return data.load(name, tmp_path, workers=1, input_size=size, split=Split(seed=seed))

    first = load()
    assert split_files.written([first, load(size=8), "no images"]).keys() == {"split.csv"}
    several = [first, load(seed=1), load("synthetic_scenes")]
    names = {f"split-{found.name.replace(':', '_')}-{found.split_hash[:8]}.csv" for found in several}
    assert split_files.written(several).keys() == names
    assert split_files.written([]) == {}
