"""The networks that wait for a device: which are handed out, to whom, and what came back."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rssearch.agent import protocol
from rssearch.agent.protocol import Measured, Refused

MOST_RUNS = 5  # measurements of a network, of which two must agree
MOST_TRIES = 3  # times that a network comes back with nothing that is believed, before it is put aside


@dataclass
class _Waiting:
    """A network that waits."""

    load: Callable[[], bytes]
    runs: list[Measured] = field(default_factory=list)
    tries: int = 0
    number: str | None = None  # while it is handed out
    since: float = 0.0


@dataclass(frozen=True)
class Ended:
    """What became of a network: its metrics; or None, and the reason why it still waits."""

    metrics: dict[str, Any] | None
    reason: str | None = None


class Desk:
    """Hands out networks to the agent of one device; several threads may call.

    A network is measured twice, and again until two measurements agree. What does not come back within `lease` seconds
    is handed out again, and whoever had it is not listened to any more.

    Args:
        name: of the device.
        lease: seconds.
        clock: seconds that only grow.
    """

    def __init__(self, name: str, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.lease = name, lease
        self._clock, self._lock = clock, threading.Lock()
        self._waiting: dict[str, _Waiting] = {}
        self._ended: dict[str, Ended] = {}
        self._seen: float | None = None

    def offer(self, key: str, load: Callable[[], bytes]) -> None:
        """Have a network measured; `load` gives its ONNX file."""
        with self._lock:
            self._waiting.setdefault(key, _Waiting(load))

    def take(self) -> tuple[str, bytes] | None:
        """The number of a job and its ONNX file; None where there is none. The device is there."""
        with self._lock:
            self._seen = self._clock()
            self._expire()
            free = [(len(job.runs), key) for key, job in self._waiting.items() if job.number is None]
            if not free:
                return None
            key = min(free, key=lambda pair: pair[0])[1]
            job = self._waiting[key]
            job.number, job.since = secrets.token_hex(16), self._clock()
            number = job.number
        try:
            return number, job.load()
        except OSError as error:
            with self._lock:
                if job.number == number:
                    self._failed(key, f"its file cannot be read: {error}")
            return None

    def give(self, said: Mapping[str, Any]) -> None:
        """Take what a device says of a job. Raises Refused where it is not believed; the network waits again then."""
        with self._lock:
            self._seen = self._clock()
            self._expire()
            number = said.get("job")
            key = next((key for key, job in self._waiting.items() if job.number and job.number == number), None)
            if key is None:
                raise Refused("no such job is out: it was handed out again, or never")
            job = self._waiting[key]
            job.number = None
            if (error := said.get("error")) is not None:
                self._failed(key, protocol.text(error, 300), protocol.nothing(self.name))
                return
            try:
                job.runs.append(protocol.measured(said, self._clock() - job.since))
            except Refused as refused:
                self._failed(key, str(refused))
                raise
            self._judge(key)

    def _judge(self, key: str) -> None:
        job = self._waiting[key]
        if pair := protocol.agreeing(job.runs):
            self._end(key, Ended(protocol.metrics(self.name, pair)))
        elif len(job.runs) >= MOST_RUNS:
            medians = ", ".join(f"{run.median_ms:.3g}" for run in job.runs)
            self._end(key, Ended(None, f"its measurements do not agree: {medians} ms"))

    def _failed(self, key: str, why: str, metrics: dict[str, Any] | None = None) -> None:
        """Count a try; the last one ends the network with these metrics, or lets it wait for another session."""
        job = self._waiting[key]
        job.number, job.tries = None, job.tries + 1
        if job.tries >= MOST_TRIES:
            self._end(key, Ended(metrics, why))

    def _expire(self) -> None:
        for key, job in list(self._waiting.items()):
            if job.number is not None and self._clock() - job.since > self.lease:
                self._failed(key, f"it was handed out {MOST_TRIES} times, and did not come back in {self.lease:g} s")

    def _end(self, key: str, ended: Ended) -> None:
        del self._waiting[key]
        self._ended[key] = ended

    def collect(self) -> dict[str, Ended]:
        """What has come to an end since the last call."""
        with self._lock:
            self._expire()
            found, self._ended = self._ended, {}
            return found

    def left(self) -> list[str]:
        """Which networks still wait."""
        with self._lock:
            return list(self._waiting)

    def idle(self) -> float | None:
        """Seconds since the device was heard of; 0 while it has a job, None if it never was."""
        with self._lock:
            self._expire()
            if any(job.number is not None for job in self._waiting.values()):
                return 0.0
            return None if self._seen is None else self._clock() - self._seen
