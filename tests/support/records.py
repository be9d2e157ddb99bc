"""Records of trials, as a journal holds them."""

from __future__ import annotations

from typing import Any

from rssearch.storage.records import TrialRecord


def ended(key: str, status: str = "finished", **more: Any) -> dict[str, Any]:
    """A whole record of a trial; `more` replaces parts of it."""
    return {
        "kind": "trial",
        "key": key,
        "title": f"trial {key}",
        "point": {"rate": 0.5},
        "params": {"rate": 0.5},
        "status": status,
        "reason": None,
        "metrics": {"val_accuracy": 0.75, "macs": 100},
        "history": [],
        "best": {},
        "started": 1_700_000_000.0,
        "ended": 1_700_000_010.0,
        "measured": None,
    } | more


def record(key: str, status: str = "finished", **more: Any) -> TrialRecord:
    """The same as a record."""
    return TrialRecord.from_json(ended(key, status, **more))
