"""The table of a front for people: on the console, for LaTeX and Markdown, and as text for the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rssearch.escaping import markdown as markdown_text
from rssearch.escaping import printable
from rssearch.front import seeds
from rssearch.front.pareto import Direction
from rssearch.front.trials import Front, Row
from rssearch.metrics import human, title_of

if TYPE_CHECKING:
    from rich.table import Table

REQUEST = ("dataset", "model", "method", "rate", "seed")  # what trials are asked for, unless a space says otherwise
LACKING = "†"  # a mean over fewer seeds than others have
KEY_DIGITS = 8  # of a key on the console: the beginning of a key is enough to name a trial


def table(
    rows: Sequence[Row],
    objectives: Mapping[str, Direction],
    *,
    knees: Iterable[str] = (),
    title: str | None = None,
    dimensions: Sequence[str] | None = None,
    trials: Sequence[Row] | None = None,
) -> Table:
    """The rows of a front for the console, in units for people, made for 80 columns.

    Args:
        rows: the members of the front.
        objectives: metrics and their directions.
        knees: keys of the rows that get a star.
        title: what stands above.
        dimensions: the columns that were asked for; the default is those of the contract.
        trials: the trials among which a dimension must vary to get a column; the default is the rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Made harmless here, because the console, which does so too, has measured its columns before.
    shown, constant = varying(rows if trials is None else trials, dimensions)
    head, *body = ([printable(cell) for cell in line] for line in summary(rows, objectives, knees, shown))
    if not body:
        signs = notes = ["No finished and feasible trial: the front is empty."]
    else:
        signs = legend(rows, objectives)
        notes = [*signs, *([f"The same in all trials: {constant}"] if constant else [])]
    gap = 1 if len(head) < 11 else 0  # beside the space that divides columns
    result = Table(
        title=Text(printable(title), "table.title")
        if title
        else None,  # Text, because a value in brackets is no markup
        caption=Text(printable("\n".join(notes)), "table.caption"),
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, gap, 0, 0),
        min_width=max(map(len, signs)),
    )
    for i, name in enumerate(head):  # what was asked for may be cut short; a number may not
        lines = name.replace("Validation", "Val.").replace("accuracy", "acc.").replace(" ", "\n")
        asked = 0 < i <= len(shown)
        result.add_column(Text(lines), justify="left" if asked else "right", no_wrap=not asked, overflow="ellipsis")
    for *cells, key in body:  # a value stays with its unit
        result.add_row(*(Text(cell.replace(" ", "\u00a0")) for cell in (*cells, key[:KEY_DIGITS])))
    return result


def varying(trials: Sequence[Row], dimensions: Sequence[str] | None = None) -> tuple[list[str], str]:
    """The dimensions that vary among the trials, and those that do not as text: "Model resnet20, Seed 0"."""
    values = {name: {human(name, trial.get(name)): None for trial in trials} for name in dimensions or REQUEST}
    constant = [
        f"{title_of(name)} {next(iter(found))}" for name, found in values.items() if len(found) == 1 if any(found)
    ]
    return [name for name, found in values.items() if len(found) > 1], ", ".join(constant)


def summary(
    rows: Sequence[Row], objectives: Mapping[str, Direction], knees: Iterable[str] = (), asked: Sequence[str] = REQUEST
) -> list[list[str]]:
    """The columns of a front that people compare, as text: a line of titles, then one for each row.

    They are the signs of the `legend` (knees are given by their keys), what was asked for, the objectives, the measures
    of the contract that some row has, and the key.
    """
    present = {name for row in rows for name, value in row.items() if value is not None}
    measured = ("test_accuracy", "test_miou", "macs", "macs_ratio", "latency_ms")
    results = [*objectives, *(name for name in measured if name in present)]
    counted = ["seeds"] if len({row.get("seeds") for row in rows}) > 1 else []
    columns = list(dict.fromkeys([*asked, *results, *counted, "key"]))
    marked = set(knees)
    head = ["", *(title_of(name) for name in columns)]
    signs = {"★": marked, "≈": seeds.ties(rows, objectives), LACKING: seeds.incomplete(rows)}
    stars = ["".join(sign for sign, keys in signs.items() if row.get("key") in keys) for row in rows]
    cells = ([human(n, row.get(n), row.get(n + seeds.STD)) for n in columns] for row in rows)
    return [head, *([star, *line] for star, line in zip(stars, cells, strict=True))]


def legend(rows: Sequence[Row], objectives: Mapping[str, Direction]) -> list[str]:
    """What the signs and numbers of a `summary` mean, in lines."""
    lines = ["★ knee" + (f"; {what} ± standard deviation" if (what := seeds.note(rows)) else "")]
    if seeds.ties(rows, objectives):
        lines.append("≈ not better than the cheaper one above it beyond noise")
    if seeds.incomplete(rows):
        lines.append(f"{LACKING} lacks seeds that others have")
    return lines


def latex(found: Sequence[Front], study: str, dimensions: Sequence[str] | None = None) -> str:
    """The members of the fronts as a LaTeX table with the rules of the package booktabs, for a paper.

    What is special to LaTeX is escaped; other letters are UTF-8, as LaTeX has read them since 2018.
    """
    (head, *body), notes, asked = _members(found, dimensions)
    alignment = "".join("l" if i < asked else "r" for i in range(len(head)))
    lines = [" & ".join(map(_for_latex, line)) + r" \\" for line in (head, *body)]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{Pareto front of the study {_for_latex(study)}. {_for_latex('. '.join(notes))}.}}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def markdown(found: Sequence[Front], study: str, dimensions: Sequence[str] | None = None) -> str:
    """The members of the fronts as a table of GitHub's Markdown, with a heading."""
    (head, *body), notes, asked = _members(found, dimensions)
    rule = ["---" if i < asked else "---:" for i in range(len(head))]
    lines = [[*map(markdown_text, head)], rule, *([*map(markdown_text, line)] for line in body)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"# {markdown_text(study)}\n\n{table}\n\n{markdown_text('. '.join(notes))}.\n"


def _members(found: Sequence[Front], dimensions: Sequence[str] | None) -> tuple[list[list[str]], list[str], int]:
    """Titles and cells of all fronts without the keys, notes to stand below, and how many columns are no numbers."""
    rows = [row for front in found for row in front.members]
    objectives = found[0].objectives
    knees = [front.knee["key"] for front in found if front.knee is not None]
    asked, constant = varying([row for front in found for row in front.trials], dimensions)
    lines = [line[:-1] for line in summary(rows, objectives, knees, asked)]
    notes = legend(rows, objectives) if rows else ["No finished and feasible trial: the front is empty"]
    return lines, [*notes, *([f"The same in all trials: {constant}"] if constant else [])], 1 + len(asked)


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"★": r"$\star$", "≈": r"$\approx$", "†": r"$\dagger$", "±": r"$\pm$"},
}


def _for_latex(text: str) -> str:
    """One line of text as LaTeX prints it. A number stays with its unit."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in printable(" ".join(text.split())))
    return re.sub(r"(?<=\d) (?=\\%|[kMG]\b)", "~", escaped)
