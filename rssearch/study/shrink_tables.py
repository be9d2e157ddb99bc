"""What `rssearch shrink` prints: the sizes that were tried for a latency, and what the network lost and gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rssearch.front import gains
from rssearch.metrics import DIFFERENCE, human, is_quality, title_of
from rssearch.report.cells import DISTURBED, FOOTNOTE, SPREAD, cell, speedup_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["sizes", "table", "too_lossy", "too_noisy"]

Row = Mapping[str, Any]

_QUALITIES = ("val_accuracy", "test_accuracy", "val_miou", "test_miou", "val_map", "test_map")
_MEASURES = (*_QUALITIES, "macs", "params", "bytes", "latency_ms")
_LATENCY = "latency_ms"
_LOSS = 0.1  # of a quality: more may come back with more training
_NOISE = 0.5  # of a median: a latency that varies by more says little of the network


def table(row: Row, limit: float | None = None) -> Table:
    """Before, after, and what was lost and gained, for the console.

    Args:
        row: of the trial, measured.
        limit: milliseconds that were asked for.
    """
    full = gains.compared(row)
    before = {name: full.get(f"baseline_{name}") for name in (*_MEASURES, "latency_iqr_ms")}
    lines = [
        (title_of(name), cell(before, name), cell(full, name), _change(full, name))
        for name in _MEASURES
        if full.get(name) is not None
    ]
    result = _table(("", "before", "after", "lost and gained"), lines, [before, full])
    if limit is not None:
        _below(result, f"asked for: at most {limit:g} ms")
    return result


def _change(row: Row, name: str) -> str:
    if is_quality(name):
        return f"{cell(row, name + DIFFERENCE)} points" if row.get(name + DIFFERENCE) is not None else ""
    if name == _LATENCY:
        return f"{cell(row, speedup_of(name))} as fast" if row.get(speedup_of(name)) is not None else ""
    ratio = row.get(f"{name}_ratio")
    return f"{human(f'{name}_ratio', ratio)} left" if ratio is not None else ""


def sizes(rows: Sequence[Row], limit: float, chosen: str | None) -> Table:
    """The sizes that were tried for a latency, the largest first.

    Args:
        rows: of the trials.
        limit: milliseconds.
        chosen: key of the network that is taken; None: none is.
    """
    quality = next((name for name in ("val_miou", "val_accuracy") if any(row.get(name) for row in rows)), None)
    columns = ["macs_ratio", _LATENCY, *([quality] if quality else [])]
    ordered = sorted(rows, key=lambda row: -float(row.get("requested_macs_ratio") or row.get("macs_ratio") or 0))
    lines = [(*(cell(row, name) for name in columns), _state(row, limit, chosen)) for row in ordered]
    return _table((*map(title_of, columns), f"at most {limit:g} ms"), lines, ordered)


def _state(row: Row, limit: float, chosen: str | None) -> str:
    if row["key"] == chosen:
        return "kept, and taken"
    if row.get(_LATENCY) is not None and float(row[_LATENCY]) > limit:
        return "refused"
    return "kept" if row["status"] == "finished" else str(row["status"])


def too_lossy(row: Row, epochs: int, batch_size: int) -> str | None:
    """What may help where much was lost; None where not.

    Args:
        row: of the trial.
        epochs: of its fine-tuning.
        batch_size: images of a step of it.
    """
    full = gains.compared(row)
    lost = [name for name in _MEASURES if (full.get(name + DIFFERENCE) or 0.0) < -_LOSS]
    if not lost:
        return None
    return (
        f"{cell(full, lost[0] + DIFFERENCE)} points of {title_of(lost[0])[:1].lower()}{title_of(lost[0])[1:]} may come "
        f"back with more --epochs than {epochs}, more steps in each (--set settings.finetune.batch_size=32, now "
        f"{batch_size}), another --set settings.finetune.lr, or more of the MACs"
    )


def too_noisy(rows: Sequence[Row], limit: float | None) -> str | None:
    """What is to be said where latencies that decide vary too much to decide anything; None where they do not."""
    if limit is None:
        return None
    timed = [row for row in rows if row.get(_LATENCY) is not None]
    noisy = [row for row in timed if _is_noise(float(row[_LATENCY]), gains.spread(row, _LATENCY) or 0.0, limit)]
    if not noisy:
        return None
    return (
        f"the latencies of {len(noisy)} of {len(timed)} sizes vary by more than half of their median, because the "
        f"machine had other work: which of them keep {limit:g} ms rests on chance. Once it is idle, the same command "
        "with another --storage measures again"
    )


def _is_noise(median: float, spread: float, limit: float) -> bool:
    """Whether a latency varies so much that it might as well lie on the other side of the limit."""
    return spread > _NOISE * median and abs(median - limit) < spread


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]], rows: Sequence[Row]) -> Table:
    """A table whose first column is a name, with what its signs mean below it."""
    from rich.table import Table

    result = Table(box=None, padding=(0, 2), caption_justify="left")
    for title in titles:
        result.add_column(title, justify="right" if title else "left")
    for line in lines:
        result.add_row(*line)
    if any(gains.spread(row, _LATENCY) is not None for row in rows):
        _below(result, SPREAD)
    if any(DISTURBED in text for line in lines for text in line):
        _below(result, FOOTNOTE)
    return result


def _below(result: Table, text: str) -> None:
    result.caption = f"{result.caption}\n{text}" if result.caption else text
