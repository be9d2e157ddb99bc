"""Text from outside, such as the names of classes and files, where it is shown or handed on: it stays text.

A name may hold what a terminal, a spreadsheet or a reader of Markdown takes for an order.
"""

from __future__ import annotations

import re
import unicodedata

# What spreadsheets take for the beginning of a formula, also behind spaces and as full-width letters; see OWASP, "CSV
# Injection". An apostrophe in front of such a cell keeps it a text, and one more in front of those that have one.
_FORMULA = re.compile(r"'*(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SHOWN = {"\n", "\t"}
_HIDDEN = ("Cc", "Cs", "Zl", "Zp")  # controls, halves of a character, separators of lines
_TURNS = {*map(chr, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))}  # of writing direction


def printable(text: str, keep: frozenset[str] | set[str] = _SHOWN) -> str:
    r"""A text for a console: what a terminal would obey is shown as ``\u001b``.

    Args:
        text: any.
        keep: control characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        sign if sign in keep or not (sign in _TURNS or unicodedata.category(sign) in _HIDDEN) else _escaped(sign)
        for sign in text
    )


def _escaped(sign: str) -> str:
    return f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else f"\\U{ord(sign):08x}"


def csv_cell(text: str) -> str:
    """A text as a cell of a CSV file that no spreadsheet takes for a formula; `csv_text` gives the text back."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def csv_text(cell: str) -> str:
    """The text of a cell that `csv_cell` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def markdown(text: str) -> str:
    """One line of text as Markdown shows it, whether or not it is in a table."""
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", printable(" ".join(text.split())))


def markdown_code(text: str) -> str:
    """One line of text as code in a line of Markdown, whatever backticks it has."""
    line = printable(" ".join(text.split()))
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if longest else ""
    return f"{fence}{gap}{line}{gap}{fence}"
