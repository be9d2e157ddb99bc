"""The fronts of several studies in one picture: a colour and a marker for each study, a panel for each dataset.

A second picture has their hypervolumes against what they took.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rssearch.metrics import axis
from rssearch.report.figures import DPI, literal
from rssearch.report.look import COLOURS, DARK, MARKERS, Look, look_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rssearch.report.comparison import Comparison


def png(found: Sequence[Comparison]) -> bytes:
    """The fronts as a PNG: 1500 x 900 pixels for one dataset, 2400 x 900 for each row of two.

    Axes are those of `rssearch.report.figures`: across the first cost, upwards the quality. With three objectives the
    fronts are seen along the third. Trials beside the fronts are left out.

    Raises:
        InputError: there are more than three objectives.
    """
    look = look_of([front for each in found for front in each.fronts])
    return _drawn(found, lambda panel, each, names: _panel(panel, each, look, names))


def compute_png(found: Sequence[Comparison]) -> bytes | None:
    """Hypervolume against compute as a PNG: a step for each trial, and a dot where all have ended.

    Compute has what trials share (baselines, scores, searches) where the first trial uses it. None where no entry
    knows its compute.
    """
    shown = [each for each in found if any(entry.curve for entry in each.entries)]
    return _drawn(shown, _curves) if shown else None


def _drawn(found: Sequence[Comparison], draw: Callable[[Axes, Comparison, Sequence[str]], None]) -> bytes:
    """A panel for each dataset, and one legend of the studies and the baseline."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(entry.study for each in found for entry in each.entries))
    columns = min(len(found), 2)
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(10 if columns == 1 else 16, 6 * rows), dpi=DPI, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(found) :]:
        panel.remove()
    for panel, each in zip(panels, found, strict=False):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#E6E6E6", linewidth=0.7)
        panel.set_axisbelow(True)
        draw(panel, each, names)
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if handles:
        ordered = [name for name in (*names, "baseline") if name in handles]
        figure.legend([handles[n] for n in ordered], ordered, loc="outside right upper", frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _curves(panel: Axes, found: Comparison, names: Sequence[str]) -> None:
    known = [(entry, entry.curve) for entry in found.entries if entry.curve]
    label, factor = axis("compute", [spent for _, curve in known for spent, _ in curve])
    unknown = [entry.study for entry in found.entries if not entry.curve]
    title = [found.dataset] if found.dataset else []
    title += [f"compute unknown: {', '.join(unknown)}"] if unknown else []
    panel.set_title(literal("\n".join(title)), fontsize=10)
    relative = any(entry.relative_hypervolume is not None for entry in found.entries)
    across = f"{label} of trials and all that they share, baselines included"
    panel.set(xlabel=across, ylabel="Relative hypervolume" if relative else "Hypervolume")
    for entry, curve in known:
        style = _style(names.index(entry.study)) | {"linestyle": "none", "markersize": 8}
        spent, volumes = [macs * factor for macs, _ in curve], [volume for _, volume in curve]
        panel.step(spent, volumes, where="post", color=style["color"], linewidth=1.4)
        panel.plot(spent[-1:], volumes[-1:], label=literal(entry.study), **style)
    panel.set_xlim(left=0)


def _panel(panel: Axes, found: Comparison, look: Look, names: Sequence[str]) -> None:
    volumes = [entry.relative_hypervolume for entry in found.entries]
    shares = [f"{e.study} {v:.3f}" for e, v in zip(found.entries, volumes, strict=True) if v is not None]
    title = [
        *([found.dataset] if found.dataset else []),
        *(["relative hypervolume: " + ", ".join(shares)] if shares else []),
    ]
    panel.set_title(literal("\n".join(title)), fontsize=10)
    panel.set(xlabel=look.x_label, ylabel=look.labels[look.y])
    for entry, front in zip(found.entries, found.fronts, strict=True):
        style = _style(names.index(entry.study))
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
