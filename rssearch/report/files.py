"""What a study leaves behind: trials.csv and the front in several formats, and the table on the console.

Files appear whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from rssearch.errors import InputError, unknown
from rssearch.escaping import csv_cell
from rssearch.front import gains, seeds
from rssearch.front.pareto import Direction
from rssearch.front.trials import Front, References, Row, fronts
from rssearch.report import spending
from rssearch.report.columns import _columns, listed, plain
from rssearch.report.tables import REQUEST, latex, markdown, table
from rssearch.storage import uris
from rssearch.storage.location import Location, write_atomic

if TYPE_CHECKING:
    from rich.table import Table

    from rssearch.config.schema import Bound

Format = Literal["csv", "json", "png", "svg", "html", "tex", "md"]
FORMATS: tuple[Format, ...] = ("csv", "json", "png", "svg", "html", "tex", "md")
TEXTS: tuple[Format, ...] = ("csv", "json", "tex", "md")  # of use on a console, too
STANDARD: tuple[Format, ...] = ("csv", "json", "png", "html")  # what a study writes at its end
SCHEMA = "rssearch.front/2"  # the number grows when a reader of the old layout would misread the new one


def write_trials_csv(path: Location, trials: Sequence[Row]) -> None:
    """Write one line for each trial. The contract's columns come first, the others follow by their names."""
    write_atomic(path, _csv(_rows(trials)).encode())


def write_front(
    directory: Location,
    trials: Sequence[Row],
    objectives: Mapping[str, Direction],
    *,
    study: str,
    constraints: Mapping[str, Bound] | None = None,
    dimensions: Sequence[str] | None = None,
    references: References | None = None,
    folder: Location | None = None,
    formats: Sequence[Format] = STANDARD,
) -> list[Location]:
    """Write front.csv, front.json, front.png and front.html, or the formats that are asked for.

    Without any member the files are written too, and say so. Where the seed is a dimension, pictures, tables and the
    page show the means of the configurations; front.csv and the fronts of front.json hold trials, and means.csv and
    ``means`` the rest. The fields of all files: docs/front_schema.md.

    Args:
        directory: where to; made if it does not exist.
        trials: all trials of the study.
        objectives: one to three metrics are drawn; more are allowed in CSV and JSON.
        study: the name, for titles.
        constraints: limits of metrics. They are recorded and drawn; finished trials that break them are left out.
        dimensions: the columns that were asked for, for tables; the default is those of the contract.
        references: as for `rssearch.front.trials.fronts`.
        folder: the study's, in its storage: from there the page takes pictures of predictions, the channels that
            members of the front keep, the resolved YAML and the environment. None: it does without.
        formats: which files.

    Returns:
        The paths, in the order of the formats, then that of means.csv if there is one.

    Raises:
        InputError: a format is not known.
    """
    if wrong := [name for name in formats if name not in FORMATS]:
        raise unknown("format", wrong[0], FORMATS)
    trials = _rows(trials)
    found, averaged = _both(trials, objectives, constraints, dimensions, references)
    paths = []
    for name in formats:
        paths.append(directory / f"front.{name}")
        links = _links(directory, folder)
        write_atomic(paths[-1], _render(name, found, averaged, study, constraints or {}, dimensions, folder, links))
    if averaged is not None and "csv" in formats:
        paths.append(directory / "means.csv")
        write_atomic(paths[-1], _csv(seeds.means(trials, dimensions or REQUEST)).encode())
    return paths


def format_front(
    trials: Sequence[Row],
    objectives: Mapping[str, Direction],
    format: str,  # noqa: A002 - the option's name
    *,
    study: str,
    constraints: Mapping[str, Bound] | None = None,
    dimensions: Sequence[str] | None = None,
    references: References | None = None,
    folder: Location | None = None,
    out: Location | None = None,
    width: int | None = None,
) -> Table | str | list[Location]:
    """The front as the command line shows it.

    Args:
        trials: all trials of the study.
        objectives: metrics and their directions.
        format: table, one of `FORMATS`, or all.
        study: the name.
        constraints: limits of metrics.
        dimensions: the columns that were asked for: the names in the space. The default is those of the contract.
        references: as for `rssearch.front.trials.fronts`.
        folder: as in `write_front`.
        out: the folder for files. Without it csv, json, tex and md come back as text.
        width: columns of the console, for a table.

    Returns:
        A table, a text, or the paths that were written.

    Raises:
        InputError: the format is not known, or needs a folder that is not given.
    """
    if format not in ("table", "all", *FORMATS):
        raise unknown("format", format, ("table", "all", *FORMATS))
    trials = _rows(trials)
    if format == "table":
        found = seeds.shown_fronts(trials, objectives, constraints, dimensions or REQUEST, references)
        rows = [row for front in found for row in front.trials]
        members = [row for front in found for row in front.members]
        knees = [front.knee["key"] for front in found if front.knee is not None]
        return table(
            members,
            objectives,
            knees=knees,
            title=study,
            dimensions=dimensions,
            trials=rows,
            notes=spending.notes(found),
            width=width,
        )
    if out is not None:
        chosen = FORMATS if format == "all" else tuple(name for name in FORMATS if name == format)
        return write_front(
            out,
            trials,
            objectives,
            study=study,
            constraints=constraints,
            dimensions=dimensions,
            references=references,
            folder=folder,
            formats=chosen,
        )
    for name in TEXTS:
        if format == name:
            found, averaged = _both(trials, objectives, constraints, dimensions, references)
            return _render(name, found, averaged, study, constraints or {}, dimensions).decode()
    raise InputError(f"format {format} makes files: give --out DIR")


def _rows(trials: Sequence[Row]) -> list[Row]:
    """Trials as they are written: with what they lost and gained, without passwords."""
    return [gains.compared(uris.hidden_in(row)) for row in trials]


def _both(
    trials: Sequence[Row],
    objectives: Mapping[str, Direction],
    constraints: Mapping[str, Bound] | None,
    dimensions: Sequence[str] | None,
    references: References | None,
) -> tuple[list[Front], list[Front] | None]:
    """The fronts of the trials and, where seeds vary, those of the means."""
    asked = dimensions or REQUEST
    found = fronts(trials, objectives, constraints, references)
    if not seeds.vary(trials, asked):
        return found, None
    return found, seeds.shown_fronts(trials, objectives, constraints, asked, references)


def _render(
    name: Format,
    found: list[Front],
    averaged: list[Front] | None,
    study: str,
    constraints: Mapping[str, Bound],
    dimensions: Sequence[str] | None = None,
    folder: Location | None = None,
    links: str | None = None,
) -> bytes:
    shown = averaged or found
    match name:  # plotting libraries take a second to import
        case "csv":
            every = [row for f in found for row in f.trials]
            return _csv([row for f in found for row in f.members], columns=_columns(every)).encode()
        case "json":
            return _json(found, averaged, study, constraints).encode()
        case "png" | "svg":
            from rssearch.report import figures

            return (figures.png if name == "png" else figures.svg)(shown, study, constraints)
        case "tex" | "md":
            return (latex if name == "tex" else markdown)(shown, study, dimensions).encode()
        case "html":
            from rssearch.report.page import page

            return page(found, study, constraints, dimensions, folder, averaged, links)


def _links(directory: Location, folder: Location | None) -> str | None:
    """What leads from a page in a directory to the files of a study's folder; None where no link can."""
    if folder is None or directory == folder:
        return None if folder is None else ""
    return f"{folder.resolve().as_uri()}/" if isinstance(folder, Path) else None


def _csv(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """None and NaN are empty, lists and mappings are JSON, floats have all their digits; formulas stay text."""
    names = columns or _columns(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    for row in rows:
        values = [plain(row.get(name)) for name in names]
        cells = [json.dumps(v) if isinstance(v, (list, dict)) else v for v in values]
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in cells])
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
                "compute": front.spent.macs,
                "compute_parts": front.spent.parts,
                "compute_unknown": front.spent.unknown,
                "compute_from_scratch": front.spent.from_scratch,
                "reference": front.reference,
                "hypervolume": front.hypervolume,
                "relative_hypervolume": front.relative_hypervolume,
                "knee": None if front.knee is None else front.knee["key"],
                "baselines": front.baselines,
                "members": [*map(listed, front.members)],
            }
            for front in found
        ],
        "means": None
        if averaged is None
        else [
            {
                "dataset": front.dataset,
                "reference": front.reference,
                "knee": None if front.knee is None else front.knee["key"],
                "hypervolume": front.hypervolume,
                "relative_hypervolume": front.relative_hypervolume,
                "members": [*map(listed, front.members)],
                "steps": [asdict(step) for step in seeds.steps(front.members, front.objectives)],
                "within_noise": sorted(seeds.ties(front.members, front.objectives)),
                "incomplete": sorted(seeds.incomplete([*front.members, *front.dominated])),
            }
            for front in averaged
        ],
    }
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"
