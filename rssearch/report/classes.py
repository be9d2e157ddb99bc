"""What becomes of single classes: which ones a network gives up, though its accuracy may hardly show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rssearch.front import gains
from rssearch.scores import PER_CLASS, Floats, PerClass

__all__ = ["RULE", "Classes", "all_of", "given_up", "of_row", "sentences"]

SPLITS = ("test", "val")  # the first that both, a network and its baseline, are measured on
KINDS = ("recall", "iou")  # by which a class counts as given up
RULE = "gives up a class: recall or IoU 0, or less than half of the baseline's"
_LISTED, _NAMED = 6, 8  # networks that are named below a table, and classes of each

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Classes:
    """The classes of one network beside those of its baseline.

    Attributes:
        split: that they are measured on.
        counted: of the network.
        before: of its baseline; None where it has none, or that is not known.
    """

    split: str
    counted: PerClass
    before: PerClass | None

    def differences(self, kind: str) -> Floats:
        """A share of each class minus the baseline's, float64 [K]; NaN where one of the two is not defined."""
        own = self.counted.rates(kind)
        return np.full(len(own), np.nan) if self.before is None else own - self.before.rates(kind)

    def lost(self, kind: str) -> list[bool]:
        """Of each class, whether its share is 0, or less than half of the baseline's."""
        own = self.counted.rates(kind)
        whole = np.zeros(len(own)) if self.before is None else np.nan_to_num(self.before.rates(kind))
        found: list[bool] = ((self.counted.true > 0) & ((own == 0) | (own < whole / 2))).tolist()
        return found

    @property
    def given_up(self) -> list[str]:
        """The names of the classes that the network gives up, of those that the split has."""
        marks = zip(self.counted.classes, *(self.lost(kind) for kind in KINDS), strict=True)
        return [name for name, *lost in marks if any(lost)]

    @property
    def listed(self) -> list[str]:
        """The same, with a word where the baseline does not know a class either."""
        never = [] if self.before is None else self.before.rates("recall") == 0
        unknown = {name for name, missed in zip(self.counted.classes, never, strict=False) if missed}
        return [f"{name} (as the baseline)" if name in unknown else name for name in self.given_up]


def of_row(row: Row) -> Classes | None:
    """The classes of a trial or of a mean, of the test split where that was measured; None where none are counted."""
    for split in SPLITS:
        counted = PerClass.read(row.get(f"{split}_{PER_CLASS}"))
        if counted is not None:
            before = PerClass.read(row.get(f"{gains.BEFORE}{split}_{PER_CLASS}"))
            alike = before is not None and before.classes == counted.classes
            return Classes(split, counted, before if alike else None)
    return None


def all_of(rows: Iterable[Row]) -> dict[str, Classes]:
    """The classes of those rows that have counted them, by key."""
    return {str(row["key"]): found for row in rows if (found := of_row(row)) is not None}


def given_up(rows: Iterable[Row]) -> set[str]:
    """Keys of the rows whose networks give up some class."""
    return {key for key, found in all_of(rows).items() if found.given_up}


def sentences(rows: Sequence[Row], names: Mapping[str, str]) -> list[str]:
    """A line for each network that gives up classes: ``gives up: river, highway (l1, 0.7)``.

    Args:
        rows: members of fronts.
        names: what they are called, by key.
    """
    found = {key: classes.listed for key, classes in all_of(rows).items()}
    lines = [f"gives up: {_few(lost)} ({names[key]})" for key, lost in found.items() if lost]
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], *([f"{more} more give up classes: see per_class.csv"] if more > 0 else [])]


def _few(lost: Sequence[str]) -> str:
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return ", ".join(lost[:_NAMED]) + more
