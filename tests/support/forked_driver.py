"""`rssearch search` in a process that `tests.support.forked` has forked; its writer is started as ever."""

from __future__ import annotations

import sys

from rssearch import cli


def main() -> None:
    cli.main(["search", *sys.argv[1:]])
