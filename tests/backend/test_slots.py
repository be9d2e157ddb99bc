"""How many of the slots of a Ray are used, and from when on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rssearch.backend import tune
from rssearch.config.loading import parse_study
from rssearch.config.schema import Resources
from rssearch.storage.journal import Journal
from rssearch.study import run

pytestmark = pytest.mark.ray


def short(config: dict[str, Any]) -> dict[str, float]:
    """A trial of less than the start of a worker."""
    time.sleep(0.05)
    return {"val_accuracy": config["x"], "macs": config["x"], "worker": os.getpid()}


def test_short_trials_use_all_slots(local_ray: str, tmp_path: Path) -> None:
    """Tune ends a worker that starts when another one is free: all of these trials ran on the first one."""
    study = {
        "study": "short",
        "trial": "tests.backend.test_slots:short",
        "space": {"x": {"low": 0, "high": 239}},
        "search": {"sampler": "random", "trials": 240},  # twelve seconds of one worker, in which the other one starts
        "storage": str(tmp_path),
    }
    assert run.search(parse_study(study), address=local_ray) == 0
    records = Journal(tmp_path / "short" / "trials.jsonl").records.values()
    workers = [record.metrics["worker"] for record in records]
    assert len(workers) == 240
    assert len(set(workers)) == 2
    assert tune._PENDING not in os.environ


def test_slots_are_counted_where_the_ray_is_our_own(local_ray: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Resources(max_concurrent=1)
    assert [tune._at_once(Resources()), tune._at_once(limited), tune._at_once(Resources(cpus=2))] == [2, 1, 1]
    monkeypatch.setattr(tune, "_is_own", lambda: False)  # nodes may join, and others may take CPUs
    assert [tune._at_once(Resources()), tune._at_once(limited)] == [None, 1]
    monkeypatch.undo()
    monkeypatch.setattr(tune, "_may_grow", lambda: True)
    assert tune._at_once(Resources()) is None


def test_what_the_user_has_set_of_waiting_trials_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tune._PENDING, "7")
    with tune._actors_side_by_side(2):
        assert os.environ[tune._PENDING] == "7"
    monkeypatch.delenv(tune._PENDING)
    with tune._actors_side_by_side(None):
        assert tune._PENDING not in os.environ
    with tune._actors_side_by_side(2):
        assert os.environ[tune._PENDING] == "2"
    assert tune._PENDING not in os.environ
