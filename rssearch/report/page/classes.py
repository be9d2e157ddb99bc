"""The page's section on single classes: what each network of the front recognises of them, and what it gives up."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from rssearch.front import gains
from rssearch.metrics import DIFFERENCE, human
from rssearch.report.classes import RULE, Classes, all_of
from rssearch.report.members import FILES
from rssearch.report.tables import BASELINE, names_of, varying
from rssearch.storage.location import Location
from rssearch.trial.interface import MEMBERS

if TYPE_CHECKING:
    from rssearch.front.trials import Front, Row

__all__ = ["sections"]

PICTURES = 12  # confusion matrices that the page shows, at most
KINDS = {"recall": "Recall", "iou": "IoU"}
_OF_SPLIT = {"test": "on the test split", "val": "on the validation split"}


def sections(
    found: Sequence[Front], dimensions: Sequence[str] | None, confusions: Mapping[str, Location], links: str | None
) -> str:
    """Markup: a section for each dataset whose members have counted their classes.

    Args:
        found: the fronts.
        dimensions: the columns that were asked for.
        confusions: pictures of confusion matrices, by key.
        links: what leads from the page to the study's folder; None for no links.
    """
    asked, _ = varying([row for front in found for row in front.trials], dimensions)
    several = sum(bool(all_of(front.members)) for front in found) > 1
    return "".join(_section(front, asked, confusions, links, several) for front in found)


def _section(
    front: Front, asked: Sequence[str], confusions: Mapping[str, Location], links: str | None, several: bool
) -> str:
    known = all_of(front.members)
    if not known:
        return ""
    names = names_of(front.members, asked)
    knee = None if front.knee is None else str(front.knee["key"])
    names = {key: f"★ {name}" if key == knee else name for key, name in names.items()}
    rows = [row for row in front.members if str(row["key"]) in known]
    title = f"Classes of {front.dataset}" if several else "Classes"
    lost = [_sentence(names[key], classes) for key, classes in known.items() if classes.given_up]
    marks = "".join(f'<p class="lost">▼ {escape(text)}</p>' for text in lost)
    marks = marks or '<p class="note">No network of the front gives up a class.</p>'
    first, second = ("iou", "recall") if any("val_miou" in row for row in rows) else ("recall", "iou")
    split = next(iter(known.values())).split
    tables = "".join(
        f"<details{' open' if kind == first else ''}><summary>{KINDS[kind]} of each class {_OF_SPLIT[split]}</summary>"
        f'<div class="wide">{_table(rows, known, names, kind)}</div></details>'
        for kind in (first, second)
    )
    note = (
        "In per cent; beside it the difference to the baseline in points; n/a: the split has no sample of the class. "
        f"▼ and red: {RULE} (red letters: by the other of the two)."
    )
    listed = [*_baselines(rows), *((str(row["key"]), row, names[str(row["key"])]) for row in rows)]
    pictures = _pictures(listed, confusions, links)
    return f'<section><h2>{escape(title)}</h2>{marks}{tables}<p class="note">{escape(note)}</p>{pictures}</section>'


def _sentence(name: str, classes: Classes) -> str:
    lost = classes.listed
    return f"{name} gives up {len(lost)} of {len(classes.counted.classes)} classes: {', '.join(lost)}"


def _baselines(rows: Sequence[Row]) -> Iterator[tuple[str, Row, str]]:
    """Each baseline of the members once: its key among the members' files, a row that knows it, and its name."""
    models = {row.get("model") for row in rows}
    seen: set[str] = set()
    for row in rows:
        identity = str(row.get(gains.IDENTITY) or row.get("model"))
        if identity not in seen:
            seen.add(identity)
            of = f" {row.get('model')}" if len(models) > 1 else ""
            yield str(row.get(f"{gains.BEFORE}key")), row, f"{BASELINE}{of}"


def _table(rows: Sequence[Row], known: Mapping[str, Classes], names: Mapping[str, str], kind: str) -> str:
    """Classes down, baselines and members across."""
    own = [known[str(row["key"])] for row in rows]
    before = [(name, known[str(row["key"])].before) for _, row, name in _baselines(rows)]
    whole = [(name, counted) for name, counted in before if counted is not None]
    counted = own[0].counted
    heads = ["Class", "Samples", *(name for name, _ in whole), *(names[str(row["key"])] for row in rows)]
    columns = [
        *(_cells(Classes(own[0].split, one, None), kind) for _, one in whole),
        *(_cells(one, kind) for one in own),
    ]
    lines = [
        f'<tr><td>{escape(label)}</td><td class="number">{count:,}</td>{"".join(cells)}</tr>'
        for label, count, *cells in zip(counted.classes, counted.true.tolist(), *columns, strict=True)
    ]
    head = "".join(f"<th{' class=number' if place else ''}>{escape(name)}</th>" for place, name in enumerate(heads))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _cells(classes: Classes, kind: str) -> list[str]:
    """The cells of a network, by class; red letters where another share than the shown one has given the class up."""
    cells, given_up = [], {*classes.given_up}
    rows = zip(
        classes.counted.classes,
        classes.counted.rates(kind).tolist(),
        classes.differences(kind).tolist(),
        classes.lost(kind),
        strict=True,
    )
    for name, value, change, lost in rows:
        if math.isnan(value):
            cells.append('<td class="number">n/a</td>')
            continue
        small = "" if classes.before is None else f" <small>{_points(change)}</small>"
        mark = " lost" if lost else " also" if name in given_up else ""
        cells.append(f'<td class="share{mark}" style="--share:{value:.3f}">{100 * value:.1f}{small}</td>')
    return cells


def _points(change: float) -> str:
    return "" if math.isnan(change) else human(f"test_accuracy{DIFFERENCE}", change)


def _pictures(listed: Sequence[tuple[str, Row, str]], confusions: Mapping[str, Location], links: str | None) -> str:
    """The confusion matrices of networks, each to be opened, with links to their files."""
    found = []
    for key, row, name in listed:
        keys = [key] if key in confusions else [str(one) for one in row.get("keys", [key]) if str(one) in confusions]
        found += [(one, name if len(keys) == 1 else f"{name}, {one[:8]}") for one in keys]
    parts = []
    for count, (key, name) in enumerate(found):
        image = base64.b64encode(confusions[key].read_bytes()).decode() if count < PICTURES else ""
        shown = f'<img alt="confusion matrix of {escape(name)}" src="data:image/png;base64,{image}">' if image else ""
        files = [(file, f"{links}{MEMBERS}/{quote(key)}/{file}") for file in FILES] if links is not None else []
        anchors = " ".join(f'<a href="{escape(target)}">{file}</a>' for file, target in files)
        parts.append(
            f"<details><summary>Confusion matrix of {escape(name)}</summary>"
            f'<p class="note">{anchors or f"<code>{MEMBERS}/{escape(key)}/</code>"}</p>{shown}</details>'
        )
    return "".join(parts)
