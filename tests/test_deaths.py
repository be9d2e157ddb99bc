"""rssearch.deaths: what Ray's words say, and how often a trial is started again."""

from __future__ import annotations

import pytest

from rssearch.deaths import NODE_LOSSES, Cause, Retries, cause

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
