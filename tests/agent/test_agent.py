"""The agent of a device in another process, over HTTP and HTTPS on this machine; and what the server refuses."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rssearch.agent import energy, measure, server
from rssearch.agent.client import Study
from rssearch.agent.desk import Desk, Ended
from rssearch.agent.energy import Drawn, Meter
from rssearch.agent.server import serving
from rssearch.errors import InputError
from tests.support.devices import ROOT, TOKEN, agent, measurement, network

LOCAL = "127.0.0.1"


def ended(desk: Desk, seconds: float = 60) -> dict[str, Ended]:
    """What a desk collects until nothing waits."""
    found, begun = {}, time.monotonic()
    while time.monotonic() - begun < seconds:
        found |= desk.collect()
        if not desk.left():
            return found | desk.collect()
        time.sleep(0.05)
    raise AssertionError(f"{desk.left()} still wait after {seconds} s")


@contextmanager
def offered(*contents: bytes, lease: float = 60, **more: Any) -> Iterator[tuple[Desk, int]]:
    """A desk with networks, and the port where it is served."""
    desk = Desk("pi", lease)
    for number, content in enumerate(contents):
        desk.offer(str(number), lambda content=content: content)  # type: ignore[misc]
    with serving(desk, (LOCAL, 0), TOKEN, **more) as port:
        yield desk, port


def ask(
    port: int, path: str = "/v1/pi/job", token: str = TOKEN, body: bytes = b"{}", **headers: str
) -> tuple[int, bytes]:
    with closing(HTTPConnection(LOCAL, port, timeout=10)) as connection:
        connection.request("POST", path, body, {"Authorization": f"Bearer {token}", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_an_agent_measures_what_is_there_and_waits_for_more() -> None:
    with offered(network(), network(8)) as (desk, port), agent(f"http://{LOCAL}:{port}"):
        found = ended(desk)
        assert found.keys() == {"0", "1"}
        for outcome in found.values():
            assert outcome.reason is None
            assert outcome.metrics is not None
            assert 0 < outcome.metrics["latency_ms@pi"] <= outcome.metrics["latency_p95_ms@pi"]
            assert outcome.metrics["latency_passes@pi"] >= 10
            assert 2**24 < outcome.metrics["peak_rss_bytes@pi"] < 2**31
            assert outcome.metrics["latency_threads@pi"] == 1
        desk.offer("later", lambda: network(2))  # the agent is still there
        assert ended(desk)["later"].metrics


def test_the_agent_needs_python_onnxruntime_and_numpy_alone(tmp_path: Path) -> None:
    """Nothing else of this environment is loaded, neither by the agent nor by its measurement."""
    script = f"""
import sys
sys.argv = ["agent"]
import rssearch.agent.__main__, rssearch.agent.client, rssearch.agent.measure
rssearch.agent.measure.measure(open({str(tmp_path / "network.onnx")!r}, "rb").read(), 1, "CPUExecutionProvider")
import importlib.metadata as metadata
owners = metadata.packages_distributions()
print(sorted({{owner for name in list(sys.modules) for owner in owners.get(name, ())}}))
"""
    (tmp_path / "network.onnx").write_bytes(network())
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    assert not loaded & {"torch", "ray", "mlflow", "optuna", "pydantic", "onnx", "typer", "rich", "pandas", "scipy"}
    assert {"numpy", "onnxruntime"} <= loaded


def test_a_wrong_token_gets_nothing_and_the_agent_says_so() -> None:
    with (
        offered(network()) as (desk, port),
        agent(f"http://{LOCAL}:{port}", token="another-token-of-nobody") as process,
    ):
        out, error = process.communicate(timeout=30)
        assert process.returncode == 2
        assert "the study refuses: the token is wrong" in error
        assert "another-token" not in out + error
        assert desk.left() == ["0"]
        assert desk.idle() is None  # nobody was there
        assert ask(port, token="") == (401, b"the token is wrong\n")
        assert ask(port, path="/v1/other/job") == (404, b"this port is for another device\n")


def test_an_agent_that_is_killed_in_a_measurement_loses_nothing() -> None:
    with offered(network(), lease=10) as (desk, port):
        with agent(f"http://{LOCAL}:{port}") as process:
            line = process.stdout.readline() if process.stdout else ""
            assert line.startswith("measuring a network")
            assert desk.idle() == 0  # it has the job
            process.send_signal(signal.SIGKILL)
            process.wait()
        with agent(f"http://{LOCAL}:{port}"):
            found = ended(desk)["0"].metrics
        assert found is not None
        assert found["latency_ms@pi"] > 0


def test_an_agent_that_is_slow_is_not_listened_to() -> None:
    with offered(network(), lease=1) as (desk, port):
        study = Study(f"http://{LOCAL}:{port}", "pi", TOKEN)
        first = study.job()
        assert first is not None
        time.sleep(1.2)
        second = study.job()
        assert second is not None
        with pytest.raises(InputError, match="no such job"):
            study.result({"job": first[0], **measurement(times_ms=[0.01] * 5)})
        time.sleep(0.1)
        study.result({"job": second[0], **measurement(times_ms=[0.01] * 5)})
        assert desk.left() == ["0"]  # one measurement more


def test_an_agent_that_lies_is_not_believed() -> None:
    with offered(network()) as (desk, port):
        study = Study(f"http://{LOCAL}:{port}", "pi", TOKEN)
        for lie in ({"times_ms": [1e9] * 5}, {"times_ms": []}, {"peak_rss_bytes": -1}):
            job = study.job()
            assert job is not None
            with pytest.raises(InputError):
                study.result({"job": job[0], **measurement(**lie)})
        assert desk.collect()["0"].metrics is None


@pytest.mark.parametrize(
    "changes",
    [
        {"X-Threads": "0"},
        {"X-Threads": "1000000000"},
        {"X-Threads": "many"},
        {"X-Seconds": "nan"},
        {"X-Seconds": "inf"},
        {"X-Seconds": "-1"},
        {"X-Job": None, "X-Threads": None},
        {"Content-Length": "9"},
    ],
)
def test_what_is_no_job_of_a_study_is_not_measured(changes: dict[str, str | None]) -> None:
    headers = {"X-Job": "a", "X-Threads": "1", "X-Seconds": "60", "Content-Length": "3", **changes}

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"abc")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer((LOCAL, 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            Study(f"http://{LOCAL}:{other.server_port}", "pi", TOKEN).job()
        thread.join()


def test_the_study_may_go_away_and_come_back() -> None:
    with closing(socket.socket()) as free:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
    with agent(f"http://{LOCAL}:{port}") as process:
        assert process.stdout is not None
        assert "does not answer" in process.stdout.readline()
        desk = Desk("pi", 60)
        desk.offer("0", network)
        with serving(desk, (LOCAL, port), TOKEN):
            assert ended(desk)["0"].metrics
        assert "answers again" in process.stdout.readline()


def test_a_network_that_cannot_run_is_said_by_the_agent() -> None:
    with offered(b"this is no network") as (desk, port), agent(f"http://{LOCAL}:{port}"):
        found = ended(desk)["0"]
        assert found.metrics is not None
        assert found.metrics["latency_ms@pi"] is None
        assert "InvalidProtobuf" in str(found.reason) or "Error" in str(found.reason) or "Fail" in str(found.reason)


def test_https_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=IP:{LOCAL},DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with offered(network(), tls=context) as (desk, port):
        with agent(f"https://{LOCAL}:{port}", "--ca", str(certificate)):
            assert ended(desk)["0"].metrics
        with pytest.raises(ssl.SSLError), closing(socket.create_connection((LOCAL, port))) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname=LOCAL)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"Content-Length": "65537"}, 413),
        (b"{}", {"Content-Length": "-1"}, 413),
        (b"{}", {"Content-Length": "999999999999999999999"}, 413),
        (b"[]", {}, 400),
        (b'{"job": "0", "times_ms": []}', {}, 400),
    ],
)
def test_requests_are_bounded_and_checked(body: bytes, headers: dict[str, str], status: int) -> None:
    with offered() as (_, port):
        assert ask(port, "/v1/pi/result", body=body, **headers)[0] == status
        assert ask(port)[0] == 204
        assert ask(port, "/v1/pi/other")[0] == ask(port, "/../../etc/passwd")[0] == 404


def test_a_stranger_who_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_STRANGER", 0.5)
    with offered() as (_, port):
        strangers = [socket.create_connection((LOCAL, port), timeout=5) for _ in range(server._CONNECTIONS)]
        begun = time.monotonic()
        for stranger in strangers:
            stranger.sendall(b"POST /v1/pi/job HTTP/1.0\r\nX: ")
        assert [stranger.recv(1) for stranger in strangers[:3]] == [b""] * 3
        assert time.monotonic() - begun < 5
        for stranger in strangers:
            stranger.close()
        for _ in range(50):  # until their threads have ended
            try:
                assert ask(port)[0] == 204
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("the port is taken by strangers for good")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://192.0.2.1:8765", "use https"),
        ("http://localhost.example.com", "use https"),
        ("ftp://127.0.0.1", "must be an address"),
        ("https://user:secret@host", "must be an address"),
        ("127.0.0.1:8765", "must be an address"),
    ],
)
def test_a_token_is_never_sent_in_the_clear(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Study(url, "pi", TOKEN)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--token-file", "nowhere"], "--token-file nowhere: No such file"),
        (["--provider", "Magic"], "unknown provider of onnxruntime 'Magic'"),
        ([], "no token: set RSSEARCH_AGENT_TOKEN"),
        (["--ca", "nowhere"], "no token|--ca nowhere"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, arguments: list[str], why: str) -> None:
    with agent(f"http://{LOCAL}:1", *arguments, token=None, cwd=tmp_path) as process:
        out, error = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out == ""
    assert re.search(why, error)
    assert "Traceback" not in error


@pytest.fixture
def anywhere() -> Iterator[None]:
    """The processors of this process are afterwards what they were."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("anywhere")
def test_a_measurement_stays_within_its_seconds_and_on_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WARM_SECONDS", 0)
    monkeypatch.setattr(measure, "ENOUGH_SECONDS", 0)
    found = measure.measure(network(), 1, "CPUExecutionProvider")
    assert len(found["times_ms"]) == measure.FEWEST
    assert len(os.sched_getaffinity(0)) == 1


def test_energy_is_that_above_idle() -> None:
    """A counter of 2 W when idle, and 7 W in 20 passes of 10 ms: 50 mJ each."""
    idle, meter = Drawn(2.0, 1.0), Meter("made up", lambda work: (work(), Drawn(7 * 0.2, 0.2))[1])
    assert energy.per_pass(meter, idle, lambda: 20) == pytest.approx(50)
    assert energy.per_pass(meter, Drawn(100.0, 1.0), lambda: 20) is None  # less than idle says nothing
    broken = Meter("broken", lambda work: (work(), None)[1])
    assert energy.per_pass(broken, idle, lambda: 20) is None


@pytest.mark.usefixtures("anywhere")
def test_a_measurement_has_its_energy_where_a_counter_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = iter((1.0, 3.0))
    monkeypatch.setattr(energy, "find", lambda: Meter("sensor", lambda work: (work(), Drawn(next(joules), 1.0))[1]))
    monkeypatch.setattr(measure, "IDLE_SECONDS", 0)
    monkeypatch.setattr(measure, "BUSY_SECONDS", 0.05)
    found = measure.measure(network(), 1, "CPUExecutionProvider")
    assert 0 < found["energy_mj"] <= 2000
    assert found["energy_by"] == "sensor"
