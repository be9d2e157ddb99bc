"""A published table: what it prints, what is recomputed, and how far the two agree. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rssearch.pruning.channels import Group

Status = Literal["reproduced", "not reproducible", "needs training", "recomputed"]
TOLERANCE = 0.01  # relative; what agrees to every printed digit is reproduced too
_EXPONENTS = {"k": 3, "M": 6, "G": 9, "B": 9}


@dataclass(frozen=True)
class Network:
    """A network of `rssearch.models` for images of `size` x `size` pixels.

    Attributes:
        options: of the network beside `shortcut`, as pairs of name and value.
        part: the layer or block that is counted, of which only parameters are; empty for all of the network.
    """

    model: str
    classes: int
    size: int
    shortcut: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    part: str = ""


@dataclass(frozen=True)
class Listed:
    """Cut with a list of ratios, see `rssearch.pruning.ratios.ratios_of`."""

    ratios: str


@dataclass(frozen=True)
class Uniform:
    """Every group of channels with batch normalisation is cut to ``int(n * (1 - rate))``."""

    rate: float


@dataclass(frozen=True)
class Trained:
    """What is cut depends on trained weights; only the range can be counted.

    Attributes:
        may_be_cut: which groups of channels the method may cut, down to one channel.
    """

    may_be_cut: Callable[[Group], bool]


@dataclass(frozen=True)
class Unpublished:
    """How it was cut was not published."""


Cut = Listed | Uniform | Trained | Unpublished | None


@dataclass(frozen=True)
class Row:
    """One row of a published table.

    Attributes:
        name: the network, and how it was cut.
        network: what is built.
        cut: how it is cut; None: the whole network.
        params: as printed, such as ``0.85M``; empty where the figure is not at hand.
        macs: likewise; the papers say "FLOPs" or "calculation", and count multiply-accumulates.
        counter: the one whose count the printed MACs are compared with.
        accuracy: as printed, in per cent; see `Paper.accuracy`.
        why: why a figure is not reproduced, by ``params`` or ``macs``.
    """

    name: str
    network: Network
    cut: Cut = None
    params: str = ""
    macs: str = ""
    counter: str = "MAC"
    accuracy: str = ""
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """A paper's table.

    Attributes:
        name: as `rssearch papers` takes it.
        title: of the paper.
        summary: one line: what can be reproduced.
        counters: how operations are counted: ``MAC`` (convolutions and linear layers), ``thop-0.1.1`` (installed here)
            or an older release of `rssearch.papers.counters`.
        rows: of the table.
        notes: what a reader has to know of the figures.
        accuracy: what the accuracies of the rows are: ``top-1`` or ``mIoU``.
    """

    name: str
    title: str
    summary: str
    counters: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    accuracy: str = "top-1"


@dataclass(frozen=True)
class Cell:
    """One figure of a row.

    Attributes:
        row: the row's name.
        count: ``params``, or the counter of the operations.
        printed: as the paper has it; empty where there is none.
        ours: the recomputed count; the smallest and the largest where training decides; nothing where it is unknown.
        compared: whether the agreement is judged here; other counters are shown beside it.
        why: why the figure is not reproduced.
    """

    row: str
    count: str
    printed: str
    ours: tuple[int, ...]
    compared: bool
    why: str = ""

    @property
    def error(self) -> float | None:
        """(ours - printed) / printed."""
        if not self.printed or len(self.ours) != 1:
            return None
        printed, _ = read(self.printed)
        return (self.ours[0] - printed) / printed

    @property
    def status(self) -> Status | None:
        """How the figure stands; None for a counter that the row is not compared in."""
        if not self.compared:
            return None
        if not self.printed:
            return "recomputed"
        if not self.ours:
            return "not reproducible"
        printed, half_digit = read(self.printed)
        low, high = self.ours[0] - half_digit, self.ours[-1] + half_digit
        if len(self.ours) == 2:
            return "needs training" if low <= printed <= high else "not reproducible"
        agrees = low <= printed <= high or abs(self.ours[0] - printed) <= TOLERANCE * printed
        return "reproduced" if agrees else "not reproducible"


def read(printed: str) -> tuple[float, float]:
    """The value of a printed figure such as ``0.47M`` or ``5158``, and half a unit of its last digit."""
    exponent = _EXPONENTS.get(printed[-1])
    digits = Decimal(printed) if exponent is None else Decimal(printed[:-1]).scaleb(exponent)
    return float(digits), 0.5 * 10.0 ** int(digits.as_tuple().exponent)


@dataclass(frozen=True)
class Table:
    """A paper's table with the recomputed figures: row by row its cells, `params` first."""

    paper: Paper
    cells: tuple[tuple[Cell, ...], ...]

    def lines(self) -> Iterator[tuple[str, ...]]:
        """A line for each figure: row, count, printed, recomputed, error, status."""
        for row, cells in zip(self.paper.rows, self.cells, strict=True):
            first = [row.name, f"  {self.paper.accuracy} {row.accuracy} %" if row.accuracy else "", *[""] * len(cells)]
            for title, cell in zip(first, cells, strict=False):
                error = "" if cell.error is None else f"{100 * cell.error:+.2f}%"
                yield title, cell.count, cell.printed, _shown(cell.ours), error, cell.status or ""

    def reasons(self) -> list[str]:
        """Why figures are not reproduced, in the order of the table; each reason once."""
        figures: dict[str, list[str]] = {}
        for cell in (cell for cells in self.cells for cell in cells if cell.why):
            figures.setdefault(cell.why, []).append(f"{cell.row} ({cell.count})")
        return [f"{', '.join(names)}: {why}" for why, names in figures.items()]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        rows, accuracy = [], self.paper.accuracy.replace("-", "").lower()
        for row, cells in zip(self.paper.rows, self.cells, strict=True):
            figures = [
                {
                    "count": cell.count,
                    "printed": cell.printed or None,
                    "ours": cell.ours[0] if len(cell.ours) == 1 else None,
                    "attainable": list(cell.ours) if len(cell.ours) == 2 else None,
                    "error": cell.error,
                    "status": cell.status,
                    "why": cell.why or None,
                }
                for cell in cells
            ]
            rows.append(
                {
                    "row": row.name,
                    "model": row.network.model,
                    "classes": row.network.classes,
                    "input_size": row.network.size,
                    "shortcut": row.network.shortcut,
                    "ratios": row.cut.ratios if isinstance(row.cut, Listed) else None,
                    "rate": row.cut.rate if isinstance(row.cut, Uniform) else None,
                    "options": dict(row.network.options),
                    "part": row.network.part or None,
                    f"printed_{accuracy}": row.accuracy or None,
                    "cells": figures,
                }
            )
        paper = self.paper
        return {"paper": paper.name, "title": paper.title, "counters": list(paper.counters), "rows": rows,
                "notes": list(paper.notes)}  # fmt: skip


def _shown(ours: tuple[int, ...]) -> str:
    if len(ours) == 1:
        return str(ours[0])
    unit, prefix = (1e9, "G") if ours and ours[-1] >= 1e9 else (1e6, "M")
    return "..".join(f"{value / unit:.2f}" for value in ours) + (prefix if ours else "")
