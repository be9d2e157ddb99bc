"""What the commands print: the console and lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from rssearch.study.console import PlainConsole

console = PlainConsole()


def print_list(titles: Sequence[str], rows: Iterable[Sequence[Any]], as_json: bool) -> None:
    """A table, or the same as JSON: a list of objects whose keys are the titles."""
    if as_json:
        console.print_json(json.dumps([dict(zip(titles, row, strict=True)) for row in rows]))
    else:
        print_table(titles, [[str(cell) for cell in row] for row in rows])


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns without a frame; the second one takes what room there is, and is broken between words."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    console.print(table)
