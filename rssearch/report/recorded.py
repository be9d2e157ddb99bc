"""A study that has been run, read back from its folder."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rssearch.config.loading import load_study
from rssearch.config.schema import Bound
from rssearch.errors import InputError, cut, shown
from rssearch.escaping import csv_text
from rssearch.front import gains, references, seeds
from rssearch.front.pareto import Direction
from rssearch.front.trials import Front, References, Row, front_rows
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal, dimension_columns, flat
from rssearch.storage.location import Location, locate

_log = logging.getLogger(__name__)

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_LIMIT = re.compile(r"macs<=(\d+(?:\.\d+)?(?:e\+?\d+)?)([KMG]?)")


@dataclass(frozen=True)
class Recorded:
    """What a study's folder says.

    Attributes:
        rows: one flat row for each trial of trials.csv.
        dimensions: the columns that hold what the space asked for.
        references: what hypervolumes and the knee are measured from, see `rssearch.front.references`.
    """

    study: str
    folder: Location
    storage: Location
    objectives: Mapping[str, Direction]
    constraints: Mapping[str, Bound]
    rows: list[dict[str, Any]]
    dimensions: list[str]
    references: References = field(default_factory=dict)

    def front(self) -> list[Front]:
        """The front of each dataset; where seeds vary, that of the means."""
        return seeds.shown_fronts(self.rows, self.objectives, self.constraints, self.dimensions, self.references)


def read(study: str, storage: str | Path) -> Recorded:
    """Read a study.

    Raises:
        InputError: there is no such study in the storage; those that are there are named.
    """
    place = locate(storage)
    folder = place / study
    if not (folder / "study.yaml").is_file():
        found = sorted(path.parent.name for path in place.glob("*/study.yaml"))
        known = f"there are: {', '.join(found)}" if found else "there are no studies"
        raise InputError(f"there is no study {shown(study)} in {cut(str(place), 300)}; {cut(known, 1000)}")
    config = load_study(folder / "study.yaml")
    journal = Journal(folder / "trials.jsonl").records
    records = {key: record for key, record in journal.items() if not record.is_running}
    listed = folder / "trials.csv"
    keys: list[str] = []
    if listed.is_file():
        text = listed.read_bytes().decode(errors="replace")  # what is no key names no record
        try:
            keys = [csv_text(row.get("key") or "") for row in csv.DictReader(io.StringIO(text, newline=""))]
        except csv.Error as error:
            raise InputError(f"{listed} is damaged ({error}); `rssearch search` writes it again") from None
    if records and not any(key in records for key in keys):
        _log.warning("%s is not there or damaged: these are all %d trials of the journal", listed, len(records))
        keys = list(records)
    rows = [gains.compared(flat(records[key])) for key in dict.fromkeys(keys) if key in records]
    objectives = config.search.objectives
    fixed = references.read(folder, objectives)
    if not fixed:  # recorded by an earlier release
        best = front_rows(rows, objectives, config.search.constraints)
        fixed = references.from_store(Store(place), best, objectives)
    return Recorded(
        study=study,
        folder=folder,
        storage=place,
        objectives=objectives,
        constraints=config.search.constraints,
        rows=rows,
        dimensions=dimension_columns(config.space, rows),
        references=fixed,
    )


def all_of(storage: str | Path) -> list[Recorded]:
    """Every study of a storage, by name; those whose files are damaged are left out with a warning.

    Raises:
        InputError: the storage cannot be used.
    """
    found = []
    for name in sorted(path.parent.name for path in locate(storage).glob("*/study.yaml")):
        try:
            found.append(read(name, storage))
        except InputError as error:
            _log.warning("%s is left out: %s", name, error)
    return found


def choose(found: Recorded, *, trial: str | None = None, best: str = "knee") -> dict[str, Any]:
    """One trial of a study. Where seeds vary, a configuration is chosen by its means, and of it the best trial.

    Args:
        found: the study.
        trial: its content key or the beginning of it; overrides `best`.
        best: ``knee``; ``accuracy``, the best by the first objective that is to be large (or by the first of all); or
            ``macs<=X``, the same among those of at most X MACs.

    Raises:
        InputError: no trial fits, or the wish is not understood.
    """
    if trial is not None:
        fits = [row for row in found.rows if str(row["key"]).startswith(trial) and row["status"] == "finished"]
        if len(fits) != 1:
            what = f"{len(fits)} finished trials" if fits else "none of the finished trials"
            keys = [row["key"] for row in fits or found.rows if row["status"] == "finished"]
            shown = ", ".join(keys[:10]) + (", ..." if len(keys) > 10 else "")
            raise InputError(
                f"--trial {cut(trial)}: {what} of {found.study} begin so; keys: {shown or 'there are none'}"
            )
        return fits[0]
    filled = [front for front in found.front() if front.members]
    if not filled:
        raise InputError(f"study {found.study} has no finished trial on its front yet")
    if len(filled) > 1:
        names = ", ".join(str(front.dataset) for front in filled)
        raise InputError(f"study {found.study} has a front for each of {names}: name one trial with --trial KEY")
    front = filled[0]
    if best == "knee":
        assert front.knee is not None
        return _best_seed(found, front.knee)
    limit = _LIMIT.fullmatch(best.replace(" ", ""))
    if best != "accuracy" and (limit is None or not math.isfinite(float(limit[1]))):
        raise InputError(f"--best {cut(best)}: must be knee, accuracy or macs<=X, with X such as 20e6 or 20M")
    members = [dict(row) for row in front.members]
    if limit is not None:
        most = float(limit[1]) * _UNITS[limit[2]]
        costs = [row["macs"] for row in members if isinstance(row.get("macs"), int | float)]
        if not costs:
            raise InputError(f"--best {best}: the trials of {found.study} did not measure macs")
        if min(costs) > most:
            raise InputError(
                f"--best {best}: no member of the front is that small; the smallest has {min(costs):,} MACs"
            )
        members = [row for row in members if isinstance(row.get("macs"), int | float) and row["macs"] <= most]
    return _best_seed(found, _best(found, members))


def _best_seed(found: Recorded, member: Row) -> dict[str, Any]:
    """The best of the trials that a row of the front is a mean of; the row itself if it is a trial."""
    keys = member.get("keys")
    return dict(member) if keys is None else dict(_best(found, [row for row in found.rows if row["key"] in keys]))


def _best(found: Recorded, rows: Sequence[Row]) -> Row:
    """By the first objective that is to be large, or by the first of all."""
    name = next((n for n, direction in found.objectives.items() if direction == "max"), next(iter(found.objectives)))
    pick = max if found.objectives[name] == "max" else min
    return pick(rows, key=lambda row: float(row[name]))
