"""Several studies side by side: whose front is better, by how much, and for how much computing.

Fronts are those of single trials, also where a study varies the seed. They are compared per dataset, by the objectives
that all studies share, each study within its own constraints. Instead of studies their methods can be compared: then
each method of each study has a front of its own.

Where there are several seeds, the trials of each seed have a front as well, and the hypervolumes of these are compared
seed by seed, see `rssearch.front.pairs`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rssearch.errors import InputError, unknown
from rssearch.escaping import printable
from rssearch.front import pairs
from rssearch.front.pareto import Direction, hypervolume
from rssearch.front.seeds import SEED
from rssearch.front.spending import running
from rssearch.front.trials import Front, Row, fronts, progress
from rssearch.metrics import human, title_of
from rssearch.report import compare_pairs
from rssearch.report.comparison import Comparison, Entry, coverage
from rssearch.report.recorded import Recorded
from rssearch.report.spending import UNKNOWN
from rssearch.storage.journal import Journal
from rssearch.storage.location import Location, write_atomic

if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA = "rssearch.compare/2"  # the number grows when a reader of the old layout would misread the new one
FORMATS = ("table", "json", "png", "all")
WAYS = ("study", "method")


def compare(studies: Sequence[Recorded]) -> list[Comparison]:
    """Compare studies on each dataset that at least two of them have trials on.

    Raises:
        InputError: there are fewer than two studies, one is named twice, or they share no objective or no dataset.
    """
    _check_names([found.study for found in studies], "studies")
    objectives = _shared_objectives(studies)
    found: dict[str | None, list[tuple[Recorded, Front]]] = {}
    for study in studies:
        for front in fronts(study.rows, objectives, study.constraints, study.references):
            if front.trials:
                found.setdefault(front.dataset, []).append((study, front))
    shared = {dataset: those for dataset, those in found.items() if len(those) > 1}
    if not shared:
        each = {
            study.study: [str(d) for d, those in found.items() if any(s is study for s, _ in those)]
            for study in studies
        }
        listed = "; ".join(
            f"{name} has {', '.join(sorted(datasets)) or 'no trials'}" for name, datasets in each.items()
        )
        raise InputError(f"compare: no two of the studies have trials on the same dataset: {listed}")
    return [_compare(dataset, shared[dataset], objectives) for dataset in sorted(shared, key=lambda name: name or "")]


def _check_names(names: Sequence[str], what: str) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"compare: {', '.join(names) or 'nothing'}: must be at least two different {what}")


def by_method(studies: Sequence[Recorded]) -> list[Recorded]:
    """Each method of each study as if it were a study of its own.

    Raises:
        InputError: a study is named twice or has trials without a method, or all studies together have one method.
    """
    names = [found.study for found in studies]
    if len(set(names)) < len(names):
        _check_names(names, "studies")
    found: list[Recorded] = []
    for study in studies:
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in study.rows:
            if row.get("method") is None:
                raise InputError(f"compare --by method: the trials of study {study.study} have no method")
            rows[str(row["method"])].append(row)
        label = "{1}" if len(studies) == 1 else "{0} {1}"
        found += [replace(study, study=label.format(study.study, name), rows=of) for name, of in rows.items()]
    _check_names([each.study for each in found], "methods")
    return found


def _shared_objectives(studies: Sequence[Recorded]) -> dict[str, Direction]:
    shared = {
        name: direction
        for name, direction in studies[0].objectives.items()
        if all(study.objectives.get(name) == direction for study in studies)
    }
    if not shared:
        listed = "; ".join(
            f"{study.study} has {', '.join(f'{name} ({d})' for name, d in study.objectives.items())}"
            for study in studies
        )
        raise InputError(f"compare: the studies share no objective: {listed}")
    return shared


def _compare(
    dataset: str | None, found: Sequence[tuple[Recorded, Front]], objectives: Mapping[str, Direction]
) -> Comparison:
    directions = list(objectives.values())
    reference = _worst([front.reference for _, front in found if front.reference is not None], objectives)
    quality = next((name for name, direction in objectives.items() if direction == "max"), next(iter(objectives)))
    points = [[[float(row[name]) for name in objectives] for row in front.members] for _, front in found]
    volumes = [hypervolume(p, list(reference.values()), directions) if reference and p else 0.0 for p in points]
    unit = math.prod(reference[name] for name, d in objectives.items() if d == "min") if reference else 0.0
    pick = max if objectives[quality] == "max" else min
    scale = unit if unit > 0 else 1.0

    def measured(rows: Sequence[Row]) -> float:
        values = [[float(row[name]) for name in objectives] for row in rows]
        return hypervolume(values, list(reference.values()), directions) / scale if reference and values else 0.0

    entries = [
        Entry(
            study=study.study,
            trials=len(front.trials),
            finished=len(front.members) + len(front.dominated),
            front=len(front.members),
            hypervolume=volume,
            relative_hypervolume=volume / unit if unit > 0 else None,
            difference=volume / volumes[0] - 1 if volumes[0] else None,
            best=pick((float(row[quality]) for row in front.members), default=None),
            seconds=_seconds(study, front),
            compute=front.spent.macs,
            by_seed={seed: measured(rows) for seed, rows in _seeds(front).items()},
            curve=_curve(front, reference),
        )
        for (study, front), volume in zip(found, volumes, strict=True)
    ]
    values = {entry.study: entry.by_seed for entry in entries}
    common = len(pairs.common_seeds(values))
    return Comparison(
        dataset=dataset,
        objectives=objectives,
        reference=reference,
        quality=quality,
        entries=entries,
        coverage=[[coverage(one, other, directions) for other in points] for one in points],
        fronts=[front for _, front in found],
        pairs=[pair for pair in pairs.pairs(values) if pair.seeds],
        ranks=pairs.mean_ranks(values),
        critical_difference=pairs.critical_difference(len(entries), common) if common > 1 else None,
    )


def _seeds(front: Front) -> dict[str, list[Row]]:
    """The trials of each seed that count, where their seed has as many trials as the others; sorted by the seed."""
    counted: dict[str, list[Row]] = defaultdict(list)
    asked: dict[str, int] = defaultdict(int)
    for row in (*front.members, *front.dominated):
        if row.get(SEED) is not None:
            counted[str(row[SEED])].append(row)
            asked[str(row[SEED])] += 1
    for row in front.infeasible:
        asked[str(row.get(SEED))] += 1
    return {seed: counted[seed] for seed in sorted(counted) if asked[seed] == max(asked.values())}


def _curve(front: Front, reference: Mapping[str, float] | None) -> list[tuple[int, float]] | None:
    """Compute and hypervolume, up to the common reference, after each trial."""
    spent = running(front.trials)
    if spent is None or reference is None:
        return None
    return list(zip(spent, progress(replace(front, reference=dict(reference))), strict=True))


def _worst(references: Sequence[Mapping[str, float]], objectives: Mapping[str, Direction]) -> dict[str, float] | None:
    if not references:
        return None
    worst = {"max": min, "min": max}
    return {name: worst[direction](each[name] for each in references) for name, direction in objectives.items()}


def _seconds(study: Recorded, front: Front) -> float:
    records = Journal(study.folder / "trials.jsonl").records
    spans = [(records[row["key"]].started, records[row["key"]].ended) for row in front.trials]
    return float(sum(ended - started for started, ended in spans if started))


def format_comparison(
    studies: Sequence[Recorded],
    format: str,  # noqa: A002 - the option's name
    out: Location | None = None,
    by: str = "study",
) -> list[RenderableType] | str | list[Location]:
    """A comparison as the command line shows it.

    Args:
        studies: two or more; or one, whose methods are compared.
        format: table, json, png or all.
        out: the folder for compare.json, compare.png, compute.png and ranks.png; without it json comes back as text.
            The last two are made where compute and several seeds are known.
        by: ``study``, or ``method``, see `by_method`.

    Returns:
        Tables, a text, or the paths that were written.

    Raises:
        InputError: the format is not known or needs a folder that is not given, or the studies cannot be compared.
    """
    if by not in WAYS:
        raise unknown("--by", by, WAYS)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if out is None and format in ("png", "all"):
        raise InputError(f"format {format} makes files: give --out DIR")
    found = compare(by_method(studies) if by == "method" else studies)
    if format == "table":
        return [table for each in found for table in tables(each)]
    text = to_json(found)
    if out is None:
        return text
    files: dict[str, bytes] = {}
    if format in ("json", "all"):
        files["compare.json"] = text.encode()
    if format in ("png", "all"):
        from rssearch.report import compare_plot

        drawn = {
            "compare.png": compare_plot.png(found),
            "compute.png": compare_plot.compute_png(found),
            "ranks.png": compare_pairs.png(found),
        }
        files |= {name: content for name, content in drawn.items() if content is not None}
    for name, content in files.items():
        write_atomic(out / name, content)
    return [out / name for name in files]


def to_json(found: Sequence[Comparison]) -> str:
    """The comparisons as JSON."""
    document = {
        "schema": SCHEMA,
        "objectives": dict(found[0].objectives),
        "datasets": [
            {
                "dataset": each.dataset,
                "reference": each.reference,
                "quality": each.quality,
                "studies": [asdict(entry) for entry in each.entries],
                "coverage": {
                    one.study: {other.study: share for other, share in zip(each.entries, shares, strict=True)}
                    for one, shares in zip(each.entries, each.coverage, strict=True)
                },
                "pairs": [asdict(pair) for pair in each.pairs],
                "ranks": dict(each.ranks),
                "critical_difference": each.critical_difference,
                "conclusions": compare_pairs.sentences(each) if any(entry.by_seed for entry in each.entries) else [],
            }
            for each in found
        ],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def tables(found: Comparison) -> list[RenderableType]:
    """The comparison on one dataset for the console.

    The studies, what share of each front the others cover, and, of several seeds, which differ beyond noise.
    """
    from rich.text import Text

    reference = ", ".join(f"{title_of(n)} {human(n, value)}" for n, value in (found.reference or {}).items())
    title = f"{found.dataset}: " if found.dataset else ""
    head = [
        "Study",
        "Trials",
        "Counted",
        "On the\nfront",
        "Relative\nhypervolume",
        "To the\nfirst",
        "\n".join(["Best", *found.quality.split("_")]),
        "Time",
        "Compute\n(MACs)",
    ]
    rows = [
        [
            *(entry.study, str(entry.trials), str(entry.finished), str(entry.front)),
            f"{entry.hypervolume if entry.relative_hypervolume is None else entry.relative_hypervolume:.4g}",
            "" if entry.difference is None else f"{100 * entry.difference:+.2f} %",
            human(found.quality, entry.best),
            _duration(entry.seconds),
            UNKNOWN if entry.compute is None else human("compute", entry.compute),
        ]
        for entry in found.entries
    ]
    shares = [
        [
            f"{one.study} covers",
            *("" if one is other else human("_ratio", share) for other, share in zip(found.entries, line, strict=True)),
        ]
        for one, line in zip(found.entries, found.coverage, strict=True)
    ]
    covered = ["Of the front of", *(entry.study for entry in found.entries)]
    return [
        Text(f"{title}hypervolumes up to {reference or 'no reference'}", style="bold"),
        _table(head, rows),
        _table(covered, shares),
        Text("Fronts are those of single trials. A front covers a trial if it has one as good in all objectives.\n"),
        *_differences(found),
    ]


def _differences(found: Comparison) -> list[RenderableType]:
    from rich.text import Text

    if not any(entry.by_seed for entry in found.entries):
        return []
    seeds, every = compare_pairs.seed_rows(found), compare_pairs.pair_rows(found)
    shown = [(compare_pairs.SEEDS_HEAD, seeds), (compare_pairs.HEAD, every)]
    said = "\n".join(compare_pairs.sentences(found))
    return [*(_table(head, lines) for head, lines in shown if lines), Text(f"{said}\n")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(head):
        result.add_column(Text(printable(name)), justify="right" if index else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(printable(cell)) for cell in row))
    return result


def _duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 12.5 min, 3.1 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
