"""The console: what is printed is text, whatever names of classes, studies and files are in it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from rssearch.escaping import printable


class PlainConsole(Console):
    """A console of rich that finds neither markup nor emoji in texts, and shows control characters instead of obeying.

    Args:
        **more: as of `rich.console.Console`.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of something, with harmless texts."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def write(text: str) -> None:
    """Write a text that is a file to the standard output: as it is, or harmless where that is a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def plain_logs() -> None:
    """Let warnings of a program that has set up no logging be harmless, too."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())
