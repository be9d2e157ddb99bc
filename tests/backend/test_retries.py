"""rssearch.backend.retries, and what the runner makes of it: how often a trial is started again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rssearch.backend.retries import NODE_LOSSES, Cause, Retries, cause

DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tpid: 7\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            DIED + "The actor died because its node has died. Node Id: 8f\n\tthe actor's node was preempted: x",
            Cause.NODE,
        ),
        ("The actor 12e8 is unavailable: The actor is temporarily unavailable: RpcError: Socket closed", Cause.NODE),
        (DIED + "1 worker(s) were killed due to the node running low on memory.", Cause.MEMORY),
        (DIED + "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", Cause.PROCESS),
        ("", Cause.PROCESS),
    ],
)
def test_causes(error: str, expected: Cause) -> None:
    assert cause(error) is expected


def test_a_trial_is_started_again_as_often_as_is_allowed() -> None:
    retries = Retries(2)
    assert [retries.again("a", Cause.PROCESS) for _ in range(4)] == [True, True, False, False]
    assert retries.again("b", Cause.MEMORY)


def test_lost_nodes_are_not_counted_with_a_trials_own_deaths() -> None:
    retries = Retries(0)
    assert [retries.again("a", Cause.NODE) for _ in range(NODE_LOSSES + 1)] == [True] * NODE_LOSSES + [False]
    assert not retries.again("a", Cause.PROCESS)
    assert retries.again("b", Cause.NODE)


def test_memory_and_process_share_one_budget() -> None:
    retries = Retries(2)
    deaths = [Cause.MEMORY, Cause.PROCESS, Cause.MEMORY]
    assert [retries.again("a", why) for why in deaths] == [True, True, False]


class FakeTrial:
    """What Ray Tune hands to callbacks, with the file of its errors."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = {"key": "k", "point": {"rate": 0.5}, "function": None}
        self.max_failures, self.local_path = -1, str(folder)
        self.run_metadata = SimpleNamespace(error_filename="error.txt")
        self.failures = 0

    def dies(self, error: str) -> None:
        self.failures += 1
        with (Path(self.local_path) / "error.txt").open("a") as file:
            file.write(f"Failure # {self.failures} (occurred at 2026-01-01)\n{error}\n")


@pytest.fixture
def heard() -> list[tuple[Any, ...]]:
    return []


def events(heard: list[tuple[Any, ...]], most: int) -> Any:
    from rssearch.backend.stop import Stop
    from rssearch.backend.tune import Listener, _Events

    listener = Listener(
        started=lambda job: heard.append(("started", job.key)),
        epoch=lambda job, metrics: heard.append(("epoch", job.key, metrics)),
        retried=lambda job, reason: heard.append(("retried", job.key, reason)),
        ended=lambda job, outcome: heard.append(("ended", job.key, outcome.status, outcome.reason)),
    )
    return _Events(listener, Stop(), set(), Retries(most))


PROCESS_DIED = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task."
NODE_DIED = "ray.exceptions.ActorUnavailableError: The actor 12e8 is unavailable: RpcError: Socket closed."
KILLED = f"{PROCESS_DIED}\n1 worker(s) were killed due to the node running low on memory."


def test_a_trial_that_dies_too_often_ends_once_and_is_not_started_again(
    tmp_path: Path, heard: list[tuple[Any, ...]]
) -> None:
    callback, trial = events(heard, most=1), FakeTrial(tmp_path)
    for error in (PROCESS_DIED, NODE_DIED, PROCESS_DIED):
        callback.on_trial_start(0, [], trial)
        trial.dies(error)
        callback.on_trial_recover(0, [], trial)
    callback.on_trial_start(0, [], trial)
    callback.on_trial_result(0, [], trial, {"event": "given up"})
    callback.on_trial_complete(0, [], trial)
    died = PROCESS_DIED.removeprefix("ray.exceptions.").rstrip(".")
    assert heard == [
        ("started", "k"),
        ("retried", "k", died),
        ("started", "k"),
        ("retried", "k", NODE_DIED.removeprefix("ray.exceptions.").rstrip(".")),
        ("started", "k"),
        ("ended", "k", "failed", f"its worker died: {died}"),
    ]
    assert trial.config["given_up"]
    assert trial.max_failures == 0  # Tune starts it once more at most
    assert "micro_batches" not in trial.config


def test_a_worker_killed_for_its_memory_starts_again_with_half_the_images(
    tmp_path: Path, heard: list[tuple[Any, ...]]
) -> None:
    callback, trial = events(heard, most=3), FakeTrial(tmp_path)
    for expected in (2, 4):
        trial.dies(KILLED)
        callback.on_trial_recover(0, [], trial)
        assert trial.config["micro_batches"] == expected
    assert [event[0] for event in heard] == ["retried", "retried"]
