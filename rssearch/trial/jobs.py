"""What the driver hands to a worker, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rssearch.storage.records import Status

__all__ = ["LATER", "Job", "Outcome"]


class Job(NamedTuple):
    """A trial to run, or something else that a function of its module does.

    Attributes:
        key: its content key.
        point: what the function gets.
        function: of the trial's module; None: the trial's own.
    """

    key: str
    point: dict[str, Any]
    function: str | None = None

    @classmethod
    def given(cls, config: Mapping[str, Any]) -> Job:
        """The job in a worker's configuration, `Job._asdict` and what a retry added."""
        return cls(config["key"], config["point"], config["function"])

    @property
    def name(self) -> str:
        """What tells it from all others of a study: a trial and its measurement have one key."""
        return self.key if self.function is None else f"{self.function} {self.key}"


LATER = Job("", {})  # stands for a next job while none can start before another has ended


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: of the job.
        metrics: what it reported at its end, or what is known of one that did not finish.
        reason: why it failed or was stopped, in one sentence.
        notes: warnings of the worker.
        traceback: of an exception that the trial did not mean to raise.
    """

    status: Status
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    notes: tuple[str, ...] = ()
    traceback: str | None = None

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> Outcome:
        """The outcome in the last report of a worker, see `rssearch.backend.trainable`."""
        return cls(
            status=Status(report["status"]),
            metrics=dict(report.get("metrics") or {}),
            reason=report.get("reason"),
            notes=tuple(report.get("notes", ())),
            traceback=report.get("traceback"),
        )
