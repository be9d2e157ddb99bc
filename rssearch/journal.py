"""What has ended, on disk: one JSON line for each trial of a study.

This file is what a study resumes from. MLflow holds the same for people to look at, but may be away.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]

_log = logging.getLogger(__name__)
_SYNC_SECONDS = 1.0


class Journal:
    """The records of a study by the content key of their trial. A later record of a key replaces the earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._synced = -math.inf
        self._whole: int | None = None  # bytes of whole lines, where the file ends within one
        if path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._whole = len(whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = json.loads(line)
                self.records[record["key"]] = self.records.get(record["key"], {}) | record
            except (ValueError, KeyError, TypeError) as error:
                _log.warning("%s: line %d is damaged and left out (%s)", self.path, number, error)

    def add(self, record: Record) -> None:
        """Append a record. Values that a known record lacks here are kept.

        When this returns, the record survives the death of the process. It survives that of the machine unless it came
        within a second of the one before, which spares short trials the wait for the disk.
        """
        self.records[record["key"]] = self.records.get(record["key"], {}) | record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, allow_nan=False) + "\n"
        if self._whole is not None:  # the last writer was killed within a line, whose trial has been run again
            with self.path.open("r+b") as file:
                file.truncate(self._whole)
            self._whole = None
        with self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def archive(self) -> Path | None:
        """Put the file away under a name with the time, and begin an empty one. None where there was nothing."""
        self.records = {}
        if not self.path.exists():
            return None
        target = self.path.with_name(f"{self.path.stem}-until-{time.strftime('%Y%m%dT%H%M%S')}{self.path.suffix}")
        self.path.rename(target)
        return target


def flat(record: Record) -> dict[str, Any]:
    """A trial's record as one row of trials.csv: its point, its metrics, and how it ended.

    A dimension that is also a metric, such as ``macs_ratio``, keeps its realised value under its name and the value
    that was asked for as ``requested_macs_ratio``.
    """
    point, metrics = record["point"], record["metrics"]
    asked = {f"requested_{name}": value for name, value in point.items() if name in metrics}
    row = {"key": record["key"], "status": record["status"], **point, **asked, **metrics}
    return row | (record.get("measured") or {}) | {"reason": record.get("reason")}


def dimension_columns(space: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of `rows` that hold what the dimensions of a space asked for."""
    columns = {name for row in rows for name in row}
    return [f"requested_{name}" if f"requested_{name}" in columns else name for name in space]
