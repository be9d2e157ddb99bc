"""Metrics for people: names, units and numbers. The console table and the plots share them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Real
from typing import Any

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
LARGE = ((1e18, "E"), (1e15, "P"), (1e12, "T"), *PREFIXES)  # of what a study took in all
COMPUTE = "compute"
BOPS = "bops"
DIFFERENCE = "_difference"  # of a quality to that of the baseline
SPEEDUP = "speedup"
RATIOS = ("macs_ratio", "params_ratio", "bytes_ratio")
KINDS = ("accuracy", "recall", "precision", "f1", "iou")  # of one class: val_recall_water
QUALITIES = ("accuracy", "miou", "miou_foreground", "macro_f1", "micro_f1", "map")  # how names of qualities end
_ERROR = "ece"
_OF_CLASS = re.compile(rf"(.*\b|.*_|)((?:val|test)_)({'|'.join(KINDS)})_(.*)")
_DERIVED = (DIFFERENCE, "_std", "_interval")
WORDS = {
    "val": "validation",
    "macs": "MACs",
    "params": "parameters",
    "miou": "mIoU",
    "map": "mAP",
    "iou": "IoU",
    "f1": "F1",
    "ece": "calibration error",
    "ms": "(ms)",
    "mj": "(mJ)",
    "rss": "resident",
    "seconds": "(s)",
    "iqr": "interquartile range",
    "bytes": "size",
    "speedup": "speed-up",
    "compute": "compute (MACs)",
    "bops": "bit operations",
}


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if type(value) is float:  # most of them, a hundred thousand in a large study
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value) if math.isfinite(value) else None


def human(name: str, value: Any, deviation: float | None = None) -> str:
    """A metric's value with its unit: 91.4 % of an accuracy, 12.3 M of MACs; empty for None and NaN.

    With a standard deviation it is 91.4 ± 0.8 %; costs are shown without.
    """
    quantity = number(value)
    if quantity is None:
        return "" if value is None or isinstance(value, float) else str(value)
    if is_difference(name):
        points = f"{100 * quantity:+.1f}"
        return "0.0" if float(points) == 0 else points.replace("-", "\u2212")
    if name.startswith(SPEEDUP):
        return f"{quantity:.3g}×"
    if is_share(name):
        spread = "" if deviation is None or name.endswith("_ratio") else f" ± {100 * deviation:.1f}"
        return f"{100 * quantity:.1f}{spread} %"
    if is_count(name) or is_size(name):
        rounded = float(f"{quantity:.3g}")  # first, so that 999.9 k becomes 1 M
        unit, prefix = next((p for p in _prefixes(name) if abs(rounded) >= p[0]), (1.0, ""))
        return f"{rounded / unit:g} {prefix}{'B' if is_size(name) else ''}".rstrip()
    return f"{quantity:.4g}" if isinstance(value, float) else str(value)


def is_share(name: str) -> bool:
    """Whether a metric is a part of one, better read in per cent."""
    return name.endswith(("_ratio", "_sparsity")) or is_quality(name) or is_calibration(name)


def is_quality(name: str) -> bool:
    """Whether a metric says how many of the answers are right, of all classes or of one."""
    return name.endswith(QUALITIES) or of_class(name) is not None


def is_calibration(name: str) -> bool:
    """Whether a metric is an expected calibration error."""
    return name == _ERROR or name.endswith(f"_{_ERROR}")


def of_class(name: str) -> tuple[str, str, str] | None:
    """What a metric of one class is made of: ``baseline_val_recall_water`` is ("baseline_val_", "recall", "water").

    None for other metrics, and for what is derived of such a one (a difference, a deviation).
    """
    found = None if name.endswith(_DERIVED) else _OF_CLASS.fullmatch(name)
    return None if found is None else (found[1] + found[2], found[3], found[4])


def is_difference(name: str) -> bool:
    """Whether a metric is the difference of two qualities, read in percentage points."""
    return name.endswith(DIFFERENCE) and is_quality(name.removesuffix(DIFFERENCE))


def is_size(name: str) -> bool:
    """Whether a metric is a number of bytes."""
    return name == "bytes" or name.partition("@")[0].endswith("_bytes")


def is_count(name: str) -> bool:
    """Whether a metric is a count of operations or parameters, better read in M or G."""
    return name.endswith(("macs", "params", COMPUTE, BOPS))


def _prefixes(name: str) -> tuple[tuple[float, str], ...]:
    return LARGE if name.endswith((COMPUTE, BOPS)) else PREFIXES


def title_of(name: str) -> str:
    """A column's name for people: ``val_accuracy`` is "Validation accuracy", ``latency_ms@pi`` one on pi."""
    name, _, device = name.partition("@")
    quantity, is_ratio = name.removesuffix("_ratio"), name.endswith(RATIOS)
    text = " ".join(WORDS.get(word, word) for word in quantity.split("_") if word) + (" left" if is_ratio else "")
    text += " (points)" if is_difference(name) else ""
    text += f" on {device}" if device else ""
    return text if text.startswith("mIoU") else text[:1].upper() + text[1:]


def axis(name: str, values: Sequence[float]) -> tuple[str, float]:
    """Label of a plot's axis with its unit, and the factor from the metric's values to that unit."""
    if is_share(name):
        of_baseline = " of the baseline" if name.endswith(RATIOS) else ""
        return f"{title_of(name)} (%{of_baseline})", 100.0
    if is_difference(name):
        return title_of(name), 100.0
    if is_count(name) or is_size(name):
        smallest = min((abs(value) for value in values if value), default=0.0)
        unit, prefix = next((p for p in _prefixes(name) if smallest >= p[0] / 10), (1.0, ""))
        if name.endswith(COMPUTE):
            return title_of(name).replace("(MACs)", f"({prefix} MACs)".replace("( ", "(")), 1 / unit
        shown = prefix + ("B" if is_size(name) else "")
        return title_of(name) + (f" ({shown})" if shown else ""), 1 / unit
    return title_of(name), 1.0
