"""The fronts of several studies in one picture: a colour and a marker for each study, a panel for each dataset."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rssearch.report.figures import DPI, literal
from rssearch.report.look import COLOURS, DARK, MARKERS, Look, look_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rssearch.report.comparison import Comparison


def png(found: Sequence[Comparison]) -> bytes:
    """The picture as a PNG: 1500 x 900 pixels for one dataset, 2400 x 900 for each row of two.

    Axes are those of `rssearch.report.figures`: across the first cost, upwards the quality. With three objectives the
    fronts are seen along the third. Trials beside the fronts are left out.

    Raises:
        InputError: there are more than three objectives.
    """
    from matplotlib.figure import Figure

    look = look_of([front for each in found for front in each.fronts])
    names = list(dict.fromkeys(entry.study for each in found for entry in each.entries))
    columns = min(len(found), 2)
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(10 if columns == 1 else 16, 6 * rows), dpi=DPI, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(found) :]:
        panel.remove()
    for panel, each in zip(panels, found, strict=False):
        _panel(panel, each, look, names)
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if handles:
        ordered = [name for name in (*names, "baseline") if name in handles]
        figure.legend([handles[n] for n in ordered], ordered, loc="outside right upper", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _panel(panel: Axes, found: Comparison, look: Look, names: Sequence[str]) -> None:
    volumes = [entry.relative_hypervolume for entry in found.entries]
    shares = [f"{e.study} {v:.3f}" for e, v in zip(found.entries, volumes, strict=True) if v is not None]
    title = [
        *([found.dataset] if found.dataset else []),
        *(["relative hypervolume: " + ", ".join(shares)] if shares else []),
    ]
    panel.set_title(literal("\n".join(title)), fontsize=10)
    panel.set(xlabel=look.x_label, ylabel=look.labels[look.y])
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="#E6E6E6", linewidth=0.7)
    panel.set_axisbelow(True)
    for entry, front in zip(found.entries, found.fronts, strict=True):
        index = names.index(entry.study)
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        panel.plot(*look.staircase(front), color=style["color"], linewidth=1.2, zorder=3)
        panel.plot(
            *look.points(front, front.members),
            label=literal(entry.study),
            linestyle="none",
            markersize=8,
            zorder=4,
            markeredgecolor=DARK,
            markeredgewidth=0.6,
            **style,
        )
        panel.plot(
            *look.points(front, front.baselines),
            label="baseline" if front.baselines else None,
            linestyle="none",
            marker="o",
            markersize=8,
            color="black",
            zorder=5,
        )
    if look.log:
        panel.set_xscale("log")
