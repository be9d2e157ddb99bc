"""Pictures of scores and of the channels that they keep, and of sensitivities."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from rssearch.errors import InputError
from rssearch.pruning.channels import Kept
from rssearch.pruning.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT, REMOVED, WHOLE = "#0072B2", "#D55E00", "#DDDDDD"  # colour-blind readers can tell them apart (Okabe and Ito 2008)
COLOUR_MAP = "viridis"  # of the groups, from the first of the network to the last
ROWS = 24  # of a legend's column


def draw(scores: Mapping[str, Tensor | Sequence[float]], kept: Kept, title: str = "score") -> Figure:
    """Draw the score of every channel, kept ones above removed ones, and how many channels each group keeps.

    Args:
        scores: group of coupled channels -> [width], as of `rssearch.pruning.score` or a channel search.
        kept: group -> channels that stay; groups that are not named stay whole.
        title: of the scores' axis.

    Returns:
        A Matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        InputError: `kept` names a group or a channel that has no score.
    """
    from matplotlib.figure import Figure  # only here: pruning needs no Matplotlib

    figure = Figure(figsize=(9, 0.28 * len(scores) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    if unknown := kept.keys() - scores.keys():
        raise InputError(f"there are no scores of {', '.join(sorted(unknown))}")
    for place, (name, values) in enumerate(scores.items()):
        heights = np.asarray(values, dtype=float)
        width, chosen = len(heights), list(kept.get(name, range(len(heights))))
        if any(not 0 <= channel < width for channel in chosen):
            raise InputError(f"{name} has {width} scores, but channels up to {max(chosen)} are kept")
        stays = np.zeros(width, bool)
        stays[chosen] = True
        for which, shift, colour in ((stays, -0.15, KEPT), (~stays, 0.15, REMOVED)):
            left.plot(heights[which], np.full(which.sum(), place + shift), "|", color=colour, markersize=5, alpha=0.7)
        right.barh(place, width, color=WHOLE)
        right.barh(place, stays.sum(), color=KEPT)
        right.annotate(f"{stays.sum()} of {width}", (width, place), (3, 0), textcoords="offset points", va="center")
    for colour, label in ((KEPT, "kept"), (REMOVED, "removed")):
        left.plot([], [], "|", color=colour, label=label)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    left.set_yticks(range(len(scores)), list(scores))
    left.invert_yaxis()
    left.set_xlabel(title)
    right.set_xlabel("channels")
    right.margins(x=0.3)
    return figure


def draw_sensitivities(sensitivities: Mapping[str, Sensitivity], kept: Kept | None = None) -> Figure:
    """Draw what the loss gains with each share of a group's channels, a line for each group.

    Small dots are what was measured, the line is what is made of it; a ring is where `kept` cuts the group.

    Args:
        sensitivities: group -> its curve, in the order of the network.
        kept: group -> channels that stay; groups that are not named have no ring.

    Returns:
        A Matplotlib figure.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = math.ceil(len(sensitivities) / ROWS)
    figure = Figure(figsize=(6.5 + 1.8 * columns, 5), layout="constrained")
    axes = figure.subplots()
    colours = colormaps[COLOUR_MAP](np.linspace(0, 0.92, max(len(sensitivities), 1)))
    for (name, curve), colour in zip(sensitivities.items(), colours, strict=False):
        width = curve.widths[-1]
        shares = np.array(curve.widths) / width
        axes.plot(shares, curve.increases, ".", color=colour, markersize=4, alpha=0.6)
        axes.plot(shares, curve.monotone(), color=colour, linewidth=1.2, label=f"{name} ({width})")
        if kept and name in kept and len(kept[name]) >= curve.widths[0]:
            count = len(kept[name])
            axes.plot(count / width, curve.at(np.array([count])), "o", color=colour, markersize=8, fillstyle="none")
    axes.set_xlabel("channels kept, share of the group")
    axes.set_ylabel("increase of the loss, the group cut alone")
    # Straight near zero, where the choice is made, and logarithmic above, where a network falls apart.
    axes.set_yscale("symlog", linthresh=0.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", ncols=max(columns, 1), fontsize="x-small", frameon=False)
    return figure


def sensitivities_png(sensitivities: Mapping[str, Sensitivity], kept: Kept | None = None) -> bytes:
    """The same as a PNG."""
    buffer = io.BytesIO()
    draw_sensitivities(sensitivities, kept).savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
