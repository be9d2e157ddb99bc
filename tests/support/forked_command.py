"""`rssearch` in a process that `tests.support.forked` has forked, as its writer and Ray's workers are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rssearch import cli
from rssearch.tracking import client
from tests.support import forked


def main() -> None:
    if Path.cwd() != forked.PROJECT:  # modules of the user are where the command is given, and not those of the project
        sys.path.remove(str(forked.PROJECT))
    writers = forked.Source.inherited(os.environ.pop(forked.WRITERS))
    client.start_writer = lambda *arguments: forked.ForkedWriter(writers, *arguments)  # type: ignore[assignment]
    forked.fork_ray_workers(os.environ[forked.RAY_WORKERS])
    cli.main(sys.argv[1:])
