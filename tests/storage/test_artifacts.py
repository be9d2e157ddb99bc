"""rssearch.storage.artifacts and rssearch.storage.journal: what is on disk is whole, checked, and built once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.storage.location import write_atomic
from tests.support.records import record


def test_put_and_get(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("scores", "k") is None
    assert not store.has("scores", "k")
    store.put("scores", "k", {"a.bin": b"1", "b.json": b"{}"})
    assert store.get("scores", "k") == {"a.bin": b"1", "b.json": b"{}"}
    assert store.keys("scores") == ["k"]
    store.remove("scores", "k")
    assert store.get("scores", "k") is None
    store.remove("scores", "k")


def test_some_files_of_an_artifact_are_read_without_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("models", "k", {"spec.json": b"{}", "weights": b"many"})
    (weights,) = store.path("models", "k").glob("weights-*")
    weights.write_bytes(b"damaged")
    assert store.get("models", "k", names=["spec.json", "absent"]) == {"spec.json": b"{}"}
    assert store.get("models", "k") is None


def test_replacing_leaves_only_the_new_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("checkpoints", "k", {"c.pt": b"old", "more": b"x"})
    store.put("checkpoints", "k", {"c.pt": b"new"})
    assert store.get("checkpoints", "k") == {"c.pt": b"new"}
    assert len(list(store.path("checkpoints", "k").iterdir())) == 2  # the file and the manifest


def test_a_writer_killed_between_file_and_manifest_leaves_the_old_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.put("checkpoints", "k", {"c.pt": b"old"})

    def die(path: Path, content: bytes | str) -> None:
        if path.name == "manifest.json":
            raise KeyboardInterrupt
        write_atomic(path, content)

    monkeypatch.setattr("rssearch.storage.artifacts.write_atomic", die)
    with pytest.raises(KeyboardInterrupt):
        store.put("checkpoints", "k", {"c.pt": b"new"})
    monkeypatch.undo()
    assert store.get("checkpoints", "k") == {"c.pt": b"old"}


@pytest.mark.parametrize("damage", ["content", "missing", "manifest"])
def test_a_corrupt_artifact_is_set_aside_and_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store = Store(tmp_path)
    store.put("baselines", "k", {"model.safetensors": b"weights"})
    folder = store.path("baselines", "k")
    file = next(path for path in folder.iterdir() if path.name.startswith("model"))
    match damage:
        case "content":
            file.write_bytes(b"wEights")
        case "missing":
            file.unlink()
        case "manifest":
            (folder / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert store.get_or_build("baselines", "k", lambda: {"model.safetensors": b"again"}) == {
            "model.safetensors": b"again"
        }
    assert "baselines k is corrupt" in caplog.text
    assert store.get("baselines", "k") == {"model.safetensors": b"again"}
    assert len(list((store.root / "corrupt").iterdir())) == 1


def _build(root: str, log: str) -> None:
    def build() -> dict[str, bytes]:
        with Path(log).open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return {"x": b"1"}

    assert Store(root).get_or_build("scores", "k", build) == {"x": b"1"}


def test_processes_that_want_the_same_artifact_build_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    workers = [context.Process(target=_build, args=(str(tmp_path), str(log))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert log.read_text() == "built\n"


def _hold(root: str, started: str) -> None:
    def build() -> dict[str, bytes]:
        Path(started).touch()
        time.sleep(600)
        return {}

    Store(root).get_or_build("scores", "k", build)


def test_a_killed_builder_does_not_block_the_next(tmp_path: Path) -> None:
    started = tmp_path / "started"
    worker = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(tmp_path), str(started)))
    worker.start()
    deadline = time.monotonic() + 60
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.kill()
    worker.join()
    assert Store(tmp_path).get_or_build("scores", "k", lambda: {"x": b"2"}) == {"x": b"2"}


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_journal_round_trip_and_merge(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    journal = Journal(path)
    journal.add(record("a"))
    journal.add(record("b", "failed"))
    journal.extend("a", measured={"t": 2})
    expected = {"a": record("a", measured={"t": 2}), "b": record("b", "failed")}
    assert journal.records == expected
    assert Journal(path).records == expected


def test_journal_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    Journal(path).add(record("a"))
    with path.open("a") as file:
        file.write('{"key": "b", "sta')
    journal = Journal(path)
    assert list(journal.records) == ["a"]
    journal.add(record("c"))
    assert list(Journal(path).records) == ["a", "c"]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "c"]


def test_journal_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Journal(tmp_path / "t.jsonl").add(record("a", metrics={"value": float("nan")}))


def test_archive_keeps_the_old_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "trials.jsonl")
    assert journal.archive() is None
    journal.add(record("a"))
    kept = journal.archive()
    assert kept is not None
    assert list(Journal(kept).records) == ["a"]
    assert journal.records == {}
    assert Journal(tmp_path / "trials.jsonl").records == {}
