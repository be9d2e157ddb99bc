"""agent.protocol and agent.desk: what is handed out, and what of the answers is believed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from rssearch.agent import protocol
from rssearch.agent.desk import MOST_RUNS, MOST_TRIES, Desk
from rssearch.agent.protocol import LARGEST_RESULT, Refused
from rssearch.errors import InputError
from tests.support.devices import TOKEN, measurement


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(clock: Clock) -> Desk:
    found = Desk("pi", 60, clock)
    found.offer("key", lambda: b"onnx")
    return found


def answer(desk: Desk, clock: Clock, **changes: Any) -> None:
    """Take a job and bring a measurement of it, a second later."""
    job = desk.take()
    assert job is not None
    clock.now += 1
    desk.give({"job": job[0], **measurement(**changes)})


def test_two_measurements_that_agree_end_a_network(desk: Desk, clock: Clock) -> None:
    answer(desk, clock)
    assert desk.left() == ["key"]
    assert not desk.collect()
    answer(desk, clock, times_ms=[1.2] * 5, peak_rss_bytes=60_000_000)
    assert desk.left() == []
    ended = desk.collect()["key"]
    assert ended.metrics is not None
    assert ended.metrics["latency_ms@pi"] == 1.2
    assert ended.metrics["latency_passes@pi"] == 10
    assert ended.metrics["peak_rss_bytes@pi"] == 60_000_000
    assert ended.metrics["latency_device@pi"] == "Raspberry Pi 5"
    assert ended.metrics["energy_mj@pi"] is None
    assert ended.metrics["latency_p95_ms@pi"] == 1.2
    assert ended.metrics["latency_iqr_ms@pi"] == pytest.approx(0.1)
    assert desk.take() is None


def test_an_outlier_is_measured_again_and_left_out(desk: Desk, clock: Clock) -> None:
    answer(desk, clock, times_ms=[9.0] * 5)
    answer(desk, clock)
    answer(desk, clock)
    ended = desk.collect()["key"]
    assert ended.metrics is not None
    assert ended.metrics["latency_ms@pi"] == pytest.approx(1.1)


def test_measurements_that_never_agree_are_recorded_by_nobody(desk: Desk, clock: Clock) -> None:
    for run in range(MOST_RUNS):
        answer(desk, clock, times_ms=[2.0**run] * 5)
    ended = desk.collect()["key"]
    assert ended.metrics is None
    assert "do not agree: 1, 2, 4, 8, 16 ms" in str(ended.reason)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"times_ms": [0.0] * 5}, "finite and above 0"),
        ({"times_ms": [-1.0] * 5}, "finite and above 0"),
        ({"times_ms": [True] * 5}, "finite and above 0"),
        ({"times_ms": ["1"] * 5}, "finite and above 0"),
        ({"times_ms": [1e400] * 5}, "finite and above 0"),
        ({"times_ms": [1.0] * 4}, "a list of 5 to 1000"),
        ({"times_ms": 1.0}, "a list of 5 to 1000"),
        ({"times_ms": [300.0] * 5}, "but the network was out for 1 s"),
        ({"peak_rss_bytes": 12}, "that a process can take"),
        ({"peak_rss_bytes": 1e8}, "that a process can take"),
        ({"energy_mj": float("inf")}, "energy_mj must be finite"),
        ({"energy_mj": 1e9}, "more than a device can draw"),
        ({"threads": 0}, "threads must be"),
        ({"device": None}, "must be texts"),
    ],
)
def test_what_cannot_be_true_is_refused_and_measured_again(
    desk: Desk, clock: Clock, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        answer(desk, clock, **changes)
    assert desk.left() == ["key"]
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(Refused):
            answer(desk, clock, **changes)
    assert desk.left() == []
    ended = desk.collect()["key"]
    assert ended.metrics is None
    assert str(ended.reason)


def test_only_a_job_that_was_handed_out_is_believed(desk: Desk, clock: Clock) -> None:
    for number in ("", None, 7, "0" * 32):
        with pytest.raises(Refused, match="no such job"):
            desk.give({"job": number, **measurement()})
    job = desk.take()
    assert job is not None
    clock.now += 1
    desk.give({"job": job[0], **measurement()})
    with pytest.raises(Refused, match="no such job"):  # a second time
        desk.give({"job": job[0], **measurement()})


def test_what_does_not_come_back_is_handed_out_again(desk: Desk, clock: Clock) -> None:
    first = desk.take()
    assert first is not None
    assert desk.take() is None  # nobody else gets it now
    assert desk.idle() == 0
    clock.now = 61
    second = desk.take()
    assert second is not None
    assert second[0] != first[0]
    with pytest.raises(Refused, match="no such job"):  # it was slow
        desk.give({"job": first[0], **measurement()})
    clock.now += 1
    desk.give({"job": second[0], **measurement()})


def test_what_never_comes_back_is_put_aside(desk: Desk, clock: Clock) -> None:
    for start in range(MOST_TRIES):
        clock.now = 61.0 * start
        assert desk.take()
    clock.now += 61
    assert "handed out 3 times" in str(desk.collect()["key"].reason)


def test_a_network_that_the_device_cannot_run_is_recorded_without_values(desk: Desk) -> None:
    for _ in range(MOST_TRIES):
        job = desk.take()
        assert job is not None
        desk.give({"job": job[0], "error": "Fail: no kernel\x1b[31m"})
    ended = desk.collect()["key"]
    assert ended.metrics == {f"{name}@pi": None for name in protocol.METRICS}
    assert ended.reason == "Fail: no kernel\\u001b[31m"


def test_a_file_that_is_gone_ends_no_thread(clock: Clock) -> None:
    def gone() -> bytes:
        raise FileNotFoundError("gone")

    desk = Desk("pi", 60, clock)
    desk.offer("key", gone)
    assert [desk.take() for _ in range(MOST_TRIES)] == [None] * MOST_TRIES
    assert "gone" in str(desk.collect()["key"].reason)


def test_networks_take_turns(clock: Clock) -> None:
    desk = Desk("pi", 60, clock)
    for key in "ab":
        desk.offer(key, key.encode)
    contents = []
    for _ in range(4):
        job = desk.take()
        assert job is not None
        contents.append(job[1])
        clock.now += 1
        desk.give({"job": job[0], **measurement()})
    assert contents == [b"a", b"b", b"a", b"b"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b"[" * LARGEST_RESULT])
def test_only_objects_of_json_are_read(body: bytes) -> None:
    with pytest.raises(Refused):
        protocol.parse(body)


def test_texts_are_short_and_harmless() -> None:
    assert protocol.text("a\x1b[2J\n b" + "c" * 200).startswith("a\\u001b[2J b")
    assert len(protocol.text("c" * 1000)) == 100


@pytest.mark.parametrize("token", [None, "", "short", "with spaces in the middle", "ä" * 20])
def test_a_token_must_be_one(token: str | None) -> None:
    with pytest.raises(InputError) as error:
        protocol.check_token(token, "--token-file")
    assert token is None or not token or token not in str(error.value)
    assert protocol.check_token(f"{TOKEN}\n", "--token-file") == TOKEN


def test_the_largest_answer_fits() -> None:
    times = list(itertools.repeat(123.4567890123456, protocol.MOST))
    assert len(json.dumps({"job": "0" * 32, **measurement(times_ms=times)})) < LARGEST_RESULT
