"""The data of the page: what ``page.js`` reads. Whatever needs to be known of metrics and fronts is decided here.

A table of trials is a list of columns ``{"name", "title", "text": [N], "number": [N] or null}``, because names are not
repeated so; texts are for people (`rssearch.report.cells.cell`), numbers for axes and for sorting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rssearch.front import gains, seeds
from rssearch.front.spending import SHARED, running
from rssearch.front.trials import Front, Row, progress
from rssearch.metrics import (
    DIFFERENCE,
    RATIOS,
    SPEEDUP,
    axis,
    is_calibration,
    is_count,
    is_difference,
    is_share,
    is_size,
    number,
    title_of,
)
from rssearch.report.cells import cell, latencies, speedup_of
from rssearch.report.columns import COLUMNS
from rssearch.report.figures import caption
from rssearch.report.look import colours_of, markers_of
from rssearch.report.page.dimensions import explained
from rssearch.report.page.study_files import Channels
from rssearch.report.tables import KEY_DIGITS, varying
from rssearch.scores import PER_CLASS

if TYPE_CHECKING:
    from rssearch.config.schema import Bound

# in the order of figures.MARKERS
SYMBOLS = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("cross", "triangle-left", "triangle-right", "hexagon", "x"),
)
RESULTS = (
    "test_accuracy",
    "test_miou",
    "test_map",
    "macs",
    "macs_ratio",
    "params",
    "bytes",
    "latency_ms",
    "train_seconds",
    "compute",
)
# Of the columns of a plot's points: a latency shows its interquartile range itself, the rest is for other programs.
UNSEEN = ("status", "keys", seeds.BY_SEED, "split_hash", "macs_counter", SHARED)
NO_LINES = ("baseline_", "latency_iqr", "latency_passes")
NO_AXES = ("baseline_", "seed", "images_skipped", "test_images", "latency_passes", "latency_threads", "latency_iqr")


def payload(
    found: Sequence[Front],
    averaged: Sequence[Front] | None,
    study: str,
    constraints: Mapping[str, Bound],
    dimensions: Sequence[str] | None,
    channels: Mapping[str, Channels] | None,
) -> dict[str, Any]:
    """Everything that the page draws, as JSON takes it but for NumPy scalars and what is not finite.

    Args:
        found: the fronts of the trials.
        averaged: the fronts of the means, where seeds vary: they are drawn then, and the table stays with trials.
        study: the name.
        constraints: limits of metrics.
        dimensions: the columns that were asked for.
        channels: of members of the front by key, see `StudyFiles`.
    """
    shown = averaged or found
    metrics = _metrics(shown)
    hue, colours = colours_of(shown)
    objectives = found[0].objectives
    y = next((name for name, direction in objectives.items() if direction == "max"), next(iter(objectives)))
    others = sorted((name for name in objectives if name != y), key=lambda name: objectives[name] != "min")
    return {
        "study": study,
        "objectives": dict(objectives),
        "metrics": metrics,
        "axes": {"x": others[0] if others else "", "y": y, "colour": others[1] if len(others) > 1 else ""},
        "limits": {name: bound.model_dump() for name, bound in constraints.items()},
        "hue": {"title": title_of(hue) if hue else "", "colours": colours},
        "symbols": {name: SYMBOLS[i] for name, i in markers_of(shown).items()},
        "fronts": [_drawn(front, trials, metrics, hue) for front, trials in zip(shown, found, strict=True)],
        "dimensions": [explained(front, dimensions) for front in found if front.trials],
        "trials": _all_trials(found, shown, dimensions),
        "members": _members(found, shown, dimensions, channels or {}),
    }


def named(row: Row) -> list[str]:
    """The keys of the trials that a row of a front stands for."""
    return [str(key) for key in row.get("keys", [row["key"]])]


def _metrics(found: Sequence[Front]) -> list[dict[str, Any]]:
    """The numbers that vary among the finished trials: objectives, then results, then the others."""
    finished = [row for front in found for row in (*front.members, *front.dominated)]
    points = [*finished, *(row for front in found for row in front.baselines)]
    objectives = found[0].objectives
    metrics = []
    for name in _columns(finished, first=(*objectives, *_first(finished))):
        values = [value for row in points if (value := number(row.get(name))) is not None]
        dull = len(set(values)) < 2 or name.startswith(NO_AXES) or name.endswith((seeds.STD, seeds.INTERVAL))
        if dull and name not in objectives:
            continue
        label, factor = axis(name, values)
        direction = objectives.get(name) or _direction(name)
        metrics.append({"name": name, "title": title_of(name), "label": label, "factor": factor, "better": direction})
    return metrics


def _direction(name: str) -> str | None:
    """Which values of a metric are better; None where that is not known, as of a rate."""
    if name.startswith("requested_"):
        return None
    costs = is_count(name) or is_size(name) or "latency" in name or name.startswith("energy")
    if costs or is_calibration(name) or name.endswith((*RATIOS, "seconds", "loss")):
        return "min"
    good = is_share(name) or is_difference(name) or name.endswith("kappa") or name.startswith(SPEEDUP)
    return "max" if good else None


def _first(rows: Sequence[Row]) -> list[str]:
    """The columns of the contract, each beside what it lost or gained, then sizes and latencies."""
    timed = [name for latency in latencies(rows) for name in (latency, speedup_of(latency))]
    return [*(name for column in COLUMNS for name in (column, column + DIFFERENCE)), "bytes", "bytes_ratio", *timed]


def _columns(rows: Sequence[Row], first: Sequence[str] = COLUMNS) -> list[str]:
    present = dict.fromkeys(name for row in rows for name in row if not name.endswith(PER_CLASS))
    return [*(name for name in dict.fromkeys(first) if name in present), *sorted(set(present).difference(first))]


def _table(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    table = []
    for name in names:
        numbers = [number(row.get(name)) for row in rows]
        table.append(
            {
                "name": name,
                "title": title_of(name),
                "text": [cell(row, name) for row in rows],
                "number": numbers if any(value is not None for value in numbers) else None,
            }
        )
    return table


def _states(front: Front) -> dict[int, str]:
    states = {id(row): "on the front" for row in front.members}
    for name in ("dominated", "infeasible", "stopped", "failed"):
        states |= {id(row): name for row in getattr(front, name)}
    return states


def _text(row: Row, name: str | None) -> str:
    value = row.get(name) if name else None
    return "" if value is None else str(value)


def _drawn(front: Front, trials: Front, metrics: Sequence[Mapping[str, Any]], hue: str | None) -> dict[str, Any]:
    """One plot: its points are all trials (or means) but the stopped ones, whose quality is that of an early epoch."""
    rows = [row for row in front.trials if row["status"] != "stopped"]
    states, count = _states(front), {id(row): i + 1 for i, row in enumerate(front.trials)}
    names = [name for name in _columns(rows, _first(rows)) if name not in UNSEEN and not name.startswith(NO_LINES)]
    names = [name for name in names if not name.endswith((seeds.STD, seeds.INTERVAL))]
    measured = [str(metric["name"]) for metric in metrics]
    bars = {name: [_bar(row, name) for row in rows] for name in measured}
    return {
        "dataset": front.dataset,
        "caption": caption(front),
        "note": front.note,
        "knee": None if front.knee is None else front.knee["key"],
        "ties": sorted(seeds.ties(front.members, front.objectives)),
        "incomplete": sorted(seeds.incomplete([*front.members, *front.dominated])),
        "keys": [row["key"] for row in rows],
        "trial": [count[id(row)] for row in rows],
        "state": [states[id(row)] for row in rows],
        "hue": [_text(row, hue) for row in rows],
        "model": [_text(row, "model") for row in rows],
        "columns": _table(rows, names),
        "bars": {name: values for name, values in bars.items() if any(values)},
        "baselines": [_baseline(row, measured, rows) for row in gains.baselines(front.trials)],
        "progress": _progress(trials),
    }


def _bar(row: Row, name: str) -> float | None:
    """Half the length of an error bar: a standard deviation, or of a latency half the interquartile range."""
    wide = gains.spread(row, name)
    return number(row.get(name + seeds.STD)) if wide is None else wide / 2


def _baseline(before: Row, measured: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """A baseline: its model, its metrics, and what is told of it, as lines of a title and a text."""
    told = [name for name in _first(rows) if before.get(name) is not None and not is_difference(name)]
    told = [name for name in told if not name.startswith(SPEEDUP) and name not in RATIOS and name != "dataset"]
    of = [["of", ", ".join(before["methods"])]] if "methods" in before else []
    return {
        "model": _text(before, "model"),
        "lines": [*of, *([title_of(name), cell(before, name)] for name in told)],
        **{name: before[name] for name in measured if name in before},
    }


def _progress(front: Front) -> dict[str, Any]:
    """Hypervolume after each trial, and what the trials had taken by then; None where it is not known.

    Seconds are those of the trials alone, compute has what they share as well.
    """
    spent = [number(trial.get("train_seconds")) for trial in front.trials]
    return {
        "volume": progress(front),
        "relative": front.relative_hypervolume is not None and bool(front.baselines),
        "seconds": list(accumulate(value or 0.0 for value in spent)) if any(spent) else None,
        "compute": running(front.trials),
    }


def _all_trials(found: Sequence[Front], shown: Sequence[Front], dimensions: Sequence[str] | None) -> dict[str, Any]:
    """The table of all trials: how each ended, what varies of what was asked for, results, and why it has none."""
    rows = [row for front in found for row in front.trials]
    on_front = {key for front in shown for row in front.members for key in named(row)}
    knees = {key for front in shown if front.knee is not None for key in named(front.knee)}
    states = {i: state for front in found for i, state in _states(front).items()}
    asked, constant = varying(rows, dimensions)
    present = {name for row in rows for name, value in row.items() if value is not None}
    names = [*asked, *found[0].objectives, *(name for name in RESULTS if name in present), "reason", "key"]

    def state(row: Row) -> str:
        if row["key"] in on_front:
            return "★ knee" if row["key"] in knees else "● on the front"
        return "dominated" if (how := states[id(row)]) == "on the front" else how  # one lucky seed is not the front

    return {
        "columns": _table(rows, [name for name in dict.fromkeys(names) if name in present]),
        "state": [state(row) for row in rows],
        "member": [row["key"] in on_front for row in rows],
        "constant": constant,
    }


def _members(
    found: Sequence[Front], shown: Sequence[Front], dimensions: Sequence[str] | None, channels: Mapping[str, Channels]
) -> list[dict[str, Any]]:
    """The trials of the fronts whose channels are known, by rising cost."""
    rows = [row for front in found for row in front.trials]
    of_key = {row["key"]: row for row in rows}
    asked, _ = varying(rows, dimensions)
    knees = {key for front in shown if front.knee is not None for key in named(front.knee)}
    members = []
    for front in shown:
        for key in (key for row in front.members for key in named(row) if key in channels):
            row = of_key[key]
            names = dict.fromkeys((*asked, *front.objectives))
            values = [f"{title_of(name)} {cell(row, name)}" for name in names if row.get(name) is not None]
            text = ", ".join(values) or str(key)[:KEY_DIGITS]
            members.append(
                {
                    "key": key,
                    "model": _text(row, "model"),
                    "name": ("★ " if key in knees else "") + text,
                    "knee": key in knees,
                    "layers": [[layer, *widths] for layer, widths in channels[key].items()],
                }
            )
    return members
