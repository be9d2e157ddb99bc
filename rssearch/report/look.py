"""What a plot of fronts shows where, and in which colour: decided here for `figures` and the page.

A few collapsed trials must not squeeze the rest: the vertical axis ends where the better half of the trials and
baselines would have less than a fifth of its height, if that halves it at least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rssearch.errors import InputError
from rssearch.front import gains, seeds
from rssearch.metrics import axis, number

if TYPE_CHECKING:
    from rssearch.config.schema import Bound
    from rssearch.front.trials import Front, Row

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#882255", "#999933", "#332288", "#117733", "#AA4499", "#661100"),
)
GREY, DARK, RED = "#A8A8A8", "#333333", "#A00000"
MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "h", "X")
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

    def bar(self, name: str | None, trial: Row) -> float:
        """Half the length of an error bar along the axis of an objective, in its unit; 0 where there is none.

        It is the standard deviation over the seeds, or of a latency half the interquartile range.
        """
        if name is None:
            return 0.0
        wide = gains.spread(trial, name)
        half = float(trial.get(name + seeds.STD, 0.0)) if wide is None else wide / 2
        return half * self.factors[name]

    def colour(self, trial: Row) -> str:
        """Colour of a trial's method, for a member of a front."""
        return self.colours.get(self.hue_of(trial), COLOURS[0])

    def hue_of(self, trial: Row) -> str:
        """A trial's method; what gives the colours."""
        return str(trial.get(self.hue or ""))

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
        markers=markers_of(found),
    )


def colours_of(found: Sequence[Front]) -> tuple[str | None, dict[str, str]]:
    """The column that gives the colours (methods, or else models), and the colour of each of its values."""
    trials = [row for front in found for row in (*front.members, *front.dominated, *front.infeasible, *front.failed)]
    hue = next((column for column in ("method", "model") if _names(trials, column)), None)
    return hue, {name: "#{:02X}{:02X}{:02X}".format(*shade(i)) for i, name in enumerate(_names(trials, hue))}


def shade(index: int) -> tuple[int, int, int]:
    """A colour: twelve that colour-blind readers can tell apart, then paler and darker ones of these."""
    turn, place = divmod(index, len(COLOURS))
    text = COLOURS[place]
    towards, share = ((0, 0.0), (255, 0.55), (0, 0.5))[turn % 3]
    red, green, blue = (round(int(text[i : i + 2], 16) * (1 - share) + towards * share) for i in (1, 3, 5))
    return red, green, blue


def markers_of(found: Sequence[Front]) -> dict[str, int]:
    """Positions in MARKERS of the models."""
    finished = [row for front in found for row in (*front.members, *front.dominated, *front.baselines)]
    points = [*finished, *(row for front in found for row in (*front.infeasible, *front.failed))]
    return {name: i % len(MARKERS) for i, name in enumerate(_names(points, "model"))}


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
