"""The plot of a study's fronts as a PNG or SVG, by Matplotlib; `rssearch.report.page` shows the same to click on.

One panel for each dataset; across, the first objective to minimise (with a single objective: the number of the trial);
upwards, the first to maximise. The colour of a trial is its method: strong on the front, pale if dominated, hollow
if it is infeasible, a cross if it failed. With three objectives the colour of a member of the front is the third, and
other trials are grey. The marker is the model. Black is the network before pruning, with a dotted line through its
quality. Stopped trials are not drawn: their quality is that of an early epoch. The first twelve colours can be told
apart by colour-blind readers (Okabe and Ito 2008; Tol 2021).

An arrow at the edge stands for a trial beyond it, see `rssearch.report.look`.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rssearch.front import gains, seeds
from rssearch.metrics import title_of
from rssearch.report import spending
from rssearch.report.cells import lost_and_gained
from rssearch.report.look import DARK, GREY, MARKERS, RED, Look, drawable, ends, limits, line_name, look_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rssearch.config.schema import Bound
    from rssearch.front.trials import Front, Row

ARROWS = {1: r"$\downarrow$", -1: r"$\uparrow$"}  # towards the worse
COLOUR_MAP = "cividis"  # of a third objective
DPI = 150
CAPTION = 100  # letters of a line over a panel
PALE = 0.45  # opacity of dominated trials


def png(found: Sequence[Front], study: str, constraints: Mapping[str, Bound]) -> bytes:
    """The plot as a PNG: 1500 x 900 pixels for one dataset, 2400 x 900 for each row of two."""
    buffer = io.BytesIO()
    draw(found, study, constraints).savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def svg(found: Sequence[Front], study: str, constraints: Mapping[str, Bound]) -> bytes:
    """The same plot as an SVG. Letters are paths, so that no font is needed; equal fronts give equal bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "rssearch", "svg.fonttype": "path"}):
        draw(found, study, constraints).savefig(buffer, format="svg", metadata={"Date": None, "Title": study})
    return buffer.getvalue()


def draw(found: Sequence[Front], study: str, constraints: Mapping[str, Bound]) -> Figure:
    """The plot as a Matplotlib figure, without the global state of pyplot."""
    from matplotlib.figure import Figure

    look = look_of(found)
    columns = min(len(found), 2)
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(10 if columns == 1 else 16, 6 * rows), dpi=DPI, layout="constrained")
    figure.suptitle(literal(study), fontsize=14, fontweight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in panels[len(found) :]:
        panel.remove()
    panels = panels[: len(found)]
    for panel, front in zip(panels, found, strict=True):
        _panel(panel, front, look, constraints)
    if any(front.members for front in found):
        if look.third is not None:
            _colour_by_third(figure, panels, found, look, look.third)
        _legend(figure, found, look, constraints)
    return figure


def literal(text: str) -> str:
    """A text in which a dollar sign is one, and begins no formula."""
    return text.replace("$", r"\$")


def _panel(panel: Axes, front: Front, look: Look, constraints: Mapping[str, Bound]) -> None:
    panel.set(xlabel=look.x_label, ylabel=look.labels[look.y])
    gained = "" if front.knee is None else lost_and_gained(front.knee)
    below = textwrap.wrap(f"knee: {gained}" if gained else "", CAPTION)
    panel.set_title(literal("\n".join([caption(front), *below])), fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    if front.note:
        panel.text(
            0.5, 0.5, literal(front.note), transform=panel.transAxes, ha="center", va="center", color=DARK, fontsize=13
        )
        panel.set(xticks=[], yticks=[])
        return
    panel.grid(color="#E6E6E6", linewidth=0.7)
    panel.set_axisbelow(True)
    for colour, rows in _by_colour(front.dominated, look):
        _dots(panel, look.places(front, rows), look, s=28, zorder=2, color=colour, alpha=PALE, linewidths=0)
    for colour, rows in _by_colour(drawable(front.infeasible, look), look):
        _dots(panel, look.places(front, rows), look, s=28, zorder=2, facecolors="none", edgecolors=colour)
    for colour, rows in _by_colour(drawable(front.failed, look), look):
        _dots(panel, look.places(front, rows), look, shape="x", s=28, zorder=2, color=colour)
    for place in look.places(front, front.baselines):
        _dots(panel, [place], look, s=75, zorder=4, color="black")
        panel.axhline(place[2], color="black", linestyle=":", linewidth=0.8, zorder=1)
    panel.plot(*look.staircase(front), color=DARK, linewidth=1, zorder=3)
    if look.third is None:
        _members(panel, front, look, [look.colour(trial) for trial in front.members])
    if front.knee is not None and look.x is not None:
        for _, x, y, _ in look.places(front, [front.knee]):
            panel.scatter(x, y, s=260, facecolors="none", edgecolors=DARK, linewidths=1.6, zorder=6)
    for name, line in ((look.x, panel.axvline), (look.y, panel.axhline)):
        for limit in limits(name, constraints, look):
            line(limit, color=RED, linestyle="--", linewidth=1, zorder=1)
    if look.log:
        _log_axis(panel)
    if window := look.window(front):
        panel.set_ylim(ends(window))


def _by_colour(trials: Sequence[Row], look: Look) -> list[tuple[str, list[Row]]]:
    """Trials that are not on the front, with their colour: grey where the third objective has the colours."""
    found: dict[str, list[Row]] = {}
    for trial in trials:
        found.setdefault(GREY if look.third is not None else look.colour(trial), []).append(trial)
    return list(found.items())


def _dots(
    panel: Axes, places: Sequence[tuple[Row, float, float, bool]], look: Look, *, shape: str | None = None, **style: Any
) -> None:
    alike: dict[
        tuple[str, bool], list[tuple[float, float]]
    ] = {}  # each scatter takes milliseconds, however many points
    for trial, x, y, beyond in places:
        marker = ARROWS[look.sign] if beyond else shape or MARKERS[look.marker(trial)]
        alike.setdefault((marker, beyond), []).append((x, y))
    for (marker, beyond), points in alike.items():
        size = {"s": 180, "linewidths": 0.5} if beyond else {}
        panel.scatter(*zip(*points, strict=True), marker=marker, **(style | size))


def _members(panel: Axes, front: Front, look: Look, colours: Sequence[str]) -> None:
    for place, colour in zip(look.places(front, front.members), colours, strict=True):
        row, x, y, _ = place
        if any(bars := (look.bar(look.y, row), look.bar(look.x, row))):
            up, across = (bar or None for bar in bars)
            panel.errorbar(x, y, up, across, color=DARK, linewidth=1, capsize=3, zorder=4)
        _dots(panel, [place], look, s=75, color=colour, edgecolors=DARK, linewidths=0.8, zorder=5)


def _colour_by_third(figure: Figure, panels: Sequence[Axes], found: Sequence[Front], look: Look, third: str) -> None:
    """Draw the members in the colour of their third objective, on one scale for all panels."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_hex

    values = [look.value(third, trial) for front in found for trial in front.members]
    scale, colours = Normalize(min(values), max(values)), colormaps[COLOUR_MAP]
    for panel, front in zip(panels, found, strict=True):
        _members(panel, front, look, [to_hex(colours(scale(look.value(third, trial)))) for trial in front.members])
    bar = ScalarMappable(scale, colours)
    figure.colorbar(bar, ax=list(panels), label=look.labels[third], fraction=0.04, pad=0.02)


def _log_axis(panel: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, found: Sequence[Front], look: Look, constraints: Mapping[str, Bound]) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: Any) -> Line2D:
        return Line2D([], [], label=literal(label), **{"linestyle": "none", "marker": "o", "markersize": 8, **style})

    def line(label: str, style: str, colour: str) -> Line2D:
        return mark(label, marker="none", linestyle=style, color=colour)

    models = [mark(name, color="#777777", marker=MARKERS[i]) for name, i in look.markers.items()]
    seen = {look.hue_of(trial) for front in found for trial in _drawn(front, look)} if look.third is None else set()
    methods = [mark(name, color=colour) for name, colour in look.colours.items() if name in seen]
    if look.hue == "model" and methods:
        shapes = {name: MARKERS[place] for name, place in look.markers.items() if name in seen}
        methods, models = [], [mark(n, color=look.colours[n], marker=shape) for n, shape in shapes.items()]
    signs = [mark("on the front", markerfacecolor="white", markeredgecolor=DARK)]
    signs.append(mark("dominated", color=GREY, markersize=6))
    if any(drawable(front.infeasible, look) for front in found):
        signs.append(mark("infeasible", markerfacecolor="none", markeredgecolor=GREY, markersize=6))
    if any(drawable(front.failed, look) for front in found):
        signs.append(mark("failed", marker="x", color=GREY, markersize=6))
    if any(look.window(front) for front in found):
        signs.append(mark("beyond the axis", marker=ARROWS[look.sign], color=GREY, markersize=10))
    if look.x is not None:
        signs.append(mark("knee", markersize=14, markerfacecolor="none", markeredgecolor=DARK, markeredgewidth=1.6))
    if any(front.baselines for front in found):
        signs.append(mark("baseline", color="black"))
    if look.third is None:
        signs.append(line(line_name(look), "-", DARK))
    if any(limits(name, constraints, look) for name in (look.x, look.y)):
        signs.append(line("constraint", "--", RED))
    sections = {title_of(look.hue or "method"): methods, "Model": models, "Trials": signs}
    entries = [e for head, marks in sections.items() if marks for e in (mark(head, marker="none"), *marks)]
    size = 10 * min(1.0, 26 / len(entries))  # as many entries of 10 points fit beside one row of panels
    legend = figure.legend(handles=entries, loc="outside right upper", frameon=False, fontsize=size, labelspacing=0.6)
    for text in legend.get_texts():
        if text.get_text() in sections:
            text.set_fontweight("bold")


def caption(front: Front) -> str:
    """One line over a panel: dataset, counts, hypervolume, and the compute where it is known."""
    others = (("infeasible", front.infeasible), ("stopped", front.stopped), ("failed", front.failed))
    finished = [*front.members, *front.dominated]
    what = seeds.note(finished)
    parts = [f"{len(finished)} finished" if what is None else f"{len(finished)} configurations, {what} (bars: std)"]
    if any(gains.spread(row, name) is not None for row in finished for name in front.objectives):
        parts.append("bars of the latency: interquartile range")
    lacking = len(seeds.incomplete(finished))
    parts += [f"{lacking} without all seeds"] if lacking else []
    parts += [f"{len(rows)} {name}" for name, rows in others if rows]
    if front.relative_hypervolume is not None and front.baselines and len(front.objectives) > 1:
        parts.append(f"relative hypervolume {front.relative_hypervolume:.3f}")
    parts += [f"compute {spending.text(front.spent)}"] if front.spent.macs is not None else []
    return (f"{front.dataset}: " if front.dataset else "") + ", ".join(parts)


def _drawn(front: Front, look: Look) -> list[Row]:
    """All trials that have a point."""
    return [*front.members, *front.dominated, *drawable(front.infeasible, look), *drawable(front.failed, look)]
