"""rssearch.study.progress."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from rssearch.study import progress
from rssearch.study.progress import Display, duration


def plain(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> tuple[Display, StringIO]:
    monkeypatch.setattr(progress, "QUIET_SECONDS", seconds)
    text = StringIO()
    return Display(Console(file=text, width=200)), text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.4, "12 s"), (89, "89 s"), (90, "2 min"), (3000, "50 min"), (5400, "1.5 h"), (36000, "10.0 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_where_the_console_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    display, text = plain(monkeypatch)
    with display:
        display.start("trials", 4, done=1)
        display.running("a", "l1 rate=0.3", "epoch 1, val_accuracy 0.500")
        display.best, display.hypervolume = "val_accuracy 0.5", 0.25
        display.ended("a", "finished")
        display.ended("b", "failed")
        display.ended("c", "infeasible")
    lines = text.getvalue().splitlines()
    assert lines[0] == "trials: 1 of 4 done, 1 running (l1 rate=0.3  epoch 1, val_accuracy 0.500)"
    assert lines[-1] == "trials: 2 of 4 done, 1 failed, 1 infeasible, best val_accuracy 0.5, hypervolume 0.25"


def test_few_lines_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    display, text = plain(monkeypatch, seconds=3600)
    with display:
        display.start("trials", 50)
        for index in range(50):
            display.running(str(index), "t")
            display.ended(str(index), "finished")
    assert len(text.getvalue().splitlines()) == 2  # the first, and the last when all have ended


def test_time_left_counts_this_session_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display, _ = plain(monkeypatch)
    display.start("trials", 10, done=6)
    assert display.seconds_left() is None
    now[0] += 30
    display.ended("a", "finished")
    assert display.seconds_left() == 30 * 3


def test_time_left_counts_the_epochs_of_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display, _ = plain(monkeypatch)
    display.start("baselines and scores", 1)
    now[0] += 5
    display.running("a", "baseline", "epoch 1/8", 1, 8)
    assert display.seconds_left() == pytest.approx(35)
    now[0] += 5
    display.running("a", "baseline", "epoch 2/8", 2, 8)
    assert display.seconds_left() == pytest.approx(30)
    display.ended("a", "finished")
    assert display.seconds_left() == 0


def test_epochs_of_an_earlier_session_do_not_count_for_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display, _ = plain(monkeypatch)
    display.start("baselines and scores", 1)
    now[0] += 10
    display.running("a", "baseline", "epoch 5/8", 5, 8)  # resumed after the fourth
    assert display.seconds_left() == pytest.approx(30)
    now[0] += 10
    display.running("a", "baseline", "epoch 6/8", 6, 8)
    assert display.seconds_left() == pytest.approx(20)


def test_a_job_of_the_phase_before_counts_for_that_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display, _ = plain(monkeypatch)
    display.start("baselines and scores", 2)
    display.running("a", "baseline", "epoch 1/8", 1, 8)
    display.start("trials", 3)
    now[0] += 10
    display.running("a", "baseline", "epoch 5/8", 5, 8)
    assert display.seconds_left() is None
    assert "1 running" in display._summary()
    display.ended("a", "finished")
    assert (display.done, display.left) == (0, 3)
    display.running("b", "l1")
    display.ended("b", "finished")
    assert (display.done, display.left, display.seconds_left()) == (1, 2, 20.0)


def test_a_terminal_shows_a_bar_and_the_running_trials() -> None:
    text = StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with Display(console) as display:
        display.start("trials", 4, done=1)
        display.running("a", "lfp rate=0.5", "epoch 2")
        console.print(display._render())
    assert "1/4" in text.getvalue()
    assert "lfp rate=0.5  epoch 2" in text.getvalue()


def test_markup_in_a_message_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    display, text = plain(monkeypatch)
    display.say("failed: [red] is no colour here")
    assert text.getvalue() == "failed: [red] is no colour here\n"


def test_stopped_trials_are_counted_as_ended() -> None:
    display = Display(Console(file=StringIO()))
    display.start("trials", 5, done=1, stopped=2)
    assert display.left == 2
    assert display.seconds_left() is None
    display.ended("a", "stopped")
    assert display.left == 1
    assert display.seconds_left() is not None
    assert display._summary().startswith("1 of 5 done, 3 stopped")
