"""What a study leaves behind: trials.csv and front.csv, .json, .png, .html, and the table on the console.

A trial is a flat mapping from a column to a value, with at least ``key`` and ``status`` (finished, stopped,
failed or infeasible). Accuracies on different datasets cannot be compared, so there is one front for each dataset.
Files appear whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rssearch import seeds
from rssearch.errors import InputError, unknown
from rssearch.front import Direction, hypervolume, knee, non_dominated, reference_point
from rssearch.storage import Location, write_atomic
from rssearch.units import human, number, title_of

if TYPE_CHECKING:
    from rich.table import Table

    from rssearch.config import Bound

Row = Mapping[str, Any]
Format = Literal["csv", "json", "png", "html"]
FORMATS: tuple[Format, ...] = ("csv", "json", "png", "html")
SCHEMA = "rssearch.front/1"  # the number grows when a reader of the old layout would misread the new one

REQUEST = ("dataset", "model", "method", "rate", "seed")
MEASURED = (
    *("val_accuracy", "test_accuracy", "val_miou", "test_miou"),
    *("macs", "params", "macs_ratio", "params_ratio", "baseline_val_accuracy", "baseline_val_miou", "train_seconds"),
)
COLUMNS = ("key", "status", *REQUEST, *MEASURED)
KEY_DIGITS = 8  # of a key on the console: the beginning of a key is enough to name a trial


@dataclass(frozen=True)
class Front:
    """The trials of one dataset and what is best among them."""

    dataset: str | None
    objectives: Mapping[str, Direction]
    trials: list[Row]  # all, in the order of the record; the next five are a partition of them
    dominated: list[Row]  # finished and feasible
    members: list[Row]  # by rising cost
    infeasible: list[Row]
    stopped: list[Row]  # before their last epoch
    failed: list[Row]
    knee: Row | None
    reference: dict[str, float] | None
    hypervolume: float
    relative_hypervolume: float | None
    baselines: list[dict[str, Any]]  # one for each model: its name and its objectives before pruning, mean of the seeds
    note: str | None  # why the front is empty; None if it is not


def fronts(
    trials: Iterable[Row], objectives: Mapping[str, Direction], constraints: Mapping[str, Bound] | None = None
) -> list[Front]:
    """The front of each dataset, in the order of their names; always at least one, which may be empty.

    A finished trial that breaks one of the constraints counts as infeasible, and one that lacks an objective (None,
    NaN) as failed.

    Raises:
        InputError: there is no objective.
    """
    if not objectives:
        raise InputError("a front needs at least one objective")
    groups: dict[str | None, list[Row]] = {}
    for trial in trials:
        dataset = trial.get("dataset")
        groups.setdefault(None if dataset is None else str(dataset), []).append(trial)
    if not groups:
        groups[None] = []
    return [
        _front(dataset, groups[dataset], objectives, constraints or {})
        for dataset in sorted(groups, key=lambda name: name or "")
    ]


def front_rows(
    trials: Iterable[Row], objectives: Mapping[str, Direction], constraints: Mapping[str, Bound] | None = None
) -> list[dict[str, Any]]:
    """The non-dominated trials among the finished and feasible, with all columns; by dataset, then by rising cost."""
    return [dict(row) for front in fronts(trials, objectives, constraints) for row in front.members]


def write_trials_csv(path: Location, trials: Sequence[Row]) -> None:
    """Write one line for each trial. The contract's columns come first, the others follow by their names."""
    write_atomic(path, _csv(trials).encode())


def write_front(
    directory: Location,
    trials: Sequence[Row],
    objectives: Mapping[str, Direction],
    *,
    study: str,
    constraints: Mapping[str, Bound] | None = None,
    dimensions: Sequence[str] | None = None,
    pictures: Location | None = None,
    formats: Sequence[Format] = FORMATS,
) -> list[Location]:
    """Write front.csv, front.json, front.png and front.html, or those that are asked for.

    Without any member the files are written too, and say so. Where the seed is a dimension, PNG and HTML show the means
    of the configurations; front.csv and the fronts of front.json hold trials, and means.csv and ``means`` the rest.

    Args:
        directory: where to; made if it does not exist.
        trials: all trials of the study.
        objectives: one to three metrics are drawn; more are allowed in CSV and JSON.
        study: the name, for titles.
        constraints: limits of metrics. They are recorded and drawn; finished trials that break them are left out.
        dimensions: the columns that were asked for, for the table of the page; the default is those of the contract.
        pictures: a folder with a picture ``<key>.png`` of what a trial predicts, for the page; None for none.
        formats: which files.

    Returns:
        The paths, in the order of the formats, then that of means.csv if there is one.

    Raises:
        InputError: a format is not known.
    """
    if wrong := [name for name in formats if name not in FORMATS]:
        raise unknown("format", wrong[0], FORMATS)
    asked = dimensions or REQUEST
    found = fronts(trials, objectives, constraints)
    averaged = fronts(seeds.shown(trials, asked), objectives, constraints) if seeds.vary(trials, asked) else None
    paths = []
    for name in formats:
        paths.append(directory / f"front.{name}")
        write_atomic(paths[-1], _render(name, found, averaged, study, constraints or {}, dimensions, pictures))
    if averaged is not None and "csv" in formats:
        paths.append(directory / "means.csv")
        write_atomic(paths[-1], _csv(seeds.means(trials, asked)).encode())
    return paths


def format_front(
    trials: Sequence[Row],
    objectives: Mapping[str, Direction],
    format: str,  # noqa: A002 - the option's name
    *,
    study: str,
    constraints: Mapping[str, Bound] | None = None,
    dimensions: Sequence[str] | None = None,
    pictures: Location | None = None,
    out: Location | None = None,
) -> Table | str | list[Location]:
    """The front as the command line shows it.

    Args:
        trials: all trials of the study.
        objectives: metrics and their directions.
        format: table, csv, json, png, html or all.
        study: the name.
        constraints: limits of metrics.
        dimensions: the columns that were asked for: the names in the space. The default is those of the contract.
        pictures: as in `write_front`.
        out: the folder for files. Without it csv and json come back as text.

    Returns:
        A table, a text, or the paths that were written.

    Raises:
        InputError: the format is not known, or needs a folder that is not given.
    """
    if format not in ("table", "all", *FORMATS):
        raise unknown("format", format, ("table", "all", *FORMATS))
    if format == "table":
        rows = seeds.shown(trials, dimensions or REQUEST)
        found = fronts(rows, objectives, constraints)
        members = [row for front in found for row in front.members]
        knees = [front.knee["key"] for front in found if front.knee is not None]
        return table(members, objectives, knees=knees, title=study, dimensions=dimensions, trials=rows)
    if out is not None:
        chosen = FORMATS if format == "all" else tuple(name for name in FORMATS if name == format)
        return write_front(
            out,
            trials,
            objectives,
            study=study,
            constraints=constraints,
            dimensions=dimensions,
            pictures=pictures,
            formats=chosen,
        )
    if format in ("csv", "json"):
        asked = dimensions or REQUEST
        found = fronts(trials, objectives, constraints)
        averaged = fronts(seeds.shown(trials, asked), objectives, constraints) if seeds.vary(trials, asked) else None
        return _render("csv" if format == "csv" else "json", found, averaged, study, constraints or {}).decode()
    raise InputError(f"format {format} makes files: give --out DIR")


def table(
    rows: Sequence[Row],
    objectives: Mapping[str, Direction],
    *,
    knees: Iterable[str] = (),
    title: str | None = None,
    dimensions: Sequence[str] | None = None,
    trials: Sequence[Row] | None = None,
) -> Table:
    """The rows of a front for the console, in units for people, made for 80 columns.

    Args:
        rows: the members of the front.
        objectives: metrics and their directions.
        knees: keys of the rows that get a star.
        title: what stands above.
        dimensions: the columns that were asked for; the default is those of the contract.
        trials: the trials among which a dimension must vary to get a column; the default is the rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown, constant = varying(rows if trials is None else trials, dimensions)
    head, *body = summary(rows, objectives, knees, shown)
    if not body:
        signs = notes = ["No finished and feasible trial: the front is empty."]
    else:
        signs = legend(rows, objectives)
        notes = [*signs, *([f"The same in all trials: {constant}"] if constant else [])]
    gap = 1 if len(head) < 11 else 0  # beside the space that divides columns
    result = Table(
        title=Text(title, "table.title") if title else None,  # Text, because a value in brackets is no markup
        caption=Text("\n".join(notes), "table.caption"),
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, gap, 0, 0),
        min_width=max(map(len, signs)),
    )
    for i, name in enumerate(head):  # what was asked for may be cut short; a number may not
        lines = name.replace("Validation", "Val.").replace("accuracy", "acc.").replace(" ", "\n")
        asked = 0 < i <= len(shown)
        result.add_column(Text(lines), justify="left" if asked else "right", no_wrap=not asked, overflow="ellipsis")
    for *cells, key in body:  # a value stays with its unit
        result.add_row(*(Text(cell.replace(" ", "\u00a0")) for cell in (*cells, key[:KEY_DIGITS])))
    return result


def varying(trials: Sequence[Row], dimensions: Sequence[str] | None = None) -> tuple[list[str], str]:
    """The dimensions that vary among the trials, and those that do not as text: "Model resnet20, Seed 0"."""
    values = {name: {human(name, trial.get(name)): None for trial in trials} for name in dimensions or REQUEST}
    constant = [
        f"{title_of(name)} {next(iter(found))}" for name, found in values.items() if len(found) == 1 if any(found)
    ]
    return [name for name, found in values.items() if len(found) > 1], ", ".join(constant)


def summary(
    rows: Sequence[Row], objectives: Mapping[str, Direction], knees: Iterable[str] = (), asked: Sequence[str] = REQUEST
) -> list[list[str]]:
    """The columns of a front that people compare, as text: a line of titles, then one for each row.

    They are a star for the knees (given by their keys), what was asked for, the objectives, the measures of the
    contract that some row has, and the key.
    """
    present = {name for row in rows for name, value in row.items() if value is not None}
    measured = ("test_accuracy", "test_miou", "macs", "macs_ratio", "latency_ms")
    results = [*objectives, *(name for name in measured if name in present)]
    counted = ["seeds"] if len({row.get("seeds") for row in rows}) > 1 else []
    columns = list(dict.fromkeys([*asked, *results, *counted, "key"]))
    marked = set(knees)
    head = ["", *(title_of(name) for name in columns)]
    tied = seeds.ties(rows, objectives)
    stars = [("★" if row.get("key") in marked else "") + ("≈" if row.get("key") in tied else "") for row in rows]
    cells = ([human(n, row.get(n), row.get(n + seeds.STD)) for n in columns] for row in rows)
    return [head, *([star, *line] for star, line in zip(stars, cells, strict=True))]


def legend(rows: Sequence[Row], objectives: Mapping[str, Direction]) -> list[str]:
    """What the signs and numbers of a `summary` mean, in lines."""
    lines = ["★ knee" + (f"; {what} ± standard deviation" if (what := seeds.note(rows)) else "")]
    if seeds.ties(rows, objectives):
        lines.append("≈ not better than the cheaper one above it beyond noise")
    return lines


def _front(
    dataset: str | None, trials: list[Row], objectives: Mapping[str, Direction], constraints: Mapping[str, Bound]
) -> Front:
    complete: list[Row] = []
    infeasible: list[Row] = []
    stopped: list[Row] = []
    failed: list[Row] = []
    for trial in trials:
        finished = trial["status"] == "finished"
        if trial["status"] == "stopped":
            stopped.append(trial)
        elif trial["status"] == "infeasible" or (finished and _misses(trial, constraints)):
            infeasible.append(trial)
        elif finished and all(number(trial.get(name)) is not None for name in objectives):
            complete.append(trial)
        else:
            failed.append(trial)
    directions = list(objectives.values())
    points = _points(complete, objectives)
    mask = non_dominated(points, directions)
    cost = next((name for name, direction in objectives.items() if direction == "min"), next(iter(objectives)))
    members = sorted(
        (t for t, on in zip(complete, mask, strict=True) if on), key=lambda t: (t[cost], str(t.get("key")))
    )
    known = [_baseline_limit(trials, name) if direction == "min" else None for name, direction in objectives.items()]
    reference = reference_point(points, directions, known) if members else None
    volume = hypervolume(points, reference, directions) if reference is not None else 0.0
    return Front(
        dataset=dataset,
        objectives=objectives,
        trials=trials,
        dominated=[t for t, on in zip(complete, mask, strict=True) if not on],
        members=members,
        infeasible=infeasible,
        stopped=stopped,
        failed=failed,
        knee=members[knee(_points(members, objectives), directions)] if members else None,
        reference=None if reference is None else dict(zip(objectives, reference.tolist(), strict=True)),
        hypervolume=volume,
        relative_hypervolume=None if reference is None else _relative(volume, reference.tolist(), directions),
        baselines=_baselines(trials, objectives),
        note=None if members else _why_empty(infeasible, [*stopped, *failed], constraints),
    )


def _why_empty(infeasible: Sequence[Row], others: Sequence[Row], constraints: Mapping[str, Bound]) -> str:
    """One sentence; when every trial is infeasible it names the one that misses the constraints least."""
    if others or not infeasible:
        return "No finished trial yet."
    text = "No trial satisfies the constraints."
    missed = [(sum(misses.values()), i) for i, t in enumerate(infeasible) if (misses := _misses(t, constraints))]
    if not missed:
        return text
    nearest = infeasible[min(missed)[1]]
    values = ", ".join(f"{name} {human(name, nearest[name])}" for name in _misses(nearest, constraints))
    return f"{text} Nearest: {nearest['key']} with {values}."


def _points(trials: Sequence[Row], objectives: Mapping[str, Direction]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([[float(t[name]) for name in objectives] for t in trials]).reshape(len(trials), len(objectives))


def _relative(volume: float, reference: Sequence[float], directions: Sequence[Direction]) -> float | None:
    """The volume with each cost in units of its reference.

    For accuracy against MACs with the baseline's MACs as reference: the best accuracy within a budget, averaged over
    all budgets from 0 to the baseline's. It lies in [0, 1] and can be compared between networks and datasets.
    """
    scale = math.prod(value for value, direction in zip(reference, directions, strict=True) if direction == "min")
    return volume / scale if scale > 0 else None


def _baselines(trials: Sequence[Row], objectives: Mapping[str, Direction]) -> list[dict[str, Any]]:
    found: dict[Any, set[tuple[float, ...]]] = {}
    for trial in trials:
        values = [_baseline(trial, name) for name in objectives]
        numbers = [value for value in values if value is not None]
        if len(numbers) == len(objectives):
            found.setdefault(trial.get("model"), set()).add(tuple(numbers))
    return [
        {"model": model, **dict(zip(objectives, np.mean(sorted(points), axis=0).tolist(), strict=True))}
        for model, points in sorted(found.items(), key=lambda item: str(item[0]))
    ]


def _baseline(trial: Row, name: str) -> float | None:
    """Value of an objective before pruning. A ratio to the baseline is 1 there if the row knows its baseline at all."""
    if name.endswith("_ratio") and trial.get("baseline_" + name) is None:
        return 1.0 if any(column.startswith("baseline_") and trial[column] is not None for column in trial) else None
    return number(trial.get("baseline_" + name))


def _baseline_limit(trials: Sequence[Row], name: str) -> float | None:
    """The largest baseline cost of the models: fixed by the space, so it does not move with the trials."""
    return max((value for trial in trials if (value := _baseline(trial, name)) is not None), default=None)


def _misses(trial: Row, constraints: Mapping[str, Bound]) -> dict[str, float]:
    """The metrics that break a constraint, and by how much, relative to the limit."""
    misses = {}
    for name, bound in constraints.items():
        value = number(trial.get(name))
        for limit, sign in ((bound.max, 1), (bound.min, -1)):
            if value is not None and limit is not None and sign * (value - limit) > 0:
                misses[name] = abs(value - limit) / (abs(limit) or 1.0)
    return misses


def _render(
    name: Format,
    found: list[Front],
    averaged: list[Front] | None,
    study: str,
    constraints: Mapping[str, Bound],
    dimensions: Sequence[str] | None = None,
    pictures: Location | None = None,
) -> bytes:
    if name == "csv":
        every = [row for f in found for row in f.trials]
        return _csv([row for f in found for row in f.members], columns=_columns(every)).encode()
    if name == "json":
        return _json(found, averaged, study, constraints).encode()
    if name == "png":  # plotting libraries take a second to import
        from rssearch.figures import png

        return png(averaged or found, study, constraints)
    from rssearch.page import page

    return page(averaged or found, study, constraints, dimensions, pictures)


def _columns(rows: Sequence[Row]) -> list[str]:
    """The contract's columns, then the others by name.

    Where trials are networks (they have a model), a column that none of them has is there too, and empty; that of the
    other task (accuracy or mIoU) is not.
    """
    present = {name for row in rows for name in row}
    if not present:
        return list(COLUMNS)
    always = {"key", "status"}
    if "model" in present:
        always |= {name for name in COLUMNS if "miou" not in name or "val_miou" in present}
    first = [name for name in COLUMNS if name in present or name in always]
    return [*first, *sorted(present.difference(COLUMNS))]


def _csv(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """None and NaN are empty, lists and mappings are JSON, floats have all their digits."""
    names = columns or _columns(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [_plain(row.get(name)) for name in names]
        writer.writerow([json.dumps(v) if isinstance(v, (list, dict)) else v for v in values])
    return text.getvalue()


def _json(
    found: Sequence[Front], averaged: Sequence[Front] | None, study: str, constraints: Mapping[str, Bound]
) -> str:
    shares = [front.relative_hypervolume for front in found]
    known = [share for share in shares if share is not None]
    document = {
        "schema": SCHEMA,
        "study": study,
        "objectives": dict(found[0].objectives),
        "constraints": {name: bound.model_dump() for name, bound in constraints.items()},
        "hypervolume": float(np.mean([front.hypervolume for front in found])),
        "relative_hypervolume": float(np.mean(known)) if len(known) == len(shares) else None,
        "fronts": [
            {
                "dataset": front.dataset,
                "finished": len(front.members) + len(front.dominated),
                "infeasible": len(front.infeasible),
                "stopped": len(front.stopped),
                "failed": len(front.failed),
                "note": front.note,
                "reference": front.reference,
                "hypervolume": front.hypervolume,
                "relative_hypervolume": front.relative_hypervolume,
                "knee": None if front.knee is None else front.knee["key"],
                "baselines": front.baselines,
                "members": front.members,
            }
            for front in found
        ],
        "means": None
        if averaged is None
        else [
            {
                "dataset": front.dataset,
                "knee": None if front.knee is None else front.knee["key"],
                "hypervolume": front.hypervolume,
                "relative_hypervolume": front.relative_hypervolume,
                "members": front.members,
                "within_noise": sorted(seeds.ties(front.members, front.objectives)),
            }
            for front in averaged
        ],
    }
    return json.dumps(_plain(document), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON knows it: NumPy scalars become numbers, what is not finite None, paths text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
