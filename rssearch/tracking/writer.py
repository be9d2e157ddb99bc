"""The process that writes a study into MLflow: ``python -m rssearch.tracking.writer STUDY ARTIFACTS``.

MLflow's client is pure Python and busy for tens of milliseconds a run; in the driver's own process it would hold up Ray
Tune's loop between short trials. The driver (`rssearch.tracking.Tracker`) sends the tracking URI as a JSON text, then
one JSON list a line, the name of a method of `rssearch.tracking.runs.Writer` and its arguments. It hears back when
MLflow does not answer, and at the end.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from rssearch.tracking.runs import Writer
from rssearch.tracking.trouble import answers, trouble

PAUSES = (0.0, 1.0, 4.0)  # seconds before each try; MLflow is away when all have failed
RETRY_SECONDS = 2.0, 30.0  # between two tries while it is away: at first, doubled up to
FLUSH_SECONDS = 2.0  # after so many, MLflow has the epochs of running trials
_SHARE = 0.2  # of the time, at most, for that: it takes longer the more trials run at once
_NOTED = ("epoch", "summary")  # need nothing of MLflow before they are flushed
Command = tuple[str, dict[str, Any]]


def main() -> None:
    """Write what the driver says until it closes or is gone."""
    study, artifacts = sys.argv[1:]
    lines = lines_of(sys.stdin.fileno())
    uri = json.loads(next(line for line in lines if line is not None))
    if hasattr(os, "nice"):
        os.nice(10)  # trials come first; what is left to write waits in the pipe
    writer = Writer(uri, study, Path(artifacts))
    # The driver reads our standard output: what a library prints must not get into it.
    replies, sys.stdout = sys.stdout, sys.stderr
    waiting: list[Command] = []
    retry_at, wait = None, RETRY_SECONDS[0]

    def reply(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    writer.tell = reply
    for name, arguments in commands(lines):
        if name in _NOTED:
            getattr(writer, name)(**arguments)
            continue
        if name == "flush" and not writer.unsent:
            continue
        waiting += [("flush", {}), (name, arguments)] if name == "close" else [(name, arguments)]
        if name != "close" and retry_at is not None and time.monotonic() < retry_at:
            continue
        error = send(writer, waiting, PAUSES if retry_at is None or name == "close" else PAUSES[:1])
        if error is None:
            retry_at, wait = None, RETRY_SECONDS[0]
        else:
            if retry_at is None:
                reply(away=trouble(error, uri))
            retry_at, wait = time.monotonic() + wait, min(2 * wait, RETRY_SECONDS[1])
            writer.forget_epochs()  # all else is in the journal, too, for the next session
            waiting = [command for command in waiting if command[0] != "flush"]
        if name == "close":
            reply(closed={} if error is None else trouble(error, uri))
            return


def commands(lines: Iterable[bytes | None]) -> Iterator[Command]:
    """What the driver says, in between and at its end `flush`.

    Args:
        lines: from `lines_of`.
    """
    due = time.monotonic() + FLUSH_SECONDS
    for line in chain(lines, [None]):
        command = None if line is None else tuple(json.loads(line))
        begun = time.monotonic()
        if begun >= due or command is None:
            yield "flush", {}
            now = time.monotonic()
            due = now + max(FLUSH_SECONDS, (now - begun) / _SHARE)
        if command is not None:
            yield command


def lines_of(stream: int) -> Iterator[bytes | None]:
    """The lines of a file descriptor, and None where there is none for `FLUSH_SECONDS`."""
    parts: list[bytes] = []  # of the last line
    while True:
        if not select.select([stream], [], [], FLUSH_SECONDS)[0]:
            yield None
            continue
        first, *others = os.read(stream, 1 << 16).split(b"\n")
        if not first and not others:
            return
        parts.append(first)
        for other in others:
            yield b"".join(parts)
            parts = [other]


def send(writer: Writer, waiting: list[Command], pauses: Iterable[float]) -> Exception | None:
    """Carry out the commands that wait; those that cannot be stay in the list. Returns an error that stopped one.

    Args:
        writer: what carries them out.
        waiting: names and arguments of its methods.
        pauses: seconds to wait before each try.
    """
    error: Exception | None = None
    for pause in pauses:
        time.sleep(pause)
        error = None
        for command in list(waiting):
            writer.tell()
            try:
                getattr(writer, command[0])(**command[1])
            except Exception as raised:  # noqa: BLE001  # whatever a store or a server raises must not end the study
                error = raised
                writer.disconnect()
                if not answers(raised):
                    break
            else:
                waiting.remove(command)
        if error is None:
            break
    return error


if __name__ == "__main__":
    main()
