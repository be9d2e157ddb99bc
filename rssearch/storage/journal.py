"""What has ended, on disk: one JSON line for each trial of a study; with early stopping also one for each rung passed.

This file (in an object store: the objects below its name) is what a study resumes from. MLflow holds the same for
people to look at, but may be away.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rssearch.storage import journal_lines
from rssearch.storage.location import Location, Remote, move, write_atomic
from rssearch.storage.records import Epochs, TrialRecord

_log = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0
_PART = 1 << 16  # bytes
_NAMED = 3  # damaged lines that a warning names


class Journal:
    """The records of a study by the content key of their trial. A later record of a key replaces the earlier one.

    Lines that are damaged, or that add to a record which is lost, stay in the file and are left out with a warning:
    their trials have not ended, and run again.

    Attributes:
        records: by key; trials stand in the order in which they ended.
        damaged: where a line was left out, and why.
    """

    def __init__(self, path: Location) -> None:
        self.path = path
        self.records: dict[str, TrialRecord] = {}
        self._lines_of: dict[str, dict[str, Any]] = {}  # all that the lines of a key say together
        self.damaged: list[str] = []
        self._read()

    def _read(self) -> None:
        self._lines = _Parts(self.path) if isinstance(self.path, Remote) else _File(self.path)
        self.damaged = []
        for place, line in self._lines.read():
            try:
                self._keep(journal_lines.parse(line, self._lines_of))
            except ValueError as error:
                self.damaged.append(f"{place}: {error}")
        if self.damaged:
            shown = "; ".join(self.damaged[:_NAMED]) + ("; ..." if len(self.damaged) > _NAMED else "")
            what = "1 line is" if len(self.damaged) == 1 else f"{len(self.damaged)} lines are"
            _log.warning("%s: %s damaged and left out: a trial that it lost runs again (%s)", self.path, what, shown)

    def add(self, record: TrialRecord) -> None:
        """Append a record.

        When this returns, the record survives the death of the process. It survives that of the machine unless it came
        within a second of the one before, which spares short trials the wait for the disk.

        Raises:
            OSError: the disk is full, for example; the earlier records are as they were.
        """
        self._append(record.to_json())

    def extend(self, key: str, **values: Any) -> None:
        """Append what became known of a recorded trial: more epochs (`history`), or what was `measured`.

        Raises:
            OSError: as `add`.
        """
        self._append({"key": key, **values})

    def _append(self, line: dict[str, Any]) -> None:
        self._lines.append(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._keep(line)

    def _keep(self, line: dict[str, Any]) -> None:
        """Take over a line. Values of the lines before that it lacks are kept."""
        key = line["key"]
        before = self._lines_of.get(key, {})
        if before.get("kind") == "running":  # trials stand in the order in which they ended
            self.records.pop(key)
        if line.get("history"):
            line = line | {"history": Epochs(line["history"])}
        self._lines_of[key] = before | line
        self.records[key] = TrialRecord.from_json(self._lines_of[key])

    def archive(self) -> Location | None:
        """Put the records away under a name with the time, and begin an empty journal. None where there were none."""
        known, self.records, self._lines_of = self.records, {}, {}
        if not known and not self.damaged and not self.path.is_file():
            return None
        target = self.path.parent / f"{self.path.stem}-until-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
        move(self.path, target)
        self._read()
        return target


class _File:
    """Lines of a file, to which one process appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = -math.inf
        self._whole: int | None = None  # bytes of whole lines, where the file ends within one
        self._open = False  # the last line is whole but for its end
        self._found = path.parent.is_dir()

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Each line, and where it stands. What a killed writer left of its last line is no line."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._open = journal_lines.is_whole(content[len(whole) :])  # an editor took the end of the line away
            self._whole = None if self._open else len(whole)
            whole = content if self._open else whole
        return ((f"line {number}", line) for number, line in enumerate(whole.splitlines(), 1) if line.strip())

    def append(self, line: bytes) -> None:
        if not self._found:  # one that was there and is not any more has been deleted: it is not made again
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._found = True
        if self._whole is not None and self.path.exists():  # the last writer did not get to the end of its line
            with self.path.open("r+b") as file:
                file.truncate(self._whole)
        line = b"\n" + line if self._open else line
        self._whole, self._open = None, False
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                if time.monotonic() - self._synced > _SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            self._whole = before  # a part of the line may be there
            error.filename = error.filename or str(self.path)
            raise


class _Parts:
    """Lines in an object store, which cannot append to an object.

    They lie in parts of at most `_PART` bytes. A session rewrites its last part with every line: one request, of a
    few milliseconds, after which the line is there for good. Each session has parts of its own, so that nothing is lost
    even if two should ever run at the same time.
    """

    def __init__(self, folder: Remote) -> None:
        self.folder = folder
        self._session, self._part, self._content = "", 0, b""

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Each line, and where it stands; sessions in the order in which they began."""
        parts = self.folder.tree()
        sessions = [int(part.name.partition("-")[0]) for part in parts]
        self._session = f"{max(sessions, default=0) + 1:05}-{uuid.uuid4().hex[:8]}"
        return (
            (f"{part.name}, line {number}", line)
            for part, content in parts.items()
            for number, line in enumerate(content.splitlines(), 1)
            if line.strip()
        )

    def append(self, line: bytes) -> None:
        if self._content and len(self._content) + len(line) > _PART:
            self._part, self._content = self._part + 1, b""
        write_atomic(self.folder / f"{self._session}-{self._part:05}.jsonl", self._content + line)
        self._content += line


def flat(record: TrialRecord) -> dict[str, Any]:
    """A trial's record as one row of trials.csv: its point, its metrics, and how it ended.

    A dimension that is also a metric, such as ``macs_ratio``, keeps its realised value under its name and the value
    that was asked for as ``requested_macs_ratio``.
    """
    point, metrics = record.point, record.metrics
    asked = {f"requested_{name}": value for name, value in point.items() if name in metrics}
    status = record.status and record.status.value
    row = {"key": record.key, "status": status, **point, **asked, **metrics}
    # What a trial or a measurement says cannot change which trial it is, and how it ended.
    own = {"key": record.key, "status": status, "reason": record.reason}
    return row | (record.measured or {}) | own


def dimension_columns(space: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of `rows` that hold what the dimensions of a space asked for."""
    columns = {name for row in rows for name in row}
    return [f"requested_{name}" if f"requested_{name}" in columns else name for name in space]
