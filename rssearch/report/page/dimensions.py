"""The page's data on the dimensions of the space: importances and slice plots, or why there are none.

They are those of single trials, also where the page shows means of seeds: the seed is a dimension as others are, and
its importance is that of chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rssearch.metrics import axis, human, number, title_of
from rssearch.report.tables import REQUEST

if TYPE_CHECKING:
    from rssearch.front.trials import Front, Row

ENOUGH = 8  # finished trials: the forest of fewer says nothing
MOST = 1000  # trials that are looked at, evenly spaced in the order of the record
TEXTS = ("seed",)  # numbers without an order


def explained(front: Front, dimensions: Sequence[str] | None) -> dict[str, Any]:
    """What the page draws of the trials of a dataset.

    Returns:
        ``notes``, sentences; ``titles`` of the dimensions whose importances are known; ``objectives``: for each a
        ``title``, ``importances`` (shares in the order of the titles, or None) and ``slices`` (Plotly figures).
    """
    rows = [row for row in front.trials if row["status"] == "finished" and _has_all(row, front.objectives)]
    found: dict[str, Any] = {"dataset": front.dataset, "notes": [], "titles": [], "objectives": []}
    asked = [name for name in dimensions or REQUEST if any(row.get(name) is not None for row in rows)]
    varied = [name for name in asked if len({human(name, row.get(name)) for row in rows}) > 1]
    if len(rows) < ENOUGH:
        found["notes"] = [f"Left out: {len(rows)} finished trials, and at least {ENOUGH} are needed."]
        return found
    if not varied:
        found["notes"] = ["Left out: no dimension has two values among the finished trials."]
        return found
    chosen = rows if len(rows) <= MOST else [rows[i * len(rows) // MOST] for i in range(MOST)]
    notes = _notes(len(rows), len(chosen), [name for name in asked if name not in varied])
    drawn = _drawn(chosen, varied, front.objectives)
    return found | drawn | {"notes": [*notes, *drawn["notes"]]}


def _has_all(row: Row, objectives: Mapping[str, Any]) -> bool:
    return all(number(row.get(name)) is not None for name in objectives)


def _notes(trials: int, looked_at: int, constant: Sequence[str]) -> list[str]:
    among = f"{trials} finished trials" if trials == looked_at else f"{looked_at} of {trials} finished trials"
    notes = [
        f"Of {among}. Importance: share of the objective's variance that a dimension explains "
        "(functional ANOVA, Hutter et al. 2014, by Optuna)."
    ]
    if constant:
        notes.append(f"One value alone: {', '.join(map(title_of, constant))}.")
    return notes


def _drawn(rows: Sequence[Row], varied: Sequence[str], objectives: Mapping[str, Any]) -> dict[str, Any]:
    from rssearch.sampling import importance  # Optuna takes half a second

    titles = {name: escape(title_of(name), quote=False) for name in varied}
    points = [{titles[name]: _value(name, row[name]) for name in varied if row.get(name) is not None} for row in rows]
    trials = importance.Trials(points, [[float(row[name]) for name in objectives] for row in rows])
    everywhere = [title for title in titles.values() if all(title in point for point in points)]
    notes = [f"Not asked of all trials, so without importance: {t}." for t in titles.values() if t not in everywhere]
    drawn = []
    for place, name in enumerate(objectives):
        values = [float(row[name]) for row in rows]
        label, factor = axis(name, values)
        shares: dict[str, float] = {}
        if len(set(values)) == 1:
            notes.append(f"{title_of(name)} is the same in all of them.")
        elif everywhere:
            shares = importance.importances(trials, everywhere, place)
        drawn.append(
            {
                "title": title_of(name),
                "importances": [shares[title] for title in everywhere] if shares else None,
                "slices": [importance.slice_plot(trials, t, place, escape(label), factor) for t in titles.values()],
            }
        )
    return {"titles": everywhere, "objectives": drawn, "notes": notes}


def _value(name: str, value: Any) -> float | str:
    """Numbers stay; texts, lists and truth values become the text that people read."""
    found = number(value)
    return escape(human(name, value), quote=False) if found is None or name in TEXTS else found
