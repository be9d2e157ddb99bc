"""The table of a front for people: on the console, for LaTeX and Markdown, and as text for the page."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from rssearch.escaping import markdown as markdown_text
from rssearch.escaping import printable
from rssearch.front import gains, seeds
from rssearch.front.pareto import Direction
from rssearch.front.trials import Front, Row, by_dataset
from rssearch.metrics import DIFFERENCE, human, is_quality, title_of
from rssearch.report import classes, spending
from rssearch.report.cells import cell, latencies, lost_and_gained, notes, speedup_of

if TYPE_CHECKING:
    from rich.table import Table

REQUEST = ("dataset", "model", "method", "rate", "seed")  # what trials are asked for, unless a space says otherwise
LACKING = "†"  # a mean over fewer seeds than others have
LOST = "▼"  # a network that gives up a class
BASELINE = "baseline"
IN_FULL = ("params", "params_ratio", "bytes")  # of the measures: where there is more room than on a console
_BRIEF = {"Validation": "Val.", "accuracy": "acc.", "Difference (points)": "Diff.", "-": "-\n", " ": "\n"}  # in heads
NARROW = 80  # columns: a wider table leaves out what its other columns say as well
_MADE_FOR = 100  # columns, where the console is not known
_LEGIBLE = 8  # characters of what was asked for
_TESTED = [f"test_{name}{DIFFERENCE}" for name in ("accuracy", "miou", "map")]
KEY_DIGITS = 8  # of a key on the console: the beginning of a key is enough to name a trial


def table(
    rows: Sequence[Row],
    objectives: Mapping[str, Direction],
    *,
    knees: Iterable[str] = (),
    title: str | None = None,
    dimensions: Sequence[str] | None = None,
    trials: Sequence[Row] | None = None,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> Table:
    """The rows of a front for the console, in units for people, with those of their baselines; made for 100 columns.

    Args:
        rows: the members of the front.
        objectives: metrics and their directions.
        knees: keys of the rows that get a star.
        title: what stands above.
        dimensions: the columns that were asked for; the default is those of the contract.
        trials: the trials among which a dimension must vary to get a column; the default is the rows.
        notes: lines that stand below.
        width: columns of the console. Where what was asked for would be cut down to nothing, speed-ups are left out,
            and what the test lost, which follow from their rows and the baseline's.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    knees = {*knees}
    # Made harmless here, because the console, which does so too, has measured its columns before.
    shown, constant = varying(rows if trials is None else trials, dimensions)
    lines, left_out = summary(rows, objectives, knees, shown, without=IN_FULL), [*IN_FULL]
    for more in (["macs_ratio"], _speedups(rows), _TESTED):
        if _width(lines) <= NARROW or (more != ["macs_ratio"] and _least(lines, len(shown)) <= (width or _MADE_FOR)):
            break
        left_out += more
        lines = summary(rows, objectives, knees, shown, without=left_out)
    head, *body = ([printable(cell) for cell in line] for line in lines)
    if not body:
        signs = below = ["No finished and feasible trial: the front is empty."]
    else:
        signs = legend(rows, objectives, IN_FULL)
        gained = [_gained(row) for row in rows if row["key"] in knees and lost_and_gained(row)]
        lost = classes.sentences(rows, names_of(rows, shown))
        below = [*signs, *gained, *lost, *notes, *([f"The same in all trials: {constant}"] if constant else [])]
    gap = int(_width(lines) + len(head) <= NARROW)  # beside the space that divides columns
    result = Table(
        title=Text(printable(title), "table.title")
        if title
        else None,  # Text, because a value in brackets is no markup
        caption=Text(printable("\n".join(below)), "table.caption"),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, gap, 0, 0),
        min_width=max(map(len, signs)),
    )
    for i, name in enumerate(head):  # what was asked for may be cut short; a number may not
        asked = 0 < i <= len(shown)
        result.add_column(
            Text(_brief(name)), justify="left" if asked else "right", no_wrap=not asked, overflow="ellipsis"
        )
    for *cells, key in body:  # a value stays with its unit
        result.add_row(*(Text(cell.replace(" ", "\u00a0")) for cell in (*cells, key[:KEY_DIGITS])))
    return result


def _brief(title: str) -> str:
    """A column's title over several lines."""
    for long, brief in _BRIEF.items():
        title = title.replace(long, brief)
    return title


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Columns of the console that a summary takes at least."""
    head, *body = lines
    titles = [_brief(title).splitlines() or [""] for title in head]
    cells = [
        [*title, *(line[i][: KEY_DIGITS if i + 1 == len(head) else None] for line in body)]
        for i, title in enumerate(titles)
    ]
    return sum(1 + max(map(len, column)) for column in cells)


def _least(lines: Sequence[Sequence[str]], asked: int) -> int:
    """The same, with what was asked for cut short."""
    head, *body = lines
    cut = [[cell[:_LEGIBLE] if 0 < i <= asked else cell for i, cell in enumerate(line)] for line in body]
    brief = ["" if 0 < i <= asked else title for i, title in enumerate(head)]
    return _width([brief, *cut])


def _speedups(rows: Sequence[Row]) -> list[str]:
    return [speedup_of(name) for name in latencies(rows)]


def varying(trials: Sequence[Row], dimensions: Sequence[str] | None = None) -> tuple[list[str], str]:
    """The dimensions that vary among the trials, and those that do not as text: "Model resnet20, Seed 0"."""
    values = {name: {human(name, trial.get(name)): None for trial in trials} for name in dimensions or REQUEST}
    constant = [
        f"{title_of(name)} {next(iter(found))}" for name, found in values.items() if len(found) == 1 if any(found)
    ]
    return [name for name, found in values.items() if len(found) > 1], ", ".join(constant)


def summary(
    rows: Sequence[Row],
    objectives: Mapping[str, Direction],
    knees: Iterable[str] = (),
    asked: Sequence[str] = REQUEST,
    without: Collection[str] = (),
) -> list[list[str]]:
    """The columns of a front that people compare, as text: a line of titles, then those of baselines and members.

    They are the signs of the `legend` (knees are given by their keys), what was asked for, the objectives, the measures
    of the contract that some row has, and the key, which baselines have not. Those of a dataset stand before its
    members. Beside a quality stands the difference to the baseline, beside a latency the speed-up.

    Args:
        rows: the members of the fronts.
        objectives: metrics and their directions.
        knees: keys of the rows that get a star.
        asked: the columns of what was asked for.
        without: measures that are left out; if any are, there is the first latency alone.
    """
    columns = [*dict.fromkeys([*asked, *_measures(rows, objectives, without)])]
    if len({row.get("seeds") for row in rows}) > 1:
        columns.append("seeds")
    marked = set(knees)
    signs = {"★": marked, "≈": seeds.ties(rows, objectives), LACKING: seeds.incomplete(rows)}
    signs[LOST] = classes.given_up(rows)
    head, lines = ["", *map(_title, columns), title_of("key")], []
    for members in by_dataset(rows).values():
        for before in gains.baselines(members):
            cells = ["" if name.endswith(DIFFERENCE) else cell(before, name) for name in columns]
            line = ["", *cells, ""]
            named = [name for name in ("method", *asked) if name in asked and not before.get(name)]
            line[1 + columns.index(named[0]) if named else 0] = " of ".join([BASELINE, *before.get("methods", [])][:2])
            lines.append(line)
        for row in members:
            star = "".join(sign for sign, keys in signs.items() if row.get("key") in keys)
            lines.append([star, *(cell(row, name) for name in columns), str(row.get("key", ""))])
    return [head, *lines]


def _measures(rows: Sequence[Row], objectives: Mapping[str, Direction], without: Collection[str]) -> list[str]:
    """The objectives and what was measured, each beside what it lost or gained."""
    present = {name for row in rows for name, value in row.items() if value is not None}
    compared = any(name.startswith(gains.BEFORE) for name in present)
    measured = ["test_accuracy", "test_miou", "test_map", "macs", "macs_ratio", *(IN_FULL if compared else ())]
    measured = [name for name in measured if name not in without]
    timed = latencies(rows)[: 1 if without else None]
    results = [*objectives, *(name for name in (*measured, *timed) if name in present)]
    results.sort(key=lambda name: not is_quality(name))  # qualities first, each in its place
    beside = {name: speedup_of(name) if name in timed else name + DIFFERENCE for name in results}
    pairs = [
        (name, beside[name]) if beside[name] in present and beside[name] not in without else (name,)
        for name in dict.fromkeys(results)
    ]
    return [name for pair in pairs for name in pair]


def _title(name: str) -> str:
    """A column's title; that of a difference stands beside its metric."""
    return "Difference (points)" if name.endswith(DIFFERENCE) else title_of(name)


def legend(rows: Sequence[Row], objectives: Mapping[str, Direction], without: Collection[str] = ()) -> list[str]:
    """What the signs and numbers of a `summary` without some measures mean, in lines."""
    lines = ["★ knee" + (f"; {what} ± standard deviation" if (what := seeds.note(rows)) else "")]
    if seeds.ties(rows, objectives):
        lines.append("≈ not better than the cheaper one above it beyond noise")
    if seeds.incomplete(rows):
        lines.append(f"{LACKING} lacks seeds that others have")
    if classes.given_up(rows):
        lines.append(f"{LOST} {classes.RULE}")
    return [*lines, *notes(rows, without)]


def names_of(rows: Sequence[Row], asked: Sequence[str]) -> dict[str, str]:
    """What rows are called in a sentence, by key: what was asked for of them, or the beginning of their key."""
    found = {}
    for row in rows:
        values = {name: row[name] for name in asked if row.get(name) is not None}
        words = [value if isinstance(value, str) else _with_title(name, value) for name, value in values.items()]
        found[str(row["key"])] = ", ".join(words) or str(row["key"])[:KEY_DIGITS]
    return found


def _with_title(name: str, value: object) -> str:
    title = title_of(name)
    return f"{title if title[1:2].isupper() else title[:1].lower() + title[1:]} {human(name, value)}"


def _gained(knee: Row) -> str:
    return f"★ against its baseline: {lost_and_gained(knee)}"


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


def cut_table(text: str, limit: int) -> str:
    """A table of `markdown` in at most so many letters: the last rows of a longer one are left out, and it says so."""
    if len(text) <= limit:
        return text
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("| ")][2:]
    begin = lines.index(rows[0]) if rows else len(lines)
    head, tail = lines[:begin], lines[begin + len(rows) :]
    left = limit - len("\n".join([*head, *tail])) - 100  # for the line that says so
    kept = [row for row, end in zip(rows, accumulate(len(row) + 1 for row in rows), strict=True) if end <= left]
    more = f"{len(rows) - len(kept)} more rows: front.html has all."
    return "\n".join([*head, *kept, "", more, *tail])[:limit]


def _members(found: Sequence[Front], dimensions: Sequence[str] | None) -> tuple[list[list[str]], list[str], int]:
    """Titles and cells of all fronts without the keys, notes to stand below, and how many columns are no numbers."""
    rows = [row for front in found for row in front.members]
    objectives = found[0].objectives
    knees = [front.knee["key"] for front in found if front.knee is not None]
    asked, constant = varying([row for front in found for row in front.trials], dimensions)
    lines = [line[:-1] for line in summary(rows, objectives, knees, asked)]
    below = legend(rows, objectives) if rows else ["No finished and feasible trial: the front is empty"]
    below += [_gained(row) for row in rows if row["key"] in knees and lost_and_gained(row)]
    below += [*classes.sentences(rows, names_of(rows, asked)), *spending.notes(found)]
    return lines, [*below, *([f"The same in all trials: {constant}"] if constant else [])], 1 + len(asked)


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{
        "★": r"$\star$",
        "≈": r"$\approx$",
        "†": r"$\dagger$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": "$-$",
        "‡": r"$\ddagger$",
        "▼": r"$\bigtriangledown$",
    },
}


def _for_latex(text: str) -> str:
    """One line of text as LaTeX prints it. A number stays with its unit."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in printable(" ".join(text.split())))
    return re.sub(r"(?<=\d) (?=\\%|[kMG]\b)", "~", escaped)
