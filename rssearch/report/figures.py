"""The plot of a study's fronts as a PNG or SVG, by Matplotlib; `rssearch.report.page` shows the same to click on.

One panel for each dataset; across, the first objective to minimise (with a single objective: the number of the trial);
upwards, the first to maximise. The colour of a member of the front is its method; with three objectives it is the
third. All other trials are grey: full if they are dominated, hollow if they are infeasible, a cross if they failed. The
marker is the model. Stopped trials are not drawn: their quality is that of an early epoch. The colours can be told
apart by colour-blind readers (Okabe and Ito 2008; Tol 2021).

A few collapsed trials must not squeeze the rest: the vertical axis ends where the better half of the trials and
baselines would have less than a fifth of its height, if that halves it at least. An arrow at the edge stands for a
trial beyond it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from rssearch.errors import InputError
from rssearch.front import seeds
from rssearch.metrics import axis, number, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rssearch.config.schema import Bound
    from rssearch.front.trials import Front, Row

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#882255", "#999933", "#332288", "#117733", "#AA4499", "#661100"),
)
GREY, DARK, RED = "#A8A8A8", "#333333", "#A00000"
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "h", "X")
ARROWS = {1: r"$\downarrow$", -1: r"$\uparrow$"}  # towards the worse
COLOUR_MAP = "cividis"  # of a third objective
DPI = 150
LOG_RANGE = 25  # positive values that span more than this factor get a logarithmic axis
BETTER_HALF = 1 / 5  # of the vertical axis' height, at least


@dataclass(frozen=True)
class Look:
    """What is drawn where, the same in all panels of a plot."""

    x: str | None  # None: the number of the trial
    y: str
    third: str | None
    sign: int  # 1 if the better trials stand higher, -1 if they stand lower
    labels: Mapping[str, str]  # of the axes
    factors: Mapping[str, float]  # from an objective to the unit of its axis
    log: bool
    hue: str | None  # the column that gives the colours
    colours: Mapping[str, str]
    winners: Collection[str]  # those of the hue that have a member on a front
    markers: Mapping[str, int]  # of the models: positions in MARKERS

    @property
    def x_label(self) -> str:
        """Label of the horizontal axis."""
        return "Trial" if self.x is None else self.labels[self.x]

    def value(self, name: str, trial: Row) -> float:
        """An objective in the unit of its axis."""
        return float(trial[name]) * self.factors[name]

    def points(self, front: Front, trials: Sequence[Row]) -> tuple[list[float], list[float]]:
        """Coordinates of trials or baselines. Where trials are counted, a baseline is number 0."""
        up = [self.value(self.y, trial) for trial in trials]
        if self.x is None:
            count = {id(trial): i + 1.0 for i, trial in enumerate(front.trials)}
            return [count.get(id(trial), 0.0) for trial in trials], up
        return [self.value(self.x, trial) for trial in trials], up

    def deviation(self, trial: Row) -> float:
        """Standard deviation over the seeds of the vertical axis's objective, in its unit; 0 for one seed."""
        return float(trial.get(self.y + seeds.STD, 0.0)) * self.factors[self.y]

    def colour(self, trial: Row) -> str:
        """Colour of a trial's method, for a member of a front."""
        return self.colours.get(self.hue_of(trial), COLOURS[0])

    def hue_of(self, trial: Row) -> str:
        """A trial's method; what gives the colours."""
        return str(trial.get(self.hue or ""))

    def legend(self) -> dict[str, str]:
        """Each method and its colour; grey if all its trials are."""
        return {name: colour if name in self.winners else GREY for name, colour in self.colours.items()}

    def marker(self, trial: Row) -> int:
        """Position in MARKERS of a trial's model."""
        return self.markers.get(str(trial.get("model")), 0)

    def window(self, front: Front) -> tuple[float, float] | None:
        """The worst and the best value that the vertical axis shows; None if it shows all trials."""
        sign = self.sign
        usual = [sign * self.value(self.y, row) for row in (*front.members, *front.dominated, *front.baselines)]
        if not usual or max(usual) == median(usual):
            return None
        others = (*drawable(front.infeasible, self), *drawable(front.failed, self))
        every = sorted([*usual, *(sign * self.value(self.y, row) for row in others)])
        fence = max(usual) - (max(usual) - median(usual)) / BETTER_HALF
        shown = [value for value in every if value >= fence]
        if every[-1] - every[0] < 2 * (shown[-1] - shown[0]) or len(shown) == len(every):  # little to gain
            return None
        return sign * (shown[0] - (shown[-1] - shown[0]) / 10), sign * shown[-1]

    def places(self, front: Front, trials: Sequence[Row]) -> list[tuple[Row, float, float, bool]]:
        """Trials or baselines with their coordinates, moved to the edge if they are beyond it, and whether they are."""
        window = self.window(front)
        places = []
        for trial, x, y in zip(trials, *self.points(front, trials), strict=True):
            if window is not None and self.sign * (y - window[0]) < 0:
                places.append((trial, x, window[0], True))
            else:
                places.append((trial, x, y, False))
        return places

    def staircase(self, front: Front) -> tuple[list[float], list[float]]:
        """Corners of what is attained at each cost, or up to each trial; none with three objectives."""
        if self.third is not None or not front.members:  # the projection of a surface is no staircase
            return [], []
        if self.x is None:
            xs, ys = self._best_so_far(front)
        else:
            xs, ys = self.points(front, sorted(front.members, key=lambda trial: float(trial[self.x or ""])))
        rising_cost = self.x is None or front.objectives[self.x] == "min"
        corners = list(zip(xs[1:], ys[:-1], strict=True) if rising_cost else zip(xs[:-1], ys[1:], strict=True))
        across, up = [xs[0]], [ys[0]]
        for corner, x, y in zip(corners, xs[1:], ys[1:], strict=True):
            across += [corner[0], x]
            up += [corner[1], y]
        return across, up

    def _best_so_far(self, front: Front) -> tuple[list[float], list[float]]:
        counted = {id(trial) for trial in (*front.members, *front.dominated)}
        best: list[Row] = []
        for trial in front.trials:
            if id(trial) in counted and (not best or self.sign * (trial[self.y] - best[-1][self.y]) > 0):
                best.append(trial)
        xs, ys = self.points(front, best)
        return [*xs, float(len(front.trials))], [*ys, ys[-1]]


def look_of(found: Sequence[Front]) -> Look:
    """Choose axes, units, colours and markers for a plot.

    Raises:
        InputError: there are more than three objectives.
    """
    objectives = found[0].objectives
    if len(objectives) > 3:
        raise InputError(f"a front of {len(objectives)} objectives cannot be drawn: at most 3, or formats csv and json")
    y = next((name for name, direction in objectives.items() if direction == "max"), next(iter(objectives)))
    others = sorted((name for name in objectives if name != y), key=lambda name: objectives[name] != "min")
    x, third = (*others, None, None)[:2]
    trials = [trial for front in found for trial in (*front.members, *front.dominated)]
    points = [*trials, *(baseline for front in found for baseline in front.baselines)]
    axes = {name: axis(name, [point[name] for point in points]) for name in objectives}
    across = [point[x] for point in points] if x else []
    hue, colours = colours_of(found)
    return Look(
        x=x,
        y=y,
        third=third,
        sign=1 if objectives[y] == "max" else -1,
        labels={name: label for name, (label, _) in axes.items()},
        factors={name: factor for name, (_, factor) in axes.items()},
        log=bool(across) and min(across) > 0 and max(across) / min(across) > LOG_RANGE,
        hue=hue,
        colours=colours,
        winners=_names([trial for front in found for trial in front.members], hue),
        markers=markers_of(found),
    )


def colours_of(found: Sequence[Front]) -> tuple[str | None, dict[str, str]]:
    """The column that gives the colours (methods, or else models), and the colour of each of its values."""
    trials = [trial for front in found for trial in (*front.members, *front.dominated)]
    hue = next((column for column in ("method", "model") if _names(trials, column)), None)
    return hue, {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(_names(trials, hue))}


def markers_of(found: Sequence[Front]) -> dict[str, int]:
    """Positions in MARKERS of the models."""
    points = [row for front in found for row in (*front.members, *front.dominated, *front.baselines)]
    return {name: i % len(MARKERS) for i, name in enumerate(_names(points, "model"))}


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
    panel.set_title(literal(caption(front)), fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)
    if front.note:
        panel.text(
            0.5, 0.5, literal(front.note), transform=panel.transAxes, ha="center", va="center", color=DARK, fontsize=13
        )
        panel.set(xticks=[], yticks=[])
        return
    panel.grid(color="#E6E6E6", linewidth=0.7)
    panel.set_axisbelow(True)
    full: dict[str, Any] = {"color": GREY, "linewidths": 0}
    hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": GREY}
    _dots(panel, look.places(front, front.dominated), look, s=28, zorder=2, **full)
    _dots(panel, look.places(front, drawable(front.infeasible, look)), look, s=28, zorder=2, **hollow)
    _dots(panel, look.places(front, drawable(front.failed, look)), look, shape="x", s=28, zorder=2, color=GREY)
    _dots(panel, look.places(front, front.baselines), look, s=75, zorder=4, color="black")
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
        if bar := look.deviation(row):
            panel.errorbar(x, y, bar, color=DARK, linewidth=1, capsize=3, zorder=4)
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
    methods = [mark(name, color=colour) for name, colour in look.legend().items()] if look.third is None else []
    if look.hue == "model" and methods:
        methods, models = [], [mark(n, color=c, marker=MARKERS[look.markers[n]]) for n, c in look.legend().items()]
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
    """One line over a panel: dataset, counts and hypervolume."""
    others = (("infeasible", front.infeasible), ("stopped", front.stopped), ("failed", front.failed))
    finished = [*front.members, *front.dominated]
    what = seeds.note(finished)
    parts = [f"{len(finished)} finished" if what is None else f"{len(finished)} configurations, {what} (bars: std)"]
    lacking = len(seeds.incomplete(finished))
    parts += [f"{lacking} without all seeds"] if lacking else []
    parts += [f"{len(rows)} {name}" for name, rows in others if rows]
    if front.relative_hypervolume is not None and front.baselines and len(front.objectives) > 1:
        parts.append(f"relative hypervolume {front.relative_hypervolume:.3f}")
    return (f"{front.dataset}: " if front.dataset else "") + ", ".join(parts)


def drawable(trials: Sequence[Row], look: Look) -> list[Row]:
    """Those of the infeasible or failed trials that were measured all the same."""
    return [t for t in trials if all(number(t.get(name)) is not None for name in (look.x, look.y) if name)]


def ends(window: tuple[float, float]) -> tuple[float, float]:
    """Lower and upper end of an axis that shows a window, with margins."""
    worst, best = window
    low, high = sorted((worst - (best - worst) * 0.04, best + (best - worst) * 0.08))
    return low, high


def line_name(look: Look) -> str:
    """What the line shows, for the legend."""
    return "best so far" if look.x is None else "front"


def limits(name: str | None, constraints: Mapping[str, Bound], look: Look) -> list[float]:
    """The constraints on an axis, in its unit."""
    bound = constraints.get(name) if name else None
    if name is None or bound is None:
        return []
    return [limit * look.factors[name] for limit in (bound.min, bound.max) if limit is not None]


def _names(trials: Sequence[Row], column: str | None) -> list[str]:
    return sorted({str(trial[column]) for trial in trials if column and trial.get(column) is not None})
