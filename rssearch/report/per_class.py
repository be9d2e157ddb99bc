"""``per_class.csv``: of each member of a front and of each baseline, every class on the splits where it was counted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rssearch.escaping import csv_cell
from rssearch.front import gains
from rssearch.metrics import DIFFERENCE, KINDS, number
from rssearch.report.members import COUNTS, per_class_rows
from rssearch.scores import PER_CLASS, PerClass

__all__ = ["COLUMNS", "FILE", "table"]

FILE = "per_class.csv"
ABOUT = ("key", "dataset", "model", "method")
COLUMNS = (*ABOUT, "split", "class", *COUNTS, *KINDS, f"recall{DIFFERENCE}", f"iou{DIFFERENCE}")

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> bytes | None:
    """The file; None where no row has counted its classes.

    Args:
        rows: of the members of the fronts. A baseline comes once, before the first of those that were pruned from it;
            its key is that of its folder among the members' files, where it was tested, else that of its identity.
    """
    lines = [line for row in rows for line in _lines(row)]
    if not lines:
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in {tuple(line.get(name) for name in (*ABOUT, "split", "class")): line for line in lines}.values():
        writer.writerow([_cell(line.get(name)) for name in COLUMNS])
    return text.getvalue().encode()


def _lines(row: Row) -> Iterator[dict[str, Any]]:
    about = {name: row.get(name) for name in ABOUT}
    key = row.get(f"{gains.BEFORE}key") or f"{gains.BEFORE}{row.get(gains.IDENTITY)}"
    for split in ("val", "test"):
        before = PerClass.read(row.get(f"{gains.BEFORE}{split}_{PER_CLASS}"))
        if before is not None:
            whole = about | {"key": key, "method": "baseline", "split": split}
            yield from (whole | line for line in per_class_rows(before))
    for split in ("val", "test"):
        counted = PerClass.read(row.get(f"{split}_{PER_CLASS}"))
        before = PerClass.read(row.get(f"{gains.BEFORE}{split}_{PER_CLASS}"))
        if counted is None:
            continue
        lines = per_class_rows(counted)
        if before is not None and before.classes == counted.classes:
            for line, whole_line in zip(lines, per_class_rows(before), strict=True):
                line |= {f"{kind}{DIFFERENCE}": line[kind] - whole_line[kind] for kind in ("recall", "iou")}
        yield from (about | {"split": split} | line for line in lines)


def _cell(value: Any) -> Any:
    """What is not defined is empty."""
    if isinstance(value, float):
        return number(value)
    return csv_cell(value) if isinstance(value, str) else value
