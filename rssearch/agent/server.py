"""Hands the networks of a desk to whoever has the token, over HTTP or HTTPS."""

from __future__ import annotations

import hmac
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rssearch.agent import protocol
from rssearch.agent.desk import Desk
from rssearch.agent.protocol import Refused

_CONNECTIONS = 16  # at once
_SILENCE = 10.0  # seconds without a byte
_STRANGER = 20.0  # seconds until a request has shown its token
_PART = 2**16  # bytes


@contextmanager
def serving(
    desk: Desk, address: tuple[str, int], token: str, *, threads: int = 1, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """A server in threads of its own, closed at the end; its port.

    Args:
        desk: has the networks.
        address: host and port; port 0 takes a free one.
        token: that requests must show.
        threads: of the CPU that the device is to use.
        tls: with a certificate; None: HTTP.

    Raises:
        OSError: the address cannot be listened at.
    """
    with _Server(address, desk, token, threads, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a device that is slow must not keep a study from ending

    def __init__(
        self, address: tuple[str, int], desk: Desk, token: str, threads: int, tls: ssl.SSLContext | None
    ) -> None:
        self.desk, self.threads = desk, threads
        self._token, self._tls = f"Bearer {token}".encode(), tls
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def knows(self, header: str | None) -> bool:
        """Whether a request shows the token; how long that takes does not depend on it."""
        return hmac.compare_digest((header or "").encode("utf-8", "replace"), self._token)

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls is not None:  # the handshake belongs to the thread of the connection
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is none of the study's business: the network is handed out again."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE
    _timer: threading.Timer | None = None
    server_version, sys_version = "rssearch", ""

    def setup(self) -> None:
        self._limit(_STRANGER)
        super().setup()

    def finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().finish()

    def _limit(self, seconds: float) -> None:
        def close() -> None:
            with suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)

        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, close)
        self._timer.daemon = True
        self._timer.start()

    def do_POST(self) -> None:
        """A device asks for a job, or brings what it measured."""
        if not self.server.knows(self.headers.get("Authorization")):
            self._answer(401, b"the token is wrong\n")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or len(length) > 9 or int(length) > protocol.LARGEST_RESULT:
            self._answer(413, f"at most {protocol.LARGEST_RESULT} bytes, and their number\n".encode())
            return
        self._limit(self.server.desk.lease)
        body = self.rfile.read(int(length))
        match self.path.split("/")[1:]:
            case ["v1", name, what] if name != self.server.desk.name and what in ("job", "result"):
                self._answer(404, b"this port is for another device\n")
            case ["v1", _, "job"]:
                self._job()
            case ["v1", _, "result"]:
                self._result(body)
            case _:
                self._answer(404, b"")

    def _job(self) -> None:
        if (job := self.server.desk.take()) is None:
            self._answer(204, b"")
            return
        number, content = job
        self._answer(
            200,
            content,
            {"X-Job": number, "X-Threads": str(self.server.threads), "X-Seconds": f"{self.server.desk.lease:g}"},
        )

    def _result(self, body: bytes) -> None:
        try:
            self.server.desk.give(protocol.parse(body))
        except Refused as refused:
            self._answer(400, f"{refused}\n".encode())
            return
        self._answer(204, b"")

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), _PART):
            self.wfile.write(content[start : start + _PART])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: requests are strangers' texts."""
