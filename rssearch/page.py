"""The plot of a study's fronts as one web page, by Plotly: hover shows a trial, a click in the legend hides a method.

Below it stands the front as a table. The page holds Plotly's script (about 5 MB) and loads nothing, so it works offline
and can be sent by mail. What is drawn where is decided in `rssearch.figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rssearch.figures import COLOUR_MAP, DARK, GREY, RED, Look, caption, drawable, limits, look_of
from rssearch.report import summary
from rssearch.units import human, title_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from rssearch.config import Bound
    from rssearch.report import Front, Row

# in the order of figures.MARKERS
SYMBOLS = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("cross", "triangle-left", "triangle-right", "hexagon", "x"),
)
STYLE = """body { margin: 0 1rem 2rem; font: 14px sans-serif; color: #333 }
table { border-collapse: collapse; margin: 0 auto }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }"""
OPTIONS = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,  # a button that uploads the data, shown by default since Plotly 7
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
}
HOVER_LINES = 24


def page(found: Sequence[Front], study: str, constraints: Mapping[str, Bound]) -> bytes:
    """The page, UTF-8."""
    options = {**OPTIONS, "toImageButtonOptions": {"filename": f"{study}-front"}}
    plot = draw(found, study, constraints).to_html(full_html=False, include_plotlyjs=True, config=options)
    head = f'<meta charset="utf-8"><title>{escape(study)}: Pareto front</title><style>{STYLE}</style>'
    body = f"{plot}{_table(found)}"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'.encode()


def draw(found: Sequence[Front], study: str, constraints: Mapping[str, Bound]) -> Figure:
    """The plot as a Plotly figure."""
    from plotly.subplots import make_subplots

    look = look_of(found)
    columns = min(len(found), 2)
    rows = math.ceil(len(found) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[escape(caption(front)) for front in found],
        vertical_spacing=0.2 / rows if rows > 1 else 0,
        horizontal_spacing=0.08,
    )
    figure.update_annotations(font_size=14)
    log_ticks = {"type": "log", "dtick": "D2", "tickformat": ",~g"} if look.log else {}
    figure.update_xaxes(title_text=look.x_label, **log_ticks)
    figure.update_yaxes(title_text=look.labels[look.y])
    for i, front in enumerate(found):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        if front.note:
            centre = {"xref": "x domain", "yref": "y domain", "x": 0.5, "y": 0.5, "font_size": 18}
            figure.add_annotation(text=front.note, showarrow=False, **centre, **place)
            figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False, **place)
            figure.update_yaxes(showticklabels=False, showgrid=False, zeroline=False, **place)
            continue
        for trace in _traces(front, look):
            figure.add_trace({"showlegend": False, **trace}, **place)
        stroke = {"color": RED, "dash": "dash", "width": 1}
        for limit in limits(look.x, constraints, look):
            figure.add_vline(limit, line=stroke, **place)
        for limit in limits(look.y, constraints, look):
            figure.add_hline(limit, line=stroke, **place)
    if any(front.members for front in found):
        figure.add_traces(_legend(found, look))
    figure.update_layout(
        title={"text": f"<b>{escape(study)}</b>", "x": 0.5},
        template="plotly_white",
        height=560 * rows + 60,
        margin={"t": 90, "b": 60},
        legend={"groupclick": "togglegroup", "tracegroupgap": 0},
        hoverlabel={"align": "left"},
    )
    if look.third is not None:
        title = {"text": look.labels[look.third], "side": "right"}
        scale = {"colorscale": COLOUR_MAP, "colorbar": {"title": title}}
        figure.update_layout(coloraxis=scale, legend_x=1.13)
    return figure


def _traces(front: Front, look: Look) -> list[dict[str, Any]]:
    """What one panel shows, from the back to the front. A click in the legend hides all traces of its group."""
    xs, ys = look.staircase(front)
    line = {"color": DARK, "width": 1.2}
    traces: list[dict[str, Any]] = [
        {"type": "scatter", "x": xs, "y": ys, "mode": "lines", "line": line, "hoverinfo": "skip", "legendgroup": "line"}
    ]
    infeasible = drawable(front.infeasible, look)
    traces.append(_dots("infeasible", front, infeasible, look, {"color": GREY, "size": 8}, suffix="-open"))
    traces.append(_dots("baseline", front, front.baselines, look, {"color": "black", "size": 12}))
    for trials, style in (
        (front.dominated, {"size": 8, "opacity": 0.4}),
        (front.members, {"size": 13, "line": line}),
    ):
        for group in {str(trial.get(look.hue or "")): look.colour(trial) for trial in trials}.items():
            name, colour = group
            own = [trial for trial in trials if str(trial.get(look.hue or "")) == name]
            paint: dict[str, Any] = {"color": colour}
            if look.third is not None:
                values = [look.value(look.third, trial) for trial in own]
                paint = {"color": values, "coloraxis": "coloraxis"} if trials is front.members else {"color": GREY}
            traces.append(_dots(f"method {name}", front, own, look, {**style, **paint}))
    if front.knee is not None and look.x is not None:
        ring = _dots("knee", front, [front.knee], look, {"size": 24, "color": DARK, "line": {"width": 2}})
        ring["marker"]["symbol"] = "circle-open"
        traces.append({**ring, "hoverinfo": "skip", "hovertemplate": ""})
    return [trace for trace in traces if trace["x"]]


def _dots(
    group: str, front: Front, trials: Sequence[Row], look: Look, marker: Mapping[str, Any], *, suffix: str = ""
) -> dict[str, Any]:
    xs, ys = look.points(front, trials)
    return {
        "type": "scatter",
        "legendgroup": group,
        "mode": "markers",
        "x": xs,
        "y": ys,
        "marker": {**marker, "symbol": [SYMBOLS[look.marker(trial)] + suffix for trial in trials]},
        "text": [_story(trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _legend(found: Sequence[Front], look: Look) -> list[dict[str, Any]]:
    """Traces without points that make the legend: the same signs whatever panel they stand in."""

    def sign(group: str, label: str, **marker: Any) -> dict[str, Any]:
        style = {"size": 10, **marker}
        point = {"type": "scatter", "x": [None], "y": [None], "mode": "markers", "marker": style}
        return {**point, "name": escape(label), "legendgroup": group, "showlegend": True}

    signs = [sign(f"method {name}", name, color=colour) for name, colour in look.colours.items()]
    if look.third is not None:
        signs = [{**s, "marker": {"size": 10, "color": GREY}} for s in signs]
    if look.hue == "model":
        signs = [
            {**s, "marker": {**s["marker"], "symbol": SYMBOLS[look.markers[n]]}}
            for s, n in zip(signs, look.colours, strict=True)
        ]
    else:
        signs += [sign("models", name, color="#777777", symbol=SYMBOLS[i]) for name, i in look.markers.items()]
    if look.x is not None:
        signs.append(sign("knee", "knee", color=DARK, symbol="circle-open", line={"width": 2}))
    if any(front.baselines for front in found):
        signs.append(sign("baseline", "baseline", color="black"))
    if any(drawable(front.infeasible, look) for front in found):
        signs.append(sign("infeasible", "infeasible", color=GREY, symbol="circle-open"))
    if look.third is None:
        name = "best so far" if look.x is None else "attained"
        signs.append({**sign("line", name), "mode": "lines", "line": {"color": DARK, "width": 1.2}})
    return signs


def _story(trial: Row) -> str:
    """A trial, one value a line."""
    lines = [
        f"{escape(title_of(name))}: <b>{escape(human(name, value))}</b>"
        for name, value in trial.items()
        if name not in ("status", "reason") and not name.startswith("baseline_") and human(name, value)
    ]
    return "<br>".join(lines[:HOVER_LINES])


def _table(found: Sequence[Front]) -> str:
    rows = [row for front in found for row in front.members]
    if not rows:
        return ""
    knees = [front.knee["key"] for front in found if front.knee is not None]
    head, *body = summary(rows, found[0].objectives, knees)
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in body]
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><caption>★ knee</caption><tr>{names}</tr>{''.join(lines)}</table>"
