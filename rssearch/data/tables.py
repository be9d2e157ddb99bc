"""Small tables that people write: CSV files and lists of names, read line by line and never guessed at."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rssearch.errors import InputError, cut, shown

__all__ = ["Row", "Table", "read_lines", "read_table", "relative"]

SEPARATORS = (",", ";", "\t")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        place: file and line, for messages.
        cells: column -> value without the spaces around it; of the columns that are known alone.
    """

    place: str
    cells: dict[str, str]

    def get(self, column: str) -> str:
        """The value of a column. Raises InputError where it is empty."""
        if not (value := self.cells[column]):
            raise InputError(f"{self.place}: {column} is empty")
        return value


@dataclass(frozen=True)
class Table:
    """A CSV file with named columns.

    Attributes:
        place: of the file, for messages.
        columns: those that are known and there.
        rows: its lines, but the first and empty ones.
        unread: columns that are not known.
    """

    place: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    unread: tuple[str, ...]


def read_table(place: str, content: bytes, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
    """Read a CSV file, UTF-8 with or without a byte order mark, whose first line names its columns.

    Columns are divided by commas, semicolons or tabs, as the first line is.

    Args:
        place: the file, for messages.
        content: its bytes.
        required: columns that must be there, in lower case.
        optional: columns that may be there, likewise.

    Raises:
        InputError: the file is no such table; it names the line.
    """
    text = _text(place, content)
    known = (*required, *optional)
    first = text.partition("\n")[0].rstrip("\r")
    separator = max(SEPARATORS, key=first.count)
    lines = _parsed(place, text, separator)
    head = [cell.strip().casefold() for cell in next(lines, (1, []))[1]]
    what = f"the first line must name the columns {', '.join(required)}"
    what += f" (and may name {', '.join(optional)})" if optional else ""
    if lost := [name for name in required if name not in head]:
        raise InputError(f"{place}, line 1: has no column {lost[0]!r}; {what}; it is {shown(first)}")
    if twice := [name for name in head if name and head.count(name) > 1]:
        raise InputError(f"{place}, line 1: the column {shown(twice[0])} is there twice")
    unread = tuple(name for name in head if name not in known)
    for name in unread:
        if near := difflib.get_close_matches(name, [other for other in known if other not in head], n=1, cutoff=0.7):
            raise InputError(f"{place}, line 1: unknown column {shown(name)}. Did you mean {near[0]!r}?")
    rows = []
    for line, cells in lines:
        if len(cells) != len(head):
            raise InputError(f"{place}, line {line}: has {len(cells)} values, but the first line has {len(head)}")
        values = {name: cell.strip() for name, cell in zip(head, cells, strict=True) if name in known}
        rows.append(Row(f"{place}, line {line}", values))
    if not rows:
        raise InputError(f"{place}: has no line below the first one")
    return Table(place, tuple(name for name in known if name in head), tuple(rows), unread)


def read_lines(place: str, content: bytes) -> list[tuple[str, str]]:
    """The lines of a text in UTF-8 that are not empty, without the spaces around them, each after file and line.

    Raises:
        InputError: it is no such text.
    """
    lines = enumerate(_text(place, content).splitlines(), 1)
    return [(f"{place}, line {number}", line.strip()) for number, line in lines if line.strip()]


def relative(place: str, path: str) -> str:
    """A path of a table in its shortest form.

    Raises:
        InputError: it is absolute, leads out of the folder, or has backslashes.
    """
    if "\\" in path:
        raise InputError(f"{place}: {shown(path)}: folders must be divided by /, not by \\")
    plain = posixpath.normpath(path)
    if plain.startswith("/") or plain.split("/")[0] == ".." or plain[1:3] == ":/":
        raise InputError(f"{place}: {shown(path)} leads out of the folder; paths are relative to it")
    return plain


def _text(place: str, content: bytes) -> str:
    if content.startswith(_UTF16):
        raise InputError(f"{place}: is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{place}, line {line}: is no UTF-8 ({cut(error.reason)}); save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{place}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: has a zero byte, as no text")
    return text


def _parsed(place: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, by their numbers."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{place}, line {line}: {cut(str(error))}") from None
