"""Which studies or methods of a comparison differ beyond noise: as rows and sentences, and as a diagram.

The diagram is that of critical differences (Demšar 2006) by scikit-posthocs: mean ranks on a line, and a bar over those
that are not separable; here by the paired tests with Holm's correction, which see more than ranks do.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rssearch.front.pairs import common_seeds
from rssearch.report.figures import DPI, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rssearch.report.comparison import Comparison, Entry

HEAD = ("First", "Second", "Seeds", "Hypervolume of the first\nminus the second's", "p", "p by\nHolm", "Separable")
SEEDS_HEAD = ("Hypervolume seed by seed", "Seeds", "Mean ± deviation", "To the first,\n95 % interval", "Mean\nrank")


def seed_rows(found: Comparison) -> list[list[str]]:
    """For each entry the mean over its seeds, and the paired difference to the first; empty without several seeds."""
    if not found.pairs:
        return []
    first = found.entries[0].study
    to_first = {p.other: _signed(p.difference, p.interval, -1) for p in found.pairs if p.one == first}
    return [
        [
            *(entry.study, str(len(entry.by_seed)), _mean(entry), to_first.get(entry.study, "")),
            f"{found.ranks[entry.study]:.2f}" if entry.study in found.ranks else "",
        ]
        for entry in found.entries
    ]


def pair_rows(found: Comparison) -> list[list[str]]:
    """A row for each pair of entries."""
    return [
        [
            *(pair.one, pair.other, str(pair.seeds), _signed(pair.difference, pair.interval)),
            *("" if p is None else f"{p:.2g}" for p in (pair.p, pair.adjusted)),
            "" if pair.adjusted is None else "yes" if pair.is_separable else "no",
        ]
        for pair in found.pairs
    ]


def sentences(found: Comparison) -> list[str]:
    """What can be concluded, and what cannot."""
    tested = [pair for pair in found.pairs if pair.adjusted is not None]
    if not tested:
        return ["Fewer than two seeds in common: whether they differ beyond noise cannot be said."]
    seeds = len(common_seeds({entry.study: entry.by_seed for entry in found.entries}))
    apart = sum(pair.is_separable for pair in tested)
    how = f"paired t-tests, two-sided, with Holm's correction; {seeds} seeds in common"
    lines = [f"{_count(apart, len(tested))} separable at 5 % ({how})."]
    if not apart:
        lines.append("A difference that is not separable is not shown to be none: more seeds would say more.")
    if (critical := found.critical_difference) is not None and len(found.entries) > 2:
        most, enough = len(found.entries) - 1, _enough(critical, seeds, len(found.entries))
        never = f": nothing can be separable by ranks with fewer than {enough} seeds" if critical >= most else ""
        lines.append(f"By ranks the critical difference is {critical:.2f} of at most {most} (Nemenyi){never}.")
    return lines


def _count(apart: int, pairs: int) -> str:
    """The beginning of a sentence about so many of all pairs."""
    if pairs == 1:
        return "The pair is" if apart else "The pair is not"
    return f"Of {pairs} pairs {apart or 'none'} {'are' if apart > 1 else 'is'}"


def _enough(critical: float, seeds: int, groups: int) -> int:
    """The least number of seeds for which the critical difference, which falls with their root, is below the most."""
    return math.floor(seeds * (critical / (groups - 1)) ** 2) + 1


def png(found: Sequence[Comparison]) -> bytes | None:
    """The diagrams as a PNG, a panel for each dataset with ranks of three entries or more.

    None where there is none, or scikit-posthocs is not installed (the extra ``statistics``).
    """
    shown = [each for each in found if len(each.ranks) > 2 and all(p.adjusted is not None for p in each.pairs)]
    if not shown or not is_installed():
        return None
    from matplotlib.figure import Figure

    most = max(len(each.ranks) for each in shown)
    figure = Figure(figsize=(10, len(shown) * (1.6 + 0.22 * most)), dpi=DPI, layout="constrained")
    for panel, each in zip(figure.subplots(len(shown), 1, squeeze=False).flat, shown, strict=True):
        _panel(panel, each)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def is_installed() -> bool:
    """Whether scikit-posthocs can be imported."""
    try:
        import scikit_posthocs  # noqa: F401
    except ImportError:
        return False
    return True


def _panel(panel: Axes, found: Comparison) -> None:
    import pandas as pd
    import scikit_posthocs

    names = {name: literal(name) for name in found.ranks}
    matrix = pd.DataFrame(1.0, index=[*names.values()], columns=[*names.values()])
    for pair in found.pairs:
        one, other = names[pair.one], names[pair.other]
        matrix.loc[one, other] = matrix.loc[other, one] = pair.adjusted
    ranks: dict[str, Any] = {names[name]: rank for name, rank in found.ranks.items()}
    scikit_posthocs.critical_difference_diagram(ranks, matrix, ax=panel)
    title = "mean rank of the hypervolume; bars: not separable"
    panel.set_title(f"{literal(found.dataset)}: {title}" if found.dataset else title, fontsize=10)


def _mean(entry: Entry) -> str:
    values = [*entry.by_seed.values()]
    if not values:
        return ""
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _signed(difference: float | None, interval: float | None, sign: int = 1) -> str:
    if difference is None:
        return ""
    return f"{sign * difference or 0.0:+.4f}" + ("" if interval is None else f" ± {interval:.4f}")
