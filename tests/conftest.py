"""What all tests share."""

from __future__ import annotations

import gc
import os
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import _lru_cache_wrapper
from pathlib import Path
from typing import Any

import pytest

from tests.support import forked, machines
from tests.support.local_ray import _no_other_ray, _ray_ends, local_ray  # noqa: F401  # fixtures for all modules
from tests.support.mounts import private_mounts

# Before anything imports Ray or MLflow: nothing may call outside, a test never joins somebody's cluster, and nobody
# joins its own (see `rssearch.backend.local_ray`).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Processes of several threads each that share two cores wait for one another, and take many times as long.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
# Tests start hundreds of Python processes: the second one need not compile what the first one has.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RSSEARCH_TRACKING_URI", None)


# What a test takes, roughly. Those that are slow without a Ray are many of a kind, such as a method on a network.
_SECONDS = {frozenset({"slow", "ray"}): 60.0, frozenset({"ray"}): 6.0, frozenset({"slow"}): 2.0, frozenset(): 0.1}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this machine can never run: it is no missing tool, and not a skip."""
    import torch

    absent = set() if torch.cuda.is_available() else {"gpu"}
    absent |= set() if os.environ.get("RSSEARCH_DATA") else {"real"}
    absent |= set() if _may_mount() else {"mounts"}
    absent |= set() if machines.permitted() else {"machines"}
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in absent)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    _long_files_first(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules and tests stay to the end: looking for garbage among them takes a twentieth of the time of a test."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _long_files_first(items: list[pytest.Item]) -> None:
    """The files that take longest begin, so that no process is alone with one of them in the end."""
    seconds: Counter[Path] = Counter()
    for item in items:
        marks = frozenset(name for name in ("slow", "ray") if item.get_closest_marker(name))
        seconds[item.path] += _SECONDS[marks]
    files = list(dict.fromkeys(item.path for item in items))
    place = {path: (-seconds[path], number) for number, path in enumerate(files)}
    items.sort(key=lambda item: place[item.path])


def _may_mount() -> bool:
    """Whether this machine lets its users mount file systems; many containers do not."""
    with tempfile.TemporaryDirectory() as folder:
        command = private_mounts({folder: "64k"}, "true")
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:  # no `unshare`: not a Linux
            return False


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With RSSEARCH_NO_SKIP set, as in CI, a skipped test is a failure: the tool that it needs must be installed."""
    outcome = yield
    result = outcome.get_result()  # type: ignore[attr-defined]
    if result.skipped and not hasattr(result, "wasxfail") and os.environ.get("RSSEARCH_NO_SKIP"):
        result.outcome = "failed"
        result.longrepr = f"{item.nodeid} was skipped, which RSSEARCH_NO_SKIP forbids: {result.longrepr}"


_held = {"bytes": 0}  # by this process, when memory was given back last
_GROWN = 60 * 2**20


@pytest.fixture(autouse=True)
def _memory_given_back() -> Iterator[None]:
    """Thousands of tests run in one process, some with networks of hundreds of megabytes."""
    yield
    import psutil

    from rssearch.trial.worker import release_memory

    process = psutil.Process()
    if process.memory_info().rss > _held["bytes"] + _GROWN:  # collecting garbage after each test would take minutes
        release_memory()
        _held["bytes"] = process.memory_info().rss


@pytest.fixture(autouse=True, scope="module")
def _networks_forgotten(request: pytest.FixtureRequest) -> Iterator[None]:
    """The next module does not need the large networks that functions of this one remember."""
    yield
    for module in (request.module, sys.modules.get("tests.support.networks")):
        for value in vars(module).values() if module else ():
            if isinstance(value, _lru_cache_wrapper):
                value.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests are exact and small: one thread is enough, and leaves the cores to others."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def start_real_writer() -> Iterator[Callable[..., Any]]:
    """Studies in this process have their writers from `tests.support.forked`; what starts them otherwise."""
    from rssearch.tracking import client

    start = client.start_writer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "start_writer", forked.start_writer)
        yield start
