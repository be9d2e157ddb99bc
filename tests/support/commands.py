"""The command line in this process, for tests."""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest

from rssearch import cli

GOOD: dict[str, Any] = {
    "study": "s",
    "trial": "trials.prune:run",
    "space": {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["l1"], "rate": [0.5]},
    "settings": {"input_size": 32, "train": {"epochs": 1}, "finetune": {"epochs": 1}},
}
GONE = object()  # in place of a value: the key is left out


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


def run(*arguments: str) -> Result:
    """Call the command line with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return Result(ended.value.code or 0, out.getvalue(), err.getvalue())


def refused(result: Result, *fragments: str) -> None:
    """The command told one mistake in one message, and did nothing else."""
    assert result.status == 2, result
    assert "Traceback" not in result.out + result.err
    assert [n for n, line in enumerate(result.err.splitlines()) if line.startswith("error: ")] == [0]
    for fragment in fragments:
        assert fragment in result.err


def study_with(changes: dict[str, Any]) -> dict[str, Any]:
    """The good study with some values replaced; a key is a path, as ``search/sampler``."""
    document = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *parents, last = path.split("/")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return document
