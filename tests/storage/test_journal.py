"""rssearch.storage.journal: whatever happened to its file, a study stays usable, and says what it lost."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from rssearch.storage.journal import Journal
from rssearch.storage.location import Remote, write_atomic
from rssearch.storage.records import TrialRecord
from tests.support.records import ended, record


def line(record: Any) -> bytes:
    return json.dumps(record).encode() + b"\n"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ended("b").items() if key != name}


DAMAGED = {
    "long-key": (line(ended("b" * 201)), "key: Value error, names no folder of the store"),
    "truncated": (line(ended("b"))[:80] + b"\n", "is no JSON: "),
    "zeros": (b"\0" * 300 + b"\n", "is no JSON: "),
    "zeros-within": (line(ended("b")).replace(b"trial b", b"tri\0l b"), "is no JSON: Invalid control character"),
    "no-json": (b"noise\n", "is no JSON: "),
    "no-utf8": (b'{"key": "\xff\xfe"}\n', "is no UTF-8"),
    "half-a-pair": (line(ended("b", title="\ud800")), "is no UTF-8"),
    "deep": (b"[" * 100_000 + b"\n", "is nested too deeply"),
    "digits": (line(ended("b")).replace(b"100", b"1" * 5000), "holds a number that is too large"),
    "infinite": (line(ended("b")).replace(b"0.75", b"1e999"), "holds a number that is too large"),
    "nan": (line(ended("b")).replace(b"0.75", b"NaN"), "holds a number that is too large"),
    "list": (b"[1, 2]\n", "is no JSON object but list"),
    "null": (b"null\n", "is no JSON object but NoneType"),
    "string": (b'"b"\n', "is no JSON object but str"),
    "empty": (b"{}\n", "key: Field required"),
    "interleaved": (line(ended("b"))[:60] + line(ended("b"))[:-1] + line(ended("b"))[60:], "is no JSON: "),
    "glued": (line(ended("b"))[:-1] + line(ended("b")), "is no JSON: Extra data"),
    "no-key": (line(without("key")), "key: Field required"),
    "no-point": (line(without("point")), "point: Field required"),
    "no-title": (line(without("title")), "title: Field required"),
    "no-params": (line(without("params")), "params: Field required"),
    "no-metrics": (line(without("metrics")), "metrics: Field required"),
    "no-end": (line(without("ended")), "ended: Field required"),
    "no-status": (line(without("status")), "kind: Input should be 'running'"),
    "unknown-status": (line(ended("b", "paused")), "status: Input should be 'finished'"),
    "unknown-kind": (line(ended("b", kind="tail")), "kind: Input should be 'trial' or 'baseline'"),
    "status-of-a-type": (line(ended("b", ["finished"])), "status: Input should be 'finished'"),  # type: ignore[arg-type]
    "unhashable-key": (line(ended("b") | {"key": ["b"]}), "key: Input should be a valid string"),
    "key-of-a-path": (line(ended("b") | {"key": "../../b"}), "key: Value error, names no folder of the store"),
    "key-of-nothing": (line(ended("b") | {"key": ""}), "key: Value error, names no folder of the store"),
    "key-of-the-root": (line(ended("b") | {"key": "/b"}), "key: Value error, names no folder of the store"),
    "point-of-a-type": (line(ended("b", point=[0.5])), "point: Input should be a valid dictionary"),
    "metrics-of-a-type": (line(ended("b", metrics=None)), "metrics: Input should be a valid dictionary"),
    "epochs-of-a-type": (line(ended("b", history=["x"])), "history.0: Input should be"),
    "epoch-of-a-type": (line(ended("b", history=[{"epoch": None}])), "history.0.epoch: Value error, is no number"),
    "epoch-of-words": (line(ended("b", history=[{"epoch": "one"}])), "history.0.epoch: Value error, invalid literal"),
    "measured-of-a-type": (line(ended("b", measured=0.5)), "measured: Input should be a valid dictionary"),
    "end-of-a-type": (line(ended("b", ended="now")), "ended: Input should be a valid number"),
    "end-of-all-times": (line(ended("b", ended=1e300)), "ended: Input should be less than"),
    "of-a-lost-trial": (line({"key": "b", "measured": {"test_accuracy": 0.5}}), "the record of b is lost"),
    "rung-of-a-lost-trial": (line({"key": "b", "history": [{"epoch": 1}]}), "the record of b is lost"),
    "unknown-addition": (line({"key": "a", "title": "x"}), "title: Extra inputs are not permitted"),
    "rung-after-the-end": (line({"kind": "running", "key": "a", "point": {}, "history": []}), "a has ended before"),
    "rung-without-a-point": (line({"kind": "running", "key": "b", "history": []}), "point: Field required"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_line_is_left_out_and_said(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged, reason = DAMAGED[name]
    path = tmp_path / "trials.jsonl"
    path.write_bytes(line(ended("a")) + damaged + line(ended("c")))
    journal = Journal(path)
    assert journal.records == {"a": record("a"), "c": record("c")}
    assert len(journal.damaged) == 1
    assert journal.damaged[0].startswith(f"line 2: {reason}")
    (message,) = caplog.messages
    assert message.startswith(f"{path}: 1 line is damaged and left out: a trial that it lost runs again (line 2: ")
    content = path.read_bytes()
    journal.add(record("b"))  # the trial has run again
    assert path.read_bytes() == content + line(ended("b"))
    assert Journal(path).records == {key: record(key) for key in "acb"}


def test_many_damaged_lines_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(b"x\n" * 50 + b"\n \n" + line(ended("a")))
    assert list(Journal(path).records) == ["a"]
    (message,) = caplog.messages
    assert "50 lines are damaged and left out" in message
    assert "line 3" in message
    assert "line 4" not in message
    assert len(message) < 500


def test_a_line_twice_is_the_same_as_once(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(2 * line(ended("a")) + 2 * line({"key": "a", "measured": {"t": 1}}))
    journal = Journal(path)
    assert (journal.records, journal.damaged) == ({"a": record("a", measured={"t": 1})}, [])


def test_what_another_release_adds_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(line(ended("a", energy=[1, 2])) + b"\xef\xbb\xbf" + line(ended("b"))[:-1] + b"\r\n")
    assert Journal(path).records == {"a": record("a", energy=[1, 2]), "b": record("b")}


@pytest.mark.parametrize(
    "content",
    [
        ended("a", energy=[1, 2]),
        ended("a", "failed", reason="the loss is nan", kind="baseline"),
        {"key": "a", "kind": "running", "point": {}, "history": [{"epoch": 1}], "node": "x"},
    ],
    ids=["trial", "baseline", "running"],
)
def test_a_record_is_written_as_it_was_read(content: dict[str, Any]) -> None:
    assert list(TrialRecord.from_json(content).to_json().items()) == list(content.items())


def test_a_trial_that_ran_stands_where_it_ended(tmp_path: Path) -> None:
    """What it was compared by at its rungs is in its record until it ends; what another release knew of it stays."""
    path = tmp_path / "trials.jsonl"
    path.write_bytes(line({"kind": "running", "key": "a", "point": {}, "history": [{"epoch": 1}], "node": "x"}))
    journal = Journal(path)
    assert (journal.records["a"].status, journal.records["a"].is_running) == (None, True)
    journal.extend("a", history=[{"epoch": 1}, {"epoch": 3}])
    journal.add(record("b"))
    assert len(journal.records["a"].history) == 2
    journal.add(record("a"))
    assert journal.records == {"b": record("b"), "a": record("a", node="x")} == Journal(path).records
    assert list(journal.records) == ["b", "a"] == list(Journal(path).records)


def test_an_end_of_line_that_an_editor_took_away_costs_no_record(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(line(ended("a")) + line(ended("b"))[:-1])
    journal = Journal(path)
    assert list(journal.records) == ["a", "b"]
    journal.add(record("c"))
    journal.add(record("d"))
    assert path.read_bytes() == b"".join(line(ended(key)) for key in "abcd")


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "s" / "trials.jsonl")
    journal.add(record("a"))
    (tmp_path / "s" / "trials.jsonl").unlink()
    (tmp_path / "s").rmdir()
    with pytest.raises(FileNotFoundError):
        journal.add(record("b"))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_journal_can_be_put_away(tmp_path: Path) -> None:
    for place in (tmp_path / "trials.jsonl", Remote(f"memory://bucket/{uuid.uuid4().hex}/trials.jsonl")):
        write_atomic(place / "00001-x-00000.jsonl" if isinstance(place, Remote) else place, b"noise\n")
        journal = Journal(place)
        assert len(journal.damaged) == 1
        kept = journal.archive()
        assert kept is not None
        assert (journal.records, journal.damaged) == ({}, [])
        assert len(Journal(kept).damaged) == 1
