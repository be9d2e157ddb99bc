"""What a worker does around a trial: import its function, share the CPUs, keep its warnings, clean up."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rssearch.errors import OutOfMemory
from rssearch.trial.hooks import resolve, takes_session
from rssearch.trial.session import Session

_log = logging.getLogger(__name__)


def call(function: Callable[..., Any], config: dict[str, Any], session: Session) -> Any:
    """Call a trial's function with as many arguments as it takes."""
    return function(config, session) if takes_session(function) else function(config)


def call_within_memory(function: Callable[..., Any], config: dict[str, Any], session: Session) -> Any:
    """Call a trial's function until its training fits into the memory; each try resumes from its last checkpoint."""
    while True:
        try:
            return call(function, dict(config), session)
        except OutOfMemory as error:  # it holds the frames, and with them the tensors, until this block ends
            session.micro_batches *= 2
            _log.warning("%s; it resumes with %d micro-batches for each batch", error, session.micro_batches)
        release_memory()


@lru_cache(maxsize=8)
def loaded(target: str) -> Callable[..., Any]:
    """The trial's function, imported once in a worker's life.

    What has been imported by then is frozen: it lives as long as the worker, and the collection after each trial would
    walk over its 400,000 objects for a quarter of a second.
    """
    function, _ = resolve(target)
    gc.freeze()
    return function


class Notes(logging.Handler):
    """Collects the warnings of a trial, since a worker's console is not the user's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self.lines.append(record.getMessage())


def use_cpus(cpus: float) -> None:
    """Give torch this trial's share of the threads: a reused worker keeps those of the trial before."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(max(1, int(cpus)))


def release_memory() -> None:
    """Leave nothing behind for the next trial of a reused worker, and give back to the system what is free.

    A trial runs in a thread of its own. glibc gives each a share of the memory of its own, and keeps what is freed: as
    networks differ in size from trial to trial, a worker would grow by gigabytes over some tens of trials.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
