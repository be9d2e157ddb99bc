"""The columns of a study's tables, and values as JSON and CSV know them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rssearch.front.trials import Row
from rssearch.report.tables import REQUEST
from rssearch.scores import PER_CLASS

MEASURED = (
    *("val_accuracy", "test_accuracy", "val_miou", "test_miou"),
    *("macs", "params", "macs_ratio", "params_ratio", "baseline_val_accuracy", "baseline_val_miou", "train_seconds"),
)


COLUMNS = ("key", "status", *REQUEST, *MEASURED)


def listed(row: Row) -> dict[str, Any]:
    """A row without what is no column: the counts of each class, which per_class.csv tells."""
    return {name: value for name, value in row.items() if not name.endswith(PER_CLASS)}


def _columns(rows: Sequence[Row]) -> list[str]:
    """The contract's columns, then the others by name; the counts of each class are none.

    Where trials are networks (they have a model), a column that none of them has is there too, and empty; that of the
    other task (accuracy or mIoU) is not.
    """
    present = {name for row in rows for name in row if not name.endswith(PER_CLASS)}
    if not present:
        return list(COLUMNS)
    always = {"key", "status"}
    if "model" in present:
        always |= {name for name in COLUMNS if "miou" not in name or "val_miou" in present}
    first = [name for name in COLUMNS if name in present or name in always]
    return [*first, *sorted(present.difference(COLUMNS))]


def plain(value: Any) -> Any:
    """A value as JSON knows it: NumPy scalars become numbers, what is not finite None, paths text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
