"""A Ray that we start ourselves is closed to strangers: it asks for a token, and listens on loopback alone.

Whoever may talk to a Ray runs code as the user that started it. Left to itself, Ray binds its services to the machine's
address or to all addresses of it; see docs/safety.md.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod

MODE = "RAY_AUTH_MODE"
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# With 0, Ray's default on macOS and Windows, a node's own address is 127.0.0.1, and all services of Ray bind to it. Of
# `_node_ip_address` Ray takes 127.0.0.1 for "find out which": it cannot be had that way.
CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
GLOO = "GLOO_SOCKET_IFNAME"  # where the workers of a trial that has several talk to each other


def starts(address: str | None) -> bool:
    """Whether there is no Ray to connect to at this address, and one is to be started.

    Ray remembers the one of this machine in a file, also when it was killed, and would wait for it for minutes.

    Raises:
        ConnectionError: the address is ``auto``, and no Ray runs here.
        ValueError: it is no address.
    """
    from ray._private.services import canonicalize_bootstrap_address

    wanted = os.environ.get("RAY_ADDRESS") or address if address in (None, "auto") else address
    if "://" in (wanted or ""):
        return False
    found = canonicalize_bootstrap_address(wanted)  # type: ignore[arg-type]
    if found is None or wanted not in (None, "auto") or _answers(found):
        return found is None
    if wanted == "auto":
        raise ConnectionError(f"the Ray of this machine was at {found}, where nothing answers any more")
    return True


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError:
        return False
    return True


@contextmanager
def closed(*, logs: bool = True) -> Iterator[None]:
    """A Ray that is started in this block asks for a token that only its own processes know, and is on loopback.

    All of it is handed on in the environment, which other users cannot read. What the user has set wins: another mode,
    a token of their own; ``~/.ray/auth_token`` is neither read nor written.

    Such a Ray never grows, so it has no autoscaler: half a second of CPU at its start.

    Args:
        logs: start the process, of half a second, too, that brings what workers print to the driver (`log_to_driver`).
    """
    from ray._private import ray_constants
    from ray._private.parameter import RayParams

    wanted = {CLUSTERS: "0", GLOO: "lo0" if sys.platform == "darwin" else "lo", MODE: "token"}
    if os.environ.get(MODE, "token").lower() == "token" and not any(map(os.environ.get, TOKENS)):
        wanted[TOKENS[0]] = secrets.token_hex(32)
    new = {name: value for name, value in wanted.items() if not os.environ.get(name)}
    clusters, parameters = ray_constants.ENABLE_RAY_CLUSTER, RayParams.__init__
    os.environ.update(new)
    _read_again()
    if CLUSTERS in new:  # Ray has read it when it was imported
        ray_constants.ENABLE_RAY_CLUSTER = False
    fewer = partialmethod(parameters, no_monitor=True, include_log_monitor=logs)
    RayParams.__init__ = fewer  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        RayParams.__init__ = parameters  # type: ignore[method-assign]
        for name in new:
            os.environ.pop(name, None)
        _read_again()


def _read_again() -> None:
    """Make Ray look at the environment again for the mode and the token, which it remembers."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
