"""The plot of a study's fronts as one web page, by Plotly: hover shows a trial, a click in the legend hides a method.

Below it stand the front as a table and, where there are some, pictures of what its members predict. The page holds
Plotly's script (about 5 MB) and loads nothing, so it works offline and can be sent by mail. What is drawn where is
decided in `rssearch.figures`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rssearch.figures import COLOUR_MAP, DARK, GREY, RED, Look, caption, drawable, ends, limits, line_name, look_of
from rssearch.report import COLUMNS
from rssearch.storage import Location, names
from rssearch.tables import KEY_DIGITS, legend, summary, varying
from rssearch.units import human, title_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from rssearch.config import Bound
    from rssearch.fronts import Front, Row

# in the order of figures.MARKERS
SYMBOLS = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down"),
    *("cross", "triangle-left", "triangle-right", "hexagon", "x"),
)
STYLE = """body { margin: 0 1rem 2rem; font: 14px sans-serif; color: #333 }
table { border-collapse: collapse; margin: 0 auto }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
h2, p, figure { margin: 1.5rem 0 0; text-align: center }
section { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); gap: 1.5rem }
figcaption { margin-bottom: .5rem }
img { max-width: 100% }"""
OPTIONS = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,  # a button that uploads the data, shown by default since Plotly 7
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
}
ARROWS = {1: "arrow-bar-down", -1: "arrow-bar-up"}  # for a trial beyond the axis, as in figures.ARROWS
PICTURES = 12  # of the front, at most
HOVER_LINES = 24
HOVER_WIDTH = 60


def page(
    found: Sequence[Front],
    study: str,
    constraints: Mapping[str, Bound],
    dimensions: Sequence[str] | None = None,
    pictures: Location | None = None,
) -> bytes:
    """The page, UTF-8; `dimensions` as in `rssearch.tables.table`, `pictures` as in `rssearch.report.write_front`."""
    options = {**OPTIONS, "toImageButtonOptions": {"filename": f"{study}-front"}}
    plot = draw(found, study, constraints).to_html(full_html=False, include_plotlyjs=True, config=options)
    head = f'<meta charset="utf-8"><title>{escape(study)}: Pareto front</title><style>{STYLE}</style>'
    body = f"{plot}{_table(found, dimensions)}{_predictions(found, dimensions, pictures)}"
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
        if window := look.window(front):
            figure.update_yaxes(range=ends(window), **place)
        stroke = {"color": RED, "dash": "dash", "width": 1}
        for limit in limits(look.x, constraints, look):
            figure.add_vline(limit, line=stroke, **place)
        for limit in limits(look.y, constraints, look):
            figure.add_hline(limit, line=stroke, **place)
    if any(front.members for front in found):
        figure.add_traces(_legend(found, look, constraints))
    figure.update_layout(
        title={"text": f"<b>{escape(study)}</b>", "x": 0.5},
        template="plotly_white",
        height=560 * rows + 60,
        margin={"t": 90, "b": 60},
        legend={"groupclick": "togglegroup", "tracegroupgap": 0, "title": {"text": "grey: dominated"}},
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
    hollow, cross = {"color": GREY, "size": 8}, {"color": GREY, "size": 7, "line": {"color": GREY, "width": 1.5}}
    infeasible, failed = drawable(front.infeasible, look), drawable(front.failed, look)
    traces.append(_dots("infeasible", "infeasible", front, infeasible, look, hollow, suffix="-open"))
    traces.append(_dots("failed", "failed", front, failed, look, cross, symbol="x-thin"))
    for name in dict.fromkeys(look.hue_of(trial) for trial in front.dominated):
        own = [trial for trial in front.dominated if look.hue_of(trial) == name]
        traces.append(_dots(f"method {name}", "dominated", front, own, look, {"color": GREY, "size": 8}))
    traces.append(_dots("baseline", "baseline", front, front.baselines, look, {"color": "black", "size": 12}))
    for name in dict.fromkeys(look.hue_of(trial) for trial in front.members):
        own = [trial for trial in front.members if look.hue_of(trial) == name]
        paint: dict[str, Any] = {"color": look.colour(own[0])}
        if look.third is not None:
            paint = {"color": [look.value(look.third, trial) for trial in own], "coloraxis": "coloraxis"}
        style = {"size": 13, "line": line, **paint}
        traces.append(_dots(f"method {name}", "on the front", front, own, look, style) | _bars(own, look))
    if front.knee is not None and look.x is not None:
        ring = _dots("knee", "", front, [front.knee], look, {"size": 24, "color": DARK, "line": {"width": 2}})
        ring["marker"]["symbol"] = "circle-open"
        traces.append({**ring, "hoverinfo": "skip", "hovertemplate": ""})
    return [trace for trace in traces if trace["x"]]


def _dots(
    group: str,
    state: str,
    front: Front,
    trials: Sequence[Row],
    look: Look,
    marker: Mapping[str, Any],
    *,
    symbol: str | None = None,
    suffix: str = "",
) -> dict[str, Any]:
    places = look.places(front, trials)
    symbols = [ARROWS[look.sign] if beyond else symbol or SYMBOLS[look.marker(trial)] for trial, _, _, beyond in places]
    sizes = [15 if beyond else marker["size"] for _, _, _, beyond in places]
    return {
        "type": "scatter",
        "legendgroup": group,
        "mode": "markers",
        "x": [x for _, x, _, _ in places],
        "y": [y for _, _, y, _ in places],
        "marker": {"opacity": 1, **marker, "size": sizes, "symbol": [name + suffix for name in symbols]},
        "text": [_story(trial, state) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _bars(trials: Sequence[Row], look: Look) -> dict[str, Any]:
    """Standard deviations over the seeds, for means."""
    bars = [look.deviation(trial) for trial in trials]
    return {"error_y": {"type": "data", "array": bars, "color": DARK, "thickness": 1}} if any(bars) else {}


def _legend(found: Sequence[Front], look: Look, constraints: Mapping[str, Bound]) -> list[dict[str, Any]]:
    """Traces without points that make the legend: the same signs whatever panel they stand in."""

    def sign(group: str, label: str, **marker: Any) -> dict[str, Any]:
        style = {"size": 10, **marker}
        point = {"type": "scatter", "x": [None], "y": [None], "mode": "markers", "marker": style}
        return {**point, "name": escape(label), "legendgroup": group, "showlegend": True}

    signs = [sign(f"method {name}", name, color=colour) for name, colour in look.legend().items()]
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
    if any(drawable(front.failed, look) for front in found):
        signs.append(sign("failed", "failed", symbol="x-thin", line={"color": GREY, "width": 1.5}))
    if any(look.window(front) for front in found):
        signs.append(sign("beyond", "beyond the axis", color=GREY, symbol=ARROWS[look.sign]))
    if look.third is None:
        signs.append({**sign("line", line_name(look)), "mode": "lines", "line": {"color": DARK, "width": 1.2}})
    if any(limits(name, constraints, look) for name in (look.x, look.y)):
        dashes = {"color": RED, "dash": "dash", "width": 1}
        signs.append({**sign("constraint", "constraint"), "mode": "lines", "line": dashes})
    return signs


def _story(trial: Row, state: str) -> str:
    """A trial, one value a line: how it did, then the contract's columns, then its own."""
    reason = trial.get("reason")
    lines = [f"<b>{escape(state + (f': {reason}' if reason else ''))}</b>"]
    for name in dict.fromkeys([*COLUMNS, *trial]):
        value = human(name, trial.get(name))
        if value and name not in ("status", "reason") and not name.startswith("baseline_"):
            short = value if len(value) <= HOVER_WIDTH else value[:HOVER_WIDTH] + "…"
            lines.append(f"{escape(title_of(name))}: <b>{escape(short)}</b>")
    return "<br>".join(lines[:HOVER_LINES])


def _table(found: Sequence[Front], dimensions: Sequence[str] | None) -> str:
    rows = [row for front in found for row in front.members]
    if not rows:
        return ""
    knees = [front.knee["key"] for front in found if front.knee is not None]
    asked, constant = varying([row for front in found for row in front.trials], dimensions)
    head, *body = summary(rows, found[0].objectives, knees, asked)
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in body]
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines_below = [*legend(rows, found[0].objectives), *([f"The same in all trials: {constant}"] if constant else [])]
    notes = "<br>".join(map(escape, lines_below))
    return f"<table><caption>{notes}</caption><tr>{names}</tr>{''.join(lines)}</table>"


def _predictions(found: Sequence[Front], dimensions: Sequence[str] | None, folder: Location | None) -> str:
    """What the members predict, by rising cost: all of them, or some that are evenly spaced along the front."""
    members = [row for front in found for row in front.members]
    pictures = {} if folder is None else {name: folder / name for name in names(folder)}
    shown = [(row, pictures[name]) for row in members if (name := f"{row['key']}.png") in pictures]
    if not shown:
        return ""
    count = min(len(shown), PICTURES)
    chosen = [shown[round(place * (len(shown) - 1) / max(1, count - 1))] for place in range(count)]
    asked, _ = varying([row for front in found for row in front.trials], dimensions)
    figures = []
    for row, path in chosen:
        values = [f"{title_of(name)} {human(name, row[name])}" for name in asked if row.get(name) is not None]
        measured = [name for name in (*found[0].objectives, "test_miou") if row.get(name) is not None]
        results = [f"{title_of(name)} {human(name, row[name])}" for name in dict.fromkeys(measured)]
        name = escape(", ".join(values) or row["key"][:KEY_DIGITS])
        image = base64.b64encode(path.read_bytes()).decode()
        figures.append(
            f"<figure><figcaption><b>{name}</b><br>{escape(', '.join(results))}</figcaption>"
            f'<img alt="predictions of {name}" src="data:image/png;base64,{image}"></figure>'
        )
    note = f"<p>{count} of {len(shown)} members of the front; the others are in the study's folder.</p>"
    return f"<h2>Predictions</h2>{note if count < len(shown) else ''}<section>{''.join(figures)}</section>"
