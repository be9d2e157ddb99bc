"""rssearch.trial.turns: who trains gives way to who measures, and nobody measures while somebody trains."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rssearch.trial import turns

PATIENCE = 60.0
HOLDER = """
import pathlib, sys
from rssearch.trial import turns
with turns.training(pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


class Measurer:
    """A thread that measures once."""

    def __init__(self, folder: Path, then: str, log: list[str]) -> None:
        self.folder, self.then, self.log = folder, then, log
        self.inside, self.leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with turns.measuring(self.folder):
            self.log.append(self.then)
            self.inside.set()
            self.leave.wait(PATIENCE)
            self.log.append(f"{self.then} ends")


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.wait()


def test_many_train_at_the_same_time(tmp_path: Path) -> None:
    with turns.training(tmp_path) as first, turns.training(tmp_path) as second:
        first()
        second()
    with turns.measuring(tmp_path):
        pass


def test_one_measures_when_all_have_given_way_and_they_go_on_afterwards(tmp_path: Path) -> None:
    log: list[str] = []
    with turns.training(tmp_path) as yield_turn:
        measurer = Measurer(tmp_path, "measured", log)
        assert not measurer.inside.wait(0.3)  # while we train
        log.append("epoch")
        measurer.leave.set()
        while "measured" not in log:  # the thread may not have come to its gate by now
            yield_turn()
        log.append("next epoch")
        measurer.thread.join(PATIENCE)
    assert log == ["epoch", "measured", "measured ends", "next epoch"]


def test_only_one_measures(tmp_path: Path) -> None:
    log: list[str] = []
    first = Measurer(tmp_path, "first", log)
    assert first.inside.wait(PATIENCE)
    second = Measurer(tmp_path, "second", log)
    assert not second.inside.wait(0.3)
    first.leave.set()
    assert second.inside.wait(PATIENCE)
    second.leave.set()
    second.thread.join(PATIENCE)
    assert log == ["first", "first ends", "second", "second ends"]


def test_a_killed_process_holds_nobody_up(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    measurer = Measurer(tmp_path, "measured", [])
    measurer.leave.set()
    assert not measurer.inside.wait(0.3)
    holder.kill()
    assert measurer.inside.wait(PATIENCE)
    measurer.thread.join(PATIENCE)
