"""A study that has been run, read back from its folder."""

from __future__ import annotations

import csv
import difflib
import io
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rssearch import scores
from rssearch.config.loading import load_study
from rssearch.config.schema import Bound
from rssearch.errors import InputError, cut, shown
from rssearch.escaping import csv_text
from rssearch.front import gains, references, seeds
from rssearch.front.pareto import Direction
from rssearch.front.trials import Front, References, Row, front_rows
from rssearch.metrics import number, of_class
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal, dimension_columns, flat
from rssearch.storage.location import Location, locate

_log = logging.getLogger(__name__)

_SPREADS = (seeds.STD, seeds.INTERVAL)  # of means over seeds
_UNITS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_BOUND = re.compile(r"([A-Za-z_][\w./@-]*)(<=|>=)(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)([kKMG]?)")


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
    objectives = config.search.objectives
    named = [*objectives, *config.search.constraints]
    plain = [flat(records[key]) for key in dict.fromkeys(keys) if key in records]
    rows = [gains.compared(_told(row, named)) for row in plain]
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


def _told(row: Row, names: Iterable[str]) -> dict[str, Any]:
    """A row with metrics of single classes, of the trial and of its baseline, that it can tell from its counts."""
    return {**row, **scores.derived(row, [full for name in names for full in (name, gains.BEFORE + name)])}


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
            a bound of any metric, ``macs<=20M``, ``val_miou>=0.6`` or ``test_recall_water>=0.9``: of the members of the
            front within it, the best by the other objectives, of which the first that is to be large decides (or the
            first). Units: k, M, G.

    Raises:
        InputError: no trial fits, the members have no such metric, or the wish is not understood.
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
    bound = _BOUND.fullmatch(best.replace(" ", ""))
    if bound is not None and of_class(bound[1]) is not None:
        found = replace(found, rows=[_told(row, [bound[1]]) for row in found.rows])
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
    members = [dict(row) for row in front.members]
    if best == "accuracy":
        return _best_seed(found, _best(found.objectives, members))
    if bound is None or not math.isfinite(float(bound[3])):
        raise InputError(
            f"--best {cut(best)}: must be knee, accuracy, or a bound of a metric such as 'macs<=20M', 'latency_ms<=5' "
            "or 'val_miou>=0.6'"
        )
    name = bound[1]
    others = {n: direction for n, direction in found.objectives.items() if n != name} or found.objectives
    limit = float(bound[3]) * _UNITS[bound[4]]
    return _best_seed(found, _best(others, _within(best, members, name, bound[2], limit)))


def _within(best: str, members: Sequence[Row], name: str, sign: str, limit: float) -> list[Row]:
    """The members of a front whose metric is at most (``<=``) or at least (``>=``) the limit.

    Raises:
        InputError: there are none, or none of the members has the metric.
    """
    wish = f"--best {cut(best)}: no member of the front"
    values = {index: value for index, row in enumerate(members) if (value := number(row.get(name))) is not None}
    if not values:
        there = sorted({n for row in members for n in row if number(row[n]) is not None and not n.endswith(_SPREADS)})
        of_classes = _of_classes(wish, members, name)
        close = difflib.get_close_matches(name, [*there, *of_classes], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(f"{wish} has the metric {cut(name)}.{hint} There are: {', '.join(there)}.")
    fits = [index for index, value in values.items() if (value <= limit if sign == "<=" else value >= limit)]
    if not fits:
        size, end, pick = ("small", "smallest", min) if sign == "<=" else ("large", "largest", max)
        raise InputError(f"{wish} is that {size}; the {end} {name} is {pick(values.values()):,.12g}")
    if missing := len(members) - len(values):
        _log.warning("%d of the %d members of the front have no %s, and are not chosen", missing, len(members), name)
    return [members[index] for index in fits]


def _of_classes(wish: str, members: Sequence[Row], name: str) -> list[str]:
    """The metrics of single classes that the members can tell.

    Raises:
        InputError: the name is of a class that their dataset has not.
    """
    found: dict[str, None] = {}
    for split in ("val", "test"):
        for counted in map(scores.PerClass.read, (row.get(f"{split}_{scores.PER_CLASS}") for row in members)):
            if counted is None:
                continue
            try:
                scores.check_name(name, counted.classes, str(members[0].get("dataset")))
            except InputError as error:
                raise InputError(f"{wish} has the metric {cut(name)}: {error}") from None
            found |= dict.fromkeys(scores.names_of(counted.classes, split))
    return list(found)


def _best_seed(found: Recorded, member: Row) -> dict[str, Any]:
    """The best of the trials that a row of the front is a mean of; the row itself if it is a trial."""
    keys = member.get("keys")
    trials = [row for row in found.rows if row["key"] in (keys or ())]
    return dict(member) if keys is None else dict(_best(found.objectives, trials))


def _best(objectives: Mapping[str, Direction], rows: Sequence[Row]) -> Row:
    """By the first objective that is to be large, or by the first of all."""
    name = next((n for n, direction in objectives.items() if direction == "max"), next(iter(objectives)))
    pick = max if objectives[name] == "max" else min
    return pick(rows, key=lambda row: float(row[name]))
