"""What is recorded of a trial: how it ended, and the line of the journal that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, overload

__all__ = ["Epochs", "Status", "TrialRecord"]


class Status(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    STOPPED = "stopped"  # by early stopping, before its last epoch
    INFEASIBLE = "infeasible"  # it breaks a constraint
    FAILED = "failed"


class Epochs(Sequence[dict[str, Any]]):
    """One mapping for each epoch, kept as JSON: a quarter of the memory, and a large study has a million epochs."""

    __slots__ = ("_count", "_text")

    def __init__(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        self._count, self._text = len(epochs), json.dumps(list(epochs), separators=(",", ":")).encode()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: Any) -> Any:
        return json.loads(self._text)[place]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(json.loads(self._text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    __hash__ = None  # type: ignore[assignment]  # as of a list


@dataclass(frozen=True)
class TrialRecord:
    """A trial, or a baseline that trials share.

    Attributes:
        key: its content key.
        point: what it was made of.
        status: how it ended; None while it runs.
        kind: ``trial``, ``baseline``, or ``running`` for a trial that has passed a rung and has not ended.
        title: for people.
        params: its point as MLflow shows it.
        reason: why it failed or was stopped.
        metrics: what it reported at its end.
        history: one entry for each epoch.
        best: the best value of each objective over the epochs.
        started: seconds since 1970; 0 where an older release did not write it.
        ended: likewise.
        measured: what only members of the front are measured for.
        more: what another release has written beside these.
    """

    key: str
    point: dict[str, Any]
    status: Status | None = None
    kind: str = "trial"
    title: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    history: Sequence[dict[str, Any]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    measured: dict[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.kind == "running"

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> TrialRecord:
        """The record of a line, checked by `rssearch.storage.journal_lines.parse`."""
        known = {name: value for name, value in line.items() if name in _NAMES}
        status = line.get("status")
        more = {name: value for name, value in line.items() if name not in _NAMES}
        return cls(**known | {"status": None if status is None else Status(status), "more": more})

    def to_json(self) -> dict[str, Any]:
        """The line of a trial: of one that has ended, or of one that runs."""
        if self.is_running:
            names: tuple[str, ...] = ("key", "kind", "point", "history")
        else:
            names = _LINE
        return {name: getattr(self, name) for name in names} | {"history": list(self.history)} | dict(self.more)


_LINE = (
    *("kind", "key", "title", "point", "params", "status", "reason"),
    *("metrics", "history", "best", "started", "ended", "measured"),
)
_NAMES = {item.name for item in fields(TrialRecord)} - {"more"}
