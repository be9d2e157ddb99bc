"""A value of a trial, of a mean or of a baseline as people read it, and what a trial lost and gained in a line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rssearch.front import gains, seeds
from rssearch.metrics import DIFFERENCE, SPEEDUP, WORDS, human, is_difference, number, title_of

DISTURBED = "‡"  # a latency whose interquartile range is above a tenth of its median
FOOTNOTE = f"{DISTURBED} interquartile range above a tenth of the median: the machine had other work"
SPREAD = "Latency: median (interquartile range)"
QUALITIES = ("val_accuracy", "test_accuracy", "val_miou", "test_miou", "val_map", "test_map")

Row = Mapping[str, Any]


def cell(row: Row, name: str) -> str:
    """A value with its unit and its spread: the standard deviation over seeds, or a latency's interquartile range.

    A latency with a large one is marked, and so is a speed-up that rests on it.
    """
    value = row.get(name)
    if number(value) is None:
        return human(name, value)
    mark = DISTURBED if any(gains.is_disturbed(row, latency) for latency in _of_latencies(row, name)) else ""
    if is_difference(name):
        return human(name, _as_printed(row, name))
    if (wide := gains.spread(row, name)) is not None:
        return f"{value:.3g} ({wide:.2g}){mark}"
    return human(name, value, row.get(name + seeds.STD)) + mark


def _as_printed(row: Row, name: str) -> float:
    """The difference of two qualities as they are printed, so that readers who subtract find the same."""
    quality = name.removesuffix(DIFFERENCE)
    own, whole = number(row.get(quality)), number(row.get(gains.BEFORE + quality))
    if own is None or whole is None:
        return float(row[name])
    return (round(100 * own, 1) - round(100 * whole, 1)) / 100


def latencies(rows: Sequence[Row]) -> list[str]:
    """The latencies that some row has: that of one image in eager mode first."""
    return sorted({name for row in rows for name, value in row.items() if name.startswith("latency_ms") if value})


def speedup_of(latency: str) -> str:
    """The speed-up that belongs to a latency."""
    return SPEEDUP + latency.removeprefix("latency_ms")


def _of_latencies(row: Row, name: str) -> tuple[str, ...]:
    """The latencies that a value rests on: itself, or the two of a speed-up, which that of a baseline has not."""
    if not name.startswith(SPEEDUP):
        return (name,)
    latency = "latency_ms" + name.removeprefix(SPEEDUP)
    return (latency, gains.BEFORE + latency) if gains.BEFORE + latency in row else ()


def notes(rows: Sequence[Row], without: Collection[str] = ()) -> list[str]:
    """What the cells of trials, of means and of their baselines mean, in lines of less than 80 letters.

    Nothing is said of the measures that the table is `without`.
    """
    baselines = gains.baselines(rows)
    lines = []
    if any(name.endswith(DIFFERENCE) for row in rows for name in row):
        lines.append("Difference: percentage points to the baseline, the network before pruning")
    if "bytes" not in without and any(row.get("bytes") is not None for row in rows) and baselines:
        lines.append("Size: float32 weights as they lie on disk (safetensors)" + _fewer(rows))
    timed = [(row, name) for row in (*baselines, *rows) for name in latencies([row])]
    if any(gains.spread(row, name) is not None for row, name in timed):
        lines.append(SPREAD)
    if any(gains.is_disturbed(row, name) for row, name in timed):
        lines.append(FOOTNOTE)
    return lines


def _fewer(rows: Sequence[Row]) -> str:
    """What the size is of where networks are deployed in fewer bits."""
    fewer = any(row.get("precision") not in (None, "fp32") for row in rows)
    return "; of networks in fewer bits, the ONNX model" if fewer else ""


def lost_and_gained(row: Row) -> str:
    """What a trial lost and gained against its baseline, in a line; empty where it does not know any."""
    parts = []
    for name in QUALITIES:
        if row.get(name + DIFFERENCE) is not None:
            title = title_of(name)
            parts.append(f"{title[0].lower()}{title[1:]} {cell(row, name + DIFFERENCE)} points")
    for name in ("macs", "params"):
        if row.get(gains.BEFORE + name) is not None and row.get(f"{name}_ratio") is not None:
            parts.append(f"{human(f'{name}_ratio', row[f'{name}_ratio'])} of the {WORDS[name]}")
    if row.get(gains.BEFORE + "bytes") is not None and row.get("bytes") is not None:
        parts.append(f"{human('bytes', row['bytes'])} instead of {human('bytes', row[gains.BEFORE + 'bytes'])}")
    timed = next((name for name in latencies([row]) if row.get(speedup_of(name)) is not None), None)
    if timed is not None:
        parts.append(f"{cell(row, speedup_of(timed))} as fast")
    return ", ".join(parts)
