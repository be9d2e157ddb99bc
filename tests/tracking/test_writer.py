"""rssearch.tracking.writer: few requests for each run, and running trials that are seen within seconds."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rssearch.tracking import writer
from rssearch.tracking.client import Tracker, default_uri
from rssearch.tracking.database import one_transaction
from rssearch.tracking.entities import metrics_of
from rssearch.tracking.runs import Writer
from tests.support.databases import put_into

_WRITES = ("create_run", "update_run", "log_batch", "set_terminated", "set_tag")


def opened(tmp_path: Path) -> Writer:
    put_into(tmp_path)
    made = Writer(default_uri(tmp_path), "s", tmp_path / "mlartifacts" / "s")
    made.open()
    return made


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is written into MLflow, by the name of the request."""
    from mlflow import MlflowClient

    counted: Counter[str] = Counter()

    def count(name: str) -> None:
        real = getattr(MlflowClient, name)

        def counting(*arguments: Any, **more: Any) -> Any:
            counted[name] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(MlflowClient, name, counting)

    for name in _WRITES:
        count(name)
    return counted


def note(into: Writer, epochs: range, key: str = "k") -> None:
    for epoch in epochs:
        into.epoch(
            key, f"trial {key}", {"rate": 0.5}, {"epoch": epoch, "val_accuracy": epoch / 10}, epoch, 1000 + epoch
        )


def record(epochs: int, key: str = "k") -> dict[str, Any]:
    history = [{"epoch": e, "val_accuracy": e / 10} for e in range(1, epochs + 1)]
    about = {"key": key, "title": f"trial {key}", "params": {"rate": 0.5}, "status": "finished", "history": history}
    return about | {"metrics": {"val_accuracy": 0.5, "macs": 100}, "best": {}, "started": 1.0, "ended": 9.0}


def history(tmp_path: Path, key: str = "k") -> list[tuple[int, float, int]]:
    """Step, value and time of each value of `val_accuracy`."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(tmp_path))
    found = client.get_metric_history(run(tmp_path, key).info.run_id, "val_accuracy")
    return sorted(((m.step, m.value, m.timestamp) for m in found), key=lambda each: each[::2])


def run(tmp_path: Path, key: str = "k") -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=default_uri(tmp_path))
    experiment = client.get_experiment_by_name("s")
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`rssearch.key` = '{key}'")  # type: ignore[union-attr]
    return found


def test_a_short_trial_takes_three_requests_and_its_epochs_keep_their_times(
    tmp_path: Path, requests: Counter[str]
) -> None:
    written = opened(tmp_path)
    note(written, range(1, 10))
    assert not requests
    written.ended(record(9))
    assert requests == {"create_run": 1, "log_batch": 1, "set_terminated": 1}
    expected = [(epoch, epoch / 10, 1000 + epoch) for epoch in range(1, 10)]
    assert history(tmp_path) == [*expected, (9, 0.5, 9000)]
    found = run(tmp_path)
    assert (found.info.status, found.info.start_time, found.info.end_time) == ("FINISHED", 1000, 9000)
    assert (found.data.params, found.data.metrics["val_accuracy"]) == ({"rate": "0.5"}, 0.5)
    written.flush()  # nothing is left
    assert sum(requests.values()) == 3


def test_a_run_is_one_transaction(tmp_path: Path) -> None:
    from sqlalchemy import event

    written = opened(tmp_path)
    engine = written._client._tracking_client.store.engine
    commits: list[Any] = []
    event.listen(engine, "commit", commits.append)
    note(written, range(1, 4))
    written.ended(record(5))
    assert len(commits) == 1
    assert [step for step, *_ in history(tmp_path)] == [1, 2, 3, 4, 5, 5]
    assert run(tmp_path).info.status == "FINISHED"
    # A value that is there already is passed over, and the rest of its batch is kept.
    written._log("k", [*metrics_of({"val_accuracy": 0.5}, 5, 9000), *metrics_of({"macs": 7.0}, 6, 9000)])
    with one_transaction(written._client):
        written._log("k", [*metrics_of({"val_accuracy": 0.5}, 5, 9000), *metrics_of({"macs": 8.0}, 7, 9000)])
    assert run(tmp_path).data.metrics["macs"] == 8


def test_what_is_flushed_is_seen_and_is_not_sent_again(tmp_path: Path, requests: Counter[str]) -> None:
    written = opened(tmp_path)
    note(written, range(1, 4))
    note(written, range(1, 2), "other")
    written.summary({"hypervolume": 0.2}, 1, 5)
    written.summary({"hypervolume": 0.3}, 2, 6)
    written.flush()
    assert requests == {"create_run": 3, "log_batch": 3}
    assert (run(tmp_path).info.status, run(tmp_path).info.start_time) == ("RUNNING", 1001)
    assert [step for step, *_ in history(tmp_path)] == [1, 2, 3]
    assert run(tmp_path, "study:s").data.metrics == {"hypervolume": 0.3}
    note(written, range(3, 6))  # the third once more, as after the death of a worker
    written.ended(record(6))
    assert requests == {"create_run": 3, "log_batch": 4, "set_terminated": 1}
    assert [step for step, *_ in history(tmp_path)] == [1, 2, 3, 4, 5, 6, 6]
    assert history(tmp_path)[5] == (6, 0.6, 8999)  # which the driver did not send
    assert history(tmp_path)[6] == (6, 0.5, 9000)


def test_a_run_that_mlflow_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    written = opened(tmp_path)
    written.epoch("bad", "trial bad", {}, {"a name: that MLflow refuses?": 1.0}, 1, 5)
    note(written, range(1, 3))
    with pytest.raises(MlflowException, match="a name"):
        written.flush()
    assert [step for step, *_ in history(tmp_path)] == [1, 2]
    assert [*written.unsent] == ["bad"]
    with pytest.raises(ValueError, match="not enough values"):  # it is there whole or not at all
        run(tmp_path, "bad")
    written.forget_epochs()
    written.flush()


def test_a_running_trial_is_seen_though_nothing_follows(tmp_path: Path) -> None:
    put_into(tmp_path)
    tracker = Tracker(default_uri(tmp_path), "s", tmp_path / "mlartifacts" / "s")
    tracker.open()
    tracker.epoch("k", "trial k", {"rate": 0.5}, {"epoch": 1, "val_accuracy": 0.25}, 1)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert (run(tmp_path).info.status, [step for step, *_ in history(tmp_path)]) == ("RUNNING", [1])
            break
        except (AttributeError, ValueError, AssertionError):  # neither experiment nor run, or no epoch
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert tracker.close([], status="KILLED") == 0


def test_lines_come_whole_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FLUSH_SECONDS", 0.05)
    taken, given = os.pipe()
    lines = writer.lines_of(taken)
    os.write(given, b"a\nb")
    assert next(lines) == b"a"
    assert next(lines) is None  # the rest of the line is under way
    os.write(given, b"c\n\nlong" + 5000 * b"g")
    assert [next(lines), next(lines)] == [b"bc", b""]
    os.write(given, b"\nlost")
    assert next(lines) == b"long" + 5000 * b"g"
    os.close(given)
    assert list(lines) == []  # what a killed driver left of its last line is no line
    os.close(taken)


def test_flushes_come_in_time_and_take_a_fifth_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: clock[0])
    seen = []

    def lines() -> Any:
        for number in range(40):
            clock[0] += 1
            yield json.dumps(["epoch", {"step": number}]).encode()
        clock[0] += 100
        yield None

    for name, _ in writer.commands(lines()):
        seen.append((name, clock[0]))
        if name == "flush":
            clock[0] += 3 if len(seen) < 10 else 0.1  # it takes three seconds at first
    flushed = [round(at) for name, at in seen if name == "flush"]
    assert flushed[:3] == [2, 20, 22]
    assert flushed[-2] == flushed[-1] > 140  # in a pause, and at the end
    assert [name for name, _ in seen].count("epoch") == 40
