"""What the weights that a study begins with reach, for the console: a table, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rssearch.metrics import human, title_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["notes", "table"]

Row = Mapping[str, Any]


def table(rows: Sequence[Row]) -> Table:
    """A row for each normalisation; what is asked for is broken over lines, never cut.

    Args:
        rows: of one network, see `rssearch.study.checking.check_baselines`.
    """
    from rich.table import Table

    metric = rows[0]["metric"]
    shares = [("quality", title_of(metric)), ("reordered", "In the best order of classes")]
    shares += [("accuracy", "Pixel accuracy")] if metric == "miou" else []
    shares += [("certainty", "Certainty")]
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    result.add_column("Normalize", overflow="fold")
    for _, title in shares:
        result.add_column(title, justify="right", max_width=14)
    for row in rows:
        name = row["normalize"] + (f"\n({row['meaning']})" if row["meaning"] else "")
        result.add_row(name, *(human("accuracy", row[share]) for share, _ in shares))
    return result


def notes(rows: Sequence[Row]) -> Iterator[str]:
    """What follows from the rows of one network: the order of its classes, and whether it is suspicious."""
    best = max(rows, key=lambda row: float(row["best"]))
    warning = rows[0]["warning"]
    yield warning or f"{rows[0]['weights']}: nothing is suspicious"
    if best["other_order"] is not None and (not warning or best["other_order"] not in warning):
        yield f"the best order of classes: {best['other_order']}"
