"""Metrics for people: names, units and numbers. The console table and the plots share them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
DIFFERENCE = "_difference"  # of a quality to that of the baseline
SPEEDUP = "speedup"
RATIOS = ("macs_ratio", "params_ratio", "bytes_ratio")
WORDS = {
    "val": "validation",
    "macs": "MACs",
    "params": "parameters",
    "miou": "mIoU",
    "ms": "(ms)",
    "seconds": "(s)",
    "iqr": "interquartile range",
    "bytes": "size",
    "speedup": "speed-up",
}


def number(value: Any) -> float | None:
    """A finite number, or None."""
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
        unit, prefix = next((p for p in PREFIXES if abs(rounded) >= p[0]), (1.0, ""))
        return f"{rounded / unit:g} {prefix}{'B' if is_size(name) else ''}".rstrip()
    return f"{quantity:.4g}" if isinstance(value, float) else str(value)


def is_share(name: str) -> bool:
    """Whether a metric is a part of one, better read in per cent."""
    return name.endswith(("accuracy", "miou", "_ratio"))


def is_quality(name: str) -> bool:
    """Whether a metric says how many of the answers are right."""
    return name.endswith(("accuracy", "miou"))


def is_difference(name: str) -> bool:
    """Whether a metric is the difference of two qualities, read in percentage points."""
    return name.endswith(DIFFERENCE) and is_quality(name.removesuffix(DIFFERENCE))


def is_size(name: str) -> bool:
    """Whether a metric is a number of bytes."""
    return name == "bytes" or name.endswith("_bytes")


def is_count(name: str) -> bool:
    """Whether a metric is a count of operations or parameters, better read in M or G."""
    return name.endswith(("macs", "params"))


def title_of(name: str) -> str:
    """A column's name for people: ``val_accuracy`` is "Validation accuracy"."""
    quantity, is_ratio = name.removesuffix("_ratio"), name.endswith(RATIOS)
    text = " ".join(WORDS.get(word, word) for word in quantity.split("_") if word) + (" left" if is_ratio else "")
    text += " (points)" if is_difference(name) else ""
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
        unit, prefix = next((p for p in PREFIXES if smallest >= p[0] / 10), (1.0, ""))
        shown = prefix + ("B" if is_size(name) else "")
        return title_of(name) + (f" ({shown})" if shown else ""), 1 / unit
    return title_of(name), 1.0
