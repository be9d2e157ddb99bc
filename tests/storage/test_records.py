"""rssearch.storage.records: epochs take little memory, and are what they were."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from rssearch.storage.journal import Journal
from rssearch.storage.records import Epochs, Status, TrialRecord

HISTORY = [{"epoch": e, "val_accuracy": 0.1 * e + 1e-17, "loss": None, "note": "\u00e4"} for e in range(1, 28)]


def test_epochs_are_a_sequence_of_mappings() -> None:
    epochs = Epochs(HISTORY)
    assert epochs == HISTORY
    assert [*HISTORY] == epochs  # the other way round, too
    assert epochs != HISTORY[1:]
    assert ([*epochs], len(epochs), epochs[-1], epochs[:2]) == (HISTORY, 27, HISTORY[-1], HISTORY[:2])
    assert not Epochs([])
    with pytest.raises(IndexError):
        epochs[27]


def test_a_journal_keeps_them_small_and_writes_them_whole(tmp_path: Path) -> None:
    made = TrialRecord("k", {"rate": 0.5}, Status.FINISHED, title="t", history=HISTORY, ended=1.0)
    journal = Journal(tmp_path / "trials.jsonl")
    journal.add(made)
    again = Journal(tmp_path / "trials.jsonl")
    for known in (journal, again):
        assert isinstance(known.records["k"].history, Epochs)
        assert known.records["k"] == made
    assert json.dumps(again.records["k"].to_json()) == json.dumps(made.to_json())
    again.extend("k", history=[*again.records["k"].history, {"epoch": 28}])
    assert len(Journal(tmp_path / "trials.jsonl").records["k"].history) == 28


def test_a_record_of_27_epochs_takes_less_than_four_kibibytes(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    with path.open("w") as file:
        for number in range(500):
            history = [{"epoch": e, "val_accuracy": number / e, "seconds": 1.5} for e in range(1, 28)]
            record = TrialRecord(str(number), {"rate": 0.5}, Status.FINISHED, title="t", history=history, ended=1.0)
            file.write(json.dumps(record.to_json()) + "\n")
    tracemalloc.start()
    journal = Journal(path)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(journal.records) == 500
    assert used / 500 < 4096
