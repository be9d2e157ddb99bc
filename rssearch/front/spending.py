"""What the trials of a front took in all: each its own compute, and what several share counted once.

A trial's row has ``compute``, the MACs of its own training and evaluations, and ``shared_compute``, those of what it
shares by their keys: ``baseline-...``, ``search-...``, ``scores-...`` (see `rssearch.cost.compute` for the unit); and
``scratch_compute``, what training its network from scratch by the recipe of its baseline would have taken. Rows of
earlier releases, and of trials that do not report them, have none: then the sum is not known, and never taken as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from rssearch.metrics import number

__all__ = ["COMPUTE", "SHARED", "Spent", "running", "shared_of", "spent"]

COMPUTE, SHARED, FROM_SCRATCH = "compute", "shared_compute", "scratch_compute"
TRIALS = "trials"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Spent:
    """What some trials took.

    Attributes:
        macs: all of it; None where that is not known.
        parts: the same by what it was for: baseline, search, scores, ..., and trials.
        counts: how many there are of each of them.
        unknown: trials that have trained and do not say what they took.
        failed: trials that failed, so that nothing is known of them; they are not in the sum.
        from_scratch: what training the finished networks from their own initialisations would take; None where that is
            not known of all of them.
    """

    macs: int | None
    parts: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0
    failed: int = 0
    from_scratch: int | None = None


def spent(rows: Iterable[Row]) -> Spent:
    """What trials, or means of them, took. Trials that were refused for their cost took nothing."""
    parts, counts, shared = Counter[str](), Counter[str](), dict[str, int]()
    unknown = failed = again = 0
    compared = True
    for row in rows:
        trials, own = int(row.get("seeds", 1)), number(row.get(COMPUTE))
        if own is not None:
            counts[TRIALS] += trials
            parts[TRIALS] += round(own * trials)
            shared |= shared_of(row)
            if row.get("status") == "finished":
                compared &= (scratch := number(row.get(FROM_SCRATCH))) is not None
                again += round((scratch or 0) * trials)
        elif row.get("status") == "failed":
            failed += trials
        elif row.get("status") != "infeasible":
            unknown += trials
    for key, macs in shared.items():
        parts[_kind(key)] += macs
        counts[_kind(key)] += 1
    known = bool(parts) and not unknown
    return Spent(
        sum(parts.values()) if known else None,
        dict(parts),
        dict(counts),
        unknown,
        failed,
        again if known and compared and again else None,
    )


def running(rows: Sequence[Row]) -> list[int] | None:
    """What was spent after each trial, in their order: what is shared counts where it is used first.

    None where it is not known of all of them.
    """
    if spent(rows).macs is None:
        return None
    seen: set[str] = set()
    steps = []
    for row in rows:
        new = {key: macs for key, macs in shared_of(row).items() if key not in seen}
        seen |= new.keys()
        steps.append(round((number(row.get(COMPUTE)) or 0) * row.get("seeds", 1)) + sum(new.values()))
    return list(accumulate(steps))


def shared_of(row: Row) -> dict[str, int]:
    """What a row shares with others, by its key."""
    found = row.get(SHARED)
    if not isinstance(found, Mapping):
        return {}
    return {str(key): int(macs) for key, value in found.items() if (macs := number(value)) is not None}


def _kind(key: str) -> str:
    return key.partition("-")[0]
