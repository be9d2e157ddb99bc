"""A study as one web page: its front on axes to choose, all trials, hypervolume, channels, predictions, what it ran on.

The page is one file that loads nothing, so it works offline and can be sent by mail. It holds the trials as JSON (see
`rssearch.report.page.payload`), Plotly's script packed by gzip, and ``page.js``, which draws. Text of a study gets into
the page as data or escaped, never as markup.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from rssearch.metrics import human, title_of
from rssearch.report import spending
from rssearch.report.cells import cell, lost_and_gained
from rssearch.report.columns import plain
from rssearch.report.page import classes
from rssearch.report.page.payload import named, payload
from rssearch.report.page.study_files import StudyFiles, study_files
from rssearch.report.tables import KEY_DIGITS, legend, summary, varying
from rssearch.storage.location import Location

if TYPE_CHECKING:
    from rssearch.config.schema import Bound
    from rssearch.front.trials import Front

__all__ = ["page"]

SCRIPTS = ("theme.js", "page.js", "dimensions.js")
PICTURES = 12  # of the front, at most
DOCUMENTS = {"study.yaml": "The study, with all defaults", "environment.json": "What it ran on"}


def page(
    found: Sequence[Front],
    study: str,
    constraints: Mapping[str, Bound],
    dimensions: Sequence[str] | None = None,
    folder: Location | None = None,
    averaged: Sequence[Front] | None = None,
    links: str | None = None,
) -> bytes:
    """The page, UTF-8.

    Args:
        found: the fronts of the trials.
        study: the name.
        constraints: limits of metrics.
        dimensions: as in `rssearch.report.tables.table`.
        folder: the study's folder, as in `rssearch.report.write_front`.
        averaged: the fronts of the means, where seeds vary.
        links: what leads from the page to the study's folder: empty where it lies there; None for no links.
    """
    shown = averaged or found
    beside = study_files(folder, [key for front in shown for row in front.members for key in named(row)])
    data = payload(found, averaged, study, constraints, dimensions, beside.channels)
    parts = {
        "title": escape(study),
        "style": _resource("page.css"),
        "front": _front_table(shown, dimensions),
        "classes": classes.sections(shown, dimensions, beside.confusions, links),
        "dimensions": _resource("dimensions.html") if data["dimensions"] else "",
        "channels": _channels(beside),
        "predictions": _predictions(shown, dimensions, beside.pictures),
        "documents": _documents(beside),
        # `<` would let a study's text end the script
        "data": json.dumps(plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "plotly": _plotly(),
        "script": "\n".join(map(_resource, SCRIPTS)),
    }
    text = _resource("page.html")
    pieces = text.split("@")  # not `format` or `Template`: the parts are full of braces and dollars
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces)).encode()


def _resource(name: str) -> str:
    return files("rssearch.report.page").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Plotly's script, 4.8 MB, in 2 MB of text."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 6, mtime=0)).decode()


def _front_table(found: Sequence[Front], dimensions: Sequence[str] | None) -> str:
    rows = [row for front in found for row in front.members]
    if not rows:
        return ""
    knees = [front.knee["key"] for front in found if front.knee is not None]
    asked, constant = varying([row for front in found for row in front.trials], dimensions)
    head, *body = summary(rows, found[0].objectives, knees, asked)
    sides = [' class="number"' if len(asked) < i < len(head) - 1 else "" for i in range(len(head))]

    def cells(tag: str, line: Sequence[str]) -> str:
        return "".join(f"<{tag}{side}>{escape(cell)}</{tag}>" for side, cell in zip(sides, line, strict=True))

    kinds = ["" if line[-1] else ' class="baseline"' for line in body]  # baselines have no key
    lines = [f"<tr{kind}>{cells('td', line)}</tr>" for kind, line in zip(kinds, body, strict=True)]
    gained = [lost_and_gained(front.knee) for front in found if front.knee is not None]
    lines_below = [*legend(rows, found[0].objectives), *([f"The same in all trials: {constant}"] if constant else [])]
    lines_below += [f"★ against its baseline: {text}" for text in gained if text]
    lines_below += spending.notes(found)
    notes = "<br>".join(map(escape, lines_below))
    table = f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<section><h2>Members of the front</h2><div class="wide">{table}</div><p class="note">{notes}</p></section>'


def _channels(beside: StudyFiles) -> str:
    if beside.channels is None:
        return ""
    title = "<h2>Channels that are left</h2>"
    if not beside.channels:
        return f'<section>{title}<p class="note">No pruned network of the front is in the store.</p></section>'
    choice = '<label>Member <select id="member"></select></label>'
    return f'<section>{title}<p class="controls">{choice}</p><div id="channels" class="plot"></div></section>'


def _predictions(found: Sequence[Front], dimensions: Sequence[str] | None, pictures: Mapping[str, Location]) -> str:
    """What the members predict, by rising cost: all of them, or some that are evenly spaced along the front."""
    members = [row for front in found for row in front.members]
    shown = [(row, pictures[row["key"]]) for row in members if row["key"] in pictures]
    if not shown:
        return ""
    count = min(len(shown), PICTURES)
    chosen = [shown[round(place * (len(shown) - 1) / max(1, count - 1))] for place in range(count)]
    asked, _ = varying([row for front in found for row in front.trials], dimensions)
    figures = []
    for row, path in chosen:
        values = [f"{title_of(name)} {human(name, row[name])}" for name in asked if row.get(name) is not None]
        measured = [name for name in (*found[0].objectives, "test_miou", "test_map") if row.get(name) is not None]
        results = [f"{title_of(name)} {cell(row, name)}" for name in dict.fromkeys(measured)]
        name = escape(", ".join(values) or row["key"][:KEY_DIGITS])
        image = base64.b64encode(path.read_bytes()).decode()
        figures.append(
            f"<figure><figcaption><b>{name}</b><br>{escape(', '.join(results))}</figcaption>"
            f'<img alt="predictions of {name}" src="data:image/png;base64,{image}"></figure>'
        )
    more = f"{count} of {len(shown)} members of the front; the others are in the study's folder."
    note = f'<p class="note">{more}</p>' if count < len(shown) else ""
    return f'<section><h2>Predictions</h2>{note}<div class="pictures">{"".join(figures)}</div></section>'


def _documents(beside: StudyFiles) -> str:
    return "".join(
        f"<details><summary>{DOCUMENTS[name]} <code>{name}</code></summary><pre>{escape(text)}</pre></details>"
        for name, text in beside.documents.items()
    )
