"""What runs on a device: asks a study for networks, measures them, and tells it."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rssearch.agent import protocol
from rssearch.errors import InputError
from rssearch.escaping import printable

POLL_SECONDS, AWAY_SECONDS = 1.0, 5.0  # until the next question: to a study that has nothing now, that does not answer
_SILENCE = 30.0  # seconds without a byte


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the address that was given, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Study:
    """The study's side, over HTTP or HTTPS.

    Args:
        url: ``https://HOST:PORT``, or ``http://`` of this machine.
        name: of this device.
        token: that the study knows.
        authority: file of the certificates that are trusted; None: those of the system.

    Raises:
        InputError: the address or the file cannot be used.
    """

    def __init__(self, url: str, name: str, token: str, authority: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError(f"{url}: must be an address such as https://host:8765")
        if parts.scheme == "http" and not protocol.is_loopback(parts.hostname):
            raise InputError(f"{url}: the token would be seen on its way; use https, or a tunnel that ends here")
        self._base, self._token = f"{url.rstrip('/')}/v1/{name}", token
        try:
            context = ssl.create_default_context(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"--ca {authority}: {error}") from error
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )

    def job(self) -> tuple[str, int, float, bytes] | None:
        """Its number, threads, seconds and ONNX file; None where there is none. Raises OSError, InputError."""
        with self._post("job", {}) as answer:
            if answer.status == 204:
                return None
            content, about = answer.read(protocol.LARGEST_MODEL + 1), answer.headers
            try:
                number, threads, seconds = str(about["X-Job"]), int(about["X-Threads"]), float(about["X-Seconds"])
                complete = len(content) == int(about["Content-Length"])
                if not (1 <= threads <= protocol.MOST_THREADS and 0 < seconds <= protocol.LONGEST_LEASE):
                    raise ValueError(f"{threads} threads for {seconds} s")
            except (TypeError, ValueError) as error:
                raise ConnectionError("something else answers there") from error
        if len(content) > protocol.LARGEST_MODEL or not complete:
            raise ConnectionError("the file is not complete, or too large")
        return number, threads, seconds, content

    def result(self, said: dict[str, Any]) -> None:
        """Say what was measured. Raises OSError; InputError where the study does not believe it."""
        with self._post("result", said):
            pass

    def _post(self, what: str, said: dict[str, Any]) -> http.client.HTTPResponse:
        body = json.dumps(said, allow_nan=False).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._base}/{what}", body, headers, method="POST")  # noqa: S310 - checked
        try:
            found: http.client.HTTPResponse = self._opener.open(request, timeout=_SILENCE)
        except urllib.error.HTTPError as error:
            with error:
                why = printable(error.read(300).decode(errors="replace").strip(), keep=set())
            if error.code in (401, 404):
                raise PermissionError(why or f"status {error.code}") from None
            raise InputError(why or f"status {error.code}") from None
        return found


def run(study: Study, provider: str, say: Callable[[str], object]) -> None:
    """Measure what the study hands out, until it refuses the token or the process is ended.

    Args:
        study: where it comes from.
        provider: of onnxruntime.
        say: prints a line.

    Raises:
        InputError: the study does not know the token or the name.
    """
    away = False
    while True:
        try:
            job = study.job()
            if away:
                say("the study answers again")
            away = False
            if job is None:
                time.sleep(POLL_SECONDS)
                continue
            number, threads, seconds, content = job
            say(f"measuring a network of {len(content) / 1e6:.3g} MB on {threads} threads")
            said = measured(content, threads, provider, seconds)
            study.result({"job": number, **said})
            say(said.get("error") or f"{sorted(said['times_ms'])[len(said['times_ms']) // 2]:.3g} ms")
        except PermissionError as error:
            raise InputError(f"the study refuses: {error}") from None
        except InputError as error:
            say(f"not taken: {error}")
            time.sleep(POLL_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            if not away:
                say(f"the study does not answer ({type(error).__name__}); waiting for it")
            away = True
            time.sleep(AWAY_SECONDS)


def measured(content: bytes, threads: int, provider: str, seconds: float) -> dict[str, Any]:
    """What `rssearch.agent.measure` says of a network in a process of its own, or an ``error``.

    Args:
        content: the ONNX file.
        threads: of the CPU.
        provider: of onnxruntime.
        seconds: after which it is given up.
    """
    root = str(Path(__file__).resolve().parents[2])
    hidden = {name: value for name, value in os.environ.items() if name != protocol.TOKEN}
    paths = [root, *filter(None, [hidden.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-m", "rssearch.agent.measure", str(threads), provider]
    with tempfile.TemporaryDirectory(prefix="rssearch-agent-") as folder:  # nothing there that a file could refer to
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter, and no text from outside
                command,
                input=content,
                capture_output=True,
                timeout=0.9 * seconds,
                cwd=folder,
                env=hidden | {"PYTHONPATH": os.pathsep.join(paths)},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"it took longer than {0.9 * seconds:.3g} s"}
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return {"error": f"the measurement ended with status {done.returncode}: {' '.join(last)}"[:300]}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"error": "the measurement gave no result"}
    return found
