"""`rssearch search` in a process that `tests.support.forked` has forked, and so is its writer."""

from __future__ import annotations

import sys
from functools import partial

from rssearch import cli
from rssearch.tracking import client
from tests.support.forked import ForkedWriter, Source


def main() -> None:
    client.start_writer = partial(ForkedWriter, Source.fork())  # type: ignore[assignment]  # before Ray has threads
    cli.main(["search", *sys.argv[1:]])
