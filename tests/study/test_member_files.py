"""Files of front members and baselines come from the store into the study's folder, and leave it with their trial."""

from __future__ import annotations

import os
from pathlib import Path

from rssearch.storage import scratch
from rssearch.storage.artifacts import Store
from rssearch.study import member_files
from rssearch.trial.interface import MEMBERS
from tests.support.records import record


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_follow_the_front(tmp_path: Path) -> None:
    store, folder = Store(tmp_path), tmp_path / "study"
    for key in ("a", "b", "baseline-x"):
        store.put(MEMBERS, key, {"confusion.csv": key.encode(), "predictions.csv": b"1", "other.txt": b"2"})
    a, b = (record(key, measured={"test_accuracy": 0.5, "baseline_key": "baseline-x"}) for key in ("a", "b"))
    unmeasured, old = record("c"), record("d", measured={"test_accuracy": 0.5, "baseline_key": None})
    found = member_files.write(folder, store, [a, b, unmeasured, old])
    assert found == {
        key: [folder / MEMBERS / key / name for name in ("confusion.csv", "predictions.csv")]
        for key in ("a", "baseline-x", "b")
    }
    assert (folder / MEMBERS / "a" / "confusion.csv").read_bytes() == b"a"
    stamp = (folder / MEMBERS / "b" / "confusion.csv").stat().st_ino
    member_files.write(folder, store, [b])
    assert listed(folder) == [f"members/{key}/{name}.csv" for key in ("b", "baseline-x") for name in NAMES]
    assert (folder / MEMBERS / "b" / "confusion.csv").stat().st_ino == stamp  # what has not changed is not written
    store.put(MEMBERS, "b", {"confusion.csv": b"new"})
    member_files.write(folder, store, [b])
    assert (folder / MEMBERS / "b" / "confusion.csv").read_bytes() == b"new"
    assert member_files.write(folder, store, []) == {}
    assert listed(folder) == []


NAMES = ("confusion", "predictions")


def test_a_key_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    odd = record("a", measured={"baseline_key": "../../elsewhere"})
    assert member_files.write(tmp_path / "study", Store(tmp_path), [odd]) == {}


def test_per_class_csv_is_there_where_something_is_counted(tmp_path: Path) -> None:
    counted = {"classes": ["x", "y"], "true": [2, 1], "predicted": [1, 2], "right": [1, 1]}
    row = {"key": "a", "val_per_class": counted}
    assert member_files.write_per_class(tmp_path, [row]) == [tmp_path / "per_class.csv"]
    assert (tmp_path / "per_class.csv").read_text().splitlines()[
        1
    ] == "a,,,,val,x,2,1,1,0.5,0.5,1.0,0.6666666666666666,0.5,,"
    assert member_files.write_per_class(tmp_path, [{"key": "a"}]) == []
    assert listed(tmp_path) == []


def test_leftovers_of_a_killed_session_are_cleared(tmp_path: Path) -> None:
    member_files.clear(tmp_path / "none")
    place = tmp_path / MEMBERS / "a"
    place.mkdir(parents=True)
    (place / "confusion.csv").write_text("whole")
    handle, _ = scratch.file(place / "confusion.csv")
    os.close(handle)  # nobody uses it any more
    member_files.clear(tmp_path)
    assert listed(tmp_path) == ["members/a/confusion.csv"]
