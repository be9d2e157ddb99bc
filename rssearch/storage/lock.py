"""A lock on a file, for processes of all machines that share the storage.

In a folder it is a lock of the operating system, which ends with its holder.

An object store has none. There the lock is an object that only one process can create (a conditional put), and that its
holder rewrites every `BEAT` seconds with a higher count. A holder that has been killed on this machine is noticed at
once by its process number; one on another machine by the count that did not change for `DEAD` seconds of our own clock,
so clocks need not agree. Then its object is removed, and all who wait compete to create the next.

The limits: a holder that is cut off from the store for `DEAD` seconds loses the lock, and is told; two processes that
notice a dead holder within the same two requests may both continue. Nothing may depend on a lock for its correctness:
artifacts are named by what determines them, and drivers write their records into objects of their own.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from rssearch.errors import InputError
from rssearch.storage.location import Location, Remote

BEAT = 10.0
DEAD = 60.0
_log = logging.getLogger(__name__)


class Held(RuntimeError):  # noqa: N818 - it is a state
    """Somebody else has the lock."""


@contextmanager
def lock(path: Location, *, wait: bool = True, lost: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock at a path, whose folder is made.

    Args:
        path: the file or object.
        wait: until it is free; else only until it is certain that its holder lives.
        lost: called from a thread if the lock is taken from us, see above.

    Raises:
        Held: somebody else has it, and we do not wait.
        InputError: an object store cannot be used.
    """
    with _locked_folder(path, wait) if isinstance(path, Path) else _locked_remote(path, wait, lost):
        yield


@contextmanager
def _locked_folder(path: Path, wait: bool) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path)
    try:
        held.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise Held(str(path)) from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def _locked_remote(path: Remote, wait: bool, lost: Callable[[], None] | None) -> Iterator[None]:
    token = uuid.uuid4().hex
    _acquire(path, token, wait)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, token, ended, lost), name=f"beat of {path}", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        if (holder := _holder(path)) is not None and holder["token"] == token:
            path.unlink(missing_ok=True)


def _acquire(path: Remote, token: str, wait: bool) -> None:
    """Return when we have the lock. Raises Held."""
    seen: dict[str, Any] | None = None
    since, pause = time.monotonic(), 0.05
    while not path.create(_content(token, 0)):
        holder = _holder(path)
        if holder is None:  # released between our two requests
            continue
        if holder["token"] == token:  # ours: the answer to an earlier try was lost
            return
        state = _state(holder)
        alive = state == "alive" or (seen is not None and holder["token"] == seen["token"] and holder != seen)
        if alive and not wait:
            raise Held(str(path))
        if holder != seen:
            if seen is None and state is None and not wait:
                _log.warning("%s is held by %s; looking for a sign of life", path, holder["machine"])
            seen, since = holder, time.monotonic()
        if state == "dead" or time.monotonic() - since > DEAD:
            if _holder(path) == seen:  # what others created since stays
                path.unlink(missing_ok=True)
            continue
        time.sleep(pause)
        pause = min(2.0, pause * 1.5)


def _beat(path: Remote, token: str, ended: threading.Event, lost: Callable[[], None] | None) -> None:
    """Give signs of life until the lock is released or lost."""
    count = 0
    while not ended.wait(BEAT):
        count += 1
        try:
            holder = _holder(path)
            if holder is not None and holder["token"] == token:
                path.write(_content(token, count))
                continue
        except InputError as error:  # the store may answer again
            _log.warning("the lock cannot be kept at the moment: %s", error)
            continue
        _log.error("the lock %s has been taken by another process", path)
        if lost is not None:
            lost()
        return


def _holder(path: Remote) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


def _content(token: str, count: int) -> bytes:
    import psutil

    me = psutil.Process()
    return json.dumps(
        {"token": token, "machine": _machine(), "pid": me.pid, "began": me.create_time(), "count": count}
    ).encode()


def _state(holder: dict[str, Any]) -> Literal["alive", "dead"] | None:
    """Whether the holder lives; None where it is on another machine, which is not for us to know."""
    import psutil

    if holder["machine"] != _machine():
        return None
    try:
        process = psutil.Process(holder["pid"])
        same = abs(process.create_time() - holder["began"]) < 5 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return "dead"
    return "alive" if same else "dead"


def _machine() -> str:
    """Names that within which a process number names one process: the host since its start, and the container."""
    boot, container = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    if boot.exists():
        parts.append(boot.read_text().strip())
    if container.exists():
        parts.append(str(os.stat(container).st_ino))
    return " ".join(parts)
