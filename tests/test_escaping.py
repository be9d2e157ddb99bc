"""Names from outside stay text in the console, in spreadsheets and in Markdown."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from rssearch.errors import cut, shown
from rssearch.escaping import csv_cell, csv_text, markdown, markdown_code, printable
from rssearch.report import files
from rssearch.report.tables import table
from rssearch.study.console import PlainConsole, plain_logs, write
from tests.support.commands import refused, run

NASTY = "[red]x[/red] :warning: \x1b[2J\x9b31m\u202eb\ud800"
TAME = r"[red]x[/red] :warning: \u001b[2J\u009b31m\u202eb\ud800"


def test_control_characters_are_shown() -> None:
    assert printable(NASTY) == TAME
    assert printable("a\n\tb é 日本 👩\u200d🚀 \u0646\u200c\u0647") == "a\n\tb é 日本 👩\u200d🚀 \u0646\u200c\u0647"
    assert printable("\x07\x7f\r") == r"\u0007\u007f\u000d"
    assert printable("a\n\tb", keep=set()) == r"a\u000a\u0009b"


def test_the_console_shows_names_as_they_are() -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, width=80)
    console.print(NASTY)
    assert out.getvalue() == TAME + "\n"
    grid = Table(title=NASTY)
    grid.add_column(NASTY)
    grid.add_row(NASTY)
    console.print(grid)
    assert not {"\x1b", "\x9b", "\u202e", "\ud800"} & {*out.getvalue()}


def test_the_table_of_a_front_shows_whole_names() -> None:
    rows = [{"key": "k" * 8, "status": "finished", "method": name, "val_accuracy": 0.5} for name in (NASTY, "l1")]
    out = io.StringIO()
    PlainConsole(file=out, width=200).print(table(rows, {"val_accuracy": "max"}, title=NASTY, dimensions=["method"]))
    assert out.getvalue().count(TAME.replace(" ", "\u00a0")) == 1
    assert TAME in out.getvalue()


def test_a_file_for_a_pipe_is_left_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, expected in ((False, "\x1b,=1"), (True, r"\u001b,=1")):
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda t=terminal: t)
        monkeypatch.setattr("sys.stdout", out)
        write("\x1b,=1")
        assert out.getvalue() == expected


def test_logs_without_a_handler_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    plain_logs()
    assert logging.lastResort is not None
    logging.lastResort.emit(logging.LogRecord("x", logging.WARNING, "", 1, "%s", (NASTY,), None))
    assert out.getvalue() == TAME + "\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-2+3", "'-2+3"),
        ("@x", "'@x"),
        (" =1", "' =1"),
        ("\t=1", "'\t=1"),
        ("\rx", "'\rx"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("''=1", "'''=1"),
        ("-5", "-5"),
        ("+1.5e-3", "+1.5e-3"),
        ("-", "'-"),
        ("'quoted", "'quoted"),
        ("l1", "l1"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_formulas_stay_text(text: str, cell: str) -> None:
    assert csv_cell(text) == cell
    assert csv_text(cell) == text


def test_a_table_of_trials_is_read_back(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "key": "=k",
        "status": "finished",
        "=cmd|' /C calc'!A0": "@x",
        "loss": -0.5,
        "list": [-1, "=2"],
    }
    files.write_trials_csv(tmp_path / "trials.csv", [row])
    with (tmp_path / "trials.csv").open(newline="") as file:
        (found,) = csv.DictReader(file)
    assert not [cell for cell in (*found, *found.values()) if cell[:1] in "=+@"]
    back = {csv_text(name): csv_text(value) for name, value in found.items()}
    assert back == {**row, "loss": "-0.5", "list": '[-1, "=2"]'}


def test_markdown_shows_what_was_written() -> None:
    assert markdown("<b>a</b> [x](y) `c` | d\n# e") == r"\<b\>a\</b\> \[x\](y) \`c\` \| d \# e"
    assert markdown_code("folder:x") == "`folder:x`"
    assert markdown_code("a`b``c") == "``` a`b``c ```"


def test_values_in_messages_are_short() -> None:
    assert shown("abc") == "'abc'"
    assert cut("abc") == "abc"
    values: list[Any] = ["x" * 10**6, list(range(10**6)), {str(i): i for i in range(1000)}, 10**5000, NASTY * 100]
    nested: list[Any] = []
    nested.append(nested)
    assert all(len(shown(value)) <= 100 for value in [*values, nested])


@pytest.mark.parametrize(
    "arguments",
    [
        [NASTY],
        ["plan", NASTY],
        ["plan", "quickstart", NASTY],
        ["front", NASTY],
        ["ui", "--port", NASTY * 50],
        [f"--{NASTY}"],
    ],
)
def test_arguments_are_repeated_harmlessly(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.status == 2
    assert not {"\x1b", "\x9b", "\u202e"} & {*result.err, *result.out}
    assert len(result.err) < 2000
    assert list(tmp_path.iterdir()) == []


def test_a_path_in_a_message_is_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run("plan", "[red]x[/red].yaml"), "[red]x[/red].yaml: there is no such file")
