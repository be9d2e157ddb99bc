"""What the trials of a front took in all, in a line for people."""

from __future__ import annotations

from collections.abc import Sequence

from rssearch.front.spending import TRIALS, Spent
from rssearch.front.trials import Front
from rssearch.metrics import human

UNKNOWN = "unknown"
_PLURALS = {
    "baseline": "baselines",
    "finetuned": "fine-tunings",
    "search": "searches",
    "scores": "scores",
    TRIALS: "trials",
}
_ONE = {TRIALS: "trial", "finetuned": "fine-tuning"}


def text(found: Spent) -> str:
    """``1.2 P MACs``, or that it is not known."""
    return UNKNOWN if found.macs is None else f"{human('compute', found.macs)} MACs"


def notes(fronts: Sequence[Front]) -> list[str]:
    """A line for each front that is not empty."""
    return [_note(front, named=len(fronts) > 1) for front in fronts if front.members]


def _note(front: Front, *, named: bool) -> str:
    found = front.spent
    of = f" on {front.dataset}" if named and front.dataset else ""
    if found.macs is None:
        return f"Compute{of}: unknown, as trials ({found.unknown}) do not say what they took"
    counts = [
        f"{found.counts[kind]} {_PLURALS.get(kind, kind) if found.counts[kind] > 1 else _ONE.get(kind, kind)}"
        for kind in sorted(found.counts, key=lambda kind: (kind == TRIALS, kind))
    ]
    failed = f", failed trials ({found.failed}) not counted" if found.failed else ""
    return f"Compute{of}: {text(found)} of {', '.join(counts)}, forward and backward{failed}{_compared(found)}"


def _compared(found: Spent) -> str:
    """What the same networks from scratch would take, where that is less."""
    if found.macs is None or found.from_scratch is None or found.from_scratch >= found.macs:
        return ""
    less = human("compute", found.from_scratch)
    return f"; the same networks trained from scratch (method scratch) would take less: {less} MACs"
