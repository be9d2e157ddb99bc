"""A picture of scores and of the channels that they keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from rssearch.errors import InputError
from rssearch.pruning.channels import Kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT, REMOVED, WHOLE = "#0072B2", "#D55E00", "#DDDDDD"  # colour-blind readers can tell them apart (Okabe and Ito 2008)


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
