"""A Ray that we start is closed to strangers: docs/safety.md says what that means."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from functools import partialmethod
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from rssearch.backend import local_ray
from rssearch.config.schema import Resources
from rssearch.errors import InputError

pytestmark = pytest.mark.ray

JOBS = "/api/job_agent/jobs/", "/api/jobs/"  # of the agent on each node, of the dashboard
SETTINGS = (local_ray.MODE, *local_ray.TOKENS, local_ray.CLUSTERS, local_ray.GLOO)
Listening = dict[tuple[str, int], str]  # address and port -> who listens there


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": None}),
        ({"RAY_AUTH_TOKEN": "mine"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "mine"}),
        ({"RAY_AUTH_TOKEN_PATH": "/mine"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None}),
        ({local_ray.CLUSTERS: "1"}, {local_ray.CLUSTERS: "1"}),
    ],
)
def test_what_the_user_has_set_wins(
    given: dict[str, str], left: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with local_ray.closed():
        assert {name: os.environ.get(name) for name in left} == left
    assert {name: os.environ.get(name) for name in SETTINGS} == dict.fromkeys(SETTINGS) | given
    monkeypatch.undo()
    local_ray._read_again()


@pytest.mark.parametrize(
    ("address", "environment", "own"),
    [
        ("local", None, True),
        ("local", "10.0.0.1:6379", True),
        ("10.0.0.1:6379", None, False),
        ("ray://10.0.0.1:10001", None, False),
        (None, "10.0.0.1:6379", False),
        (None, "ray://10.0.0.1:10001", False),
        (None, "local", True),
        ("auto", "10.0.0.1:6379", False),
    ],
)
def test_a_cluster_that_is_there_keeps_its_mode(
    address: str | None, environment: str | None, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert local_ray.starts(address) is own


def test_a_ray_that_was_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services, utils
    from ray.util import get_node_ip_address

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # those that other tests run
    with socket.create_server((get_node_ip_address(), 0)) as server:
        address = ":".join(map(str, server.getsockname()))
        monkeypatch.setattr(utils, "read_ray_address", lambda *_: address)  # in the file that Ray leaves
        assert local_ray.starts(None) is False
        assert local_ray.starts("auto") is False
    assert local_ray.starts(None) is True
    with pytest.raises(ConnectionError, match=f"was at {address}, where nothing answers any more"):
        local_ray.starts("auto")


def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from rssearch.backend.tune import connected

    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS nonsense: must be HOST:PORT, "):
        connected(None, Resources(), verbose=False).__enter__()


# with a Ray that runs


@pytest.fixture(scope="module")
def token() -> Iterator[str]:
    """A Ray as `rssearch search` starts one for a user who has set nothing; its token."""
    from ray._private import ray_constants
    from ray._private.parameter import RayParams

    from rssearch.backend.tune import connected

    with pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)  # as where Ray was imported before
        # Else it is 52365, and of several Rays on one machine the first one's agent has it.
        patch.setattr(RayParams, "__init__", partialmethod(RayParams.__init__, dashboard_agent_listen_port=0))
        with connected("local", Resources(), verbose=False):
            yield os.environ["RAY_AUTH_TOKEN"]
        assert not [name for name in SETTINGS if name in os.environ]
        assert ray_constants.ENABLE_RAY_CLUSTER
    local_ray._read_again()  # of the other tests' settings


def family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


@pytest.mark.ray
@pytest.mark.usefixtures("token")
def test_what_only_a_cluster_needs_is_not_started() -> None:
    commands = " ".join(part for process in family() for part in process.cmdline())
    assert "raylet" in commands
    assert "monitor.py" not in commands  # of the autoscaler, and of what workers print


def listening() -> Listening:
    """Where this process and what it has started take connections."""
    found: Listening = {}
    for process in family():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            who = " ".join(process.cmdline())[:200]
            for socket in process.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN:
                    found[socket.laddr.ip.removeprefix("::ffff:"), socket.laddr.port] = who
    return found


def beyond_loopback(found: Listening) -> Listening:
    return {where: who for where, who in found.items() if not ipaddress.ip_address(where[0]).is_loopback}


def agents_port() -> int:
    """The port of the dashboard agent that takes jobs, once it is there."""
    deadline = time.monotonic() + 60
    while True:
        for (host, port), who in listening().items():
            if "DashboardAgent" in who or "dashboard/agent.py" in who:
                with suppress(OSError, HTTPException):  # it speaks gRPC, or is not ready yet
                    path = "/api/local_raylet_healthz"  # its port for metrics answers every path
                    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
                        if answer.read() == b"success":
                            return port
        assert time.monotonic() < deadline, listening()
        time.sleep(0.2)


def submit(address: str, command: str, token: str | None = None) -> int | None:
    """Ask a port to run a command; the HTTP status of the answer, None where it is none."""
    head = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    body = json.dumps({"entrypoint": command}).encode()
    request = urllib.request.Request(f"http://{address}", data=body, headers=head, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, HTTPException):  # it speaks gRPC
        return None


def test_a_job_without_the_token_is_refused_and_with_it_runs(token: str, tmp_path: Path) -> None:
    agent = agents_port()
    ran, run = tmp_path / "strangers", tmp_path / "ours"
    answers = {
        (port, path): submit(f"{host}:{port}{path}", f"touch {ran}") for host, port in listening() for path in JOBS
    }
    assert answers[agent, JOBS[0]] == 401
    assert not [status for status in answers.values() if status is not None and status < 400]
    assert submit(f"127.0.0.1:{agent}{JOBS[0]}", f"touch {ran}", token="0" * 64) in (401, 403)
    assert submit(f"127.0.0.1:{agent}{JOBS[0]}", f"touch {run}", token=token) == 200
    deadline = time.monotonic() + 60
    while not run.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not ran.exists()  # the other jobs were asked for before this one


def test_nothing_listens_beyond_loopback(token: str) -> None:
    agents_port()
    found = listening()
    assert len(found) >= 8  # the store of the cluster, the raylet's, the agents', the drivers', the metrics'
    assert beyond_loopback(found) == {}


def test_what_is_known_to_listen_on_all_addresses_is_the_store_of_a_trial_of_several_workers() -> None:
    """PyTorch's `TCPStore` takes no address to bind to. docs/safety.md says so."""
    from torch.distributed import TCPStore

    before = listening()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert [port for _, port in beyond_loopback(listening()).keys() - before.keys()] == [store.port]


def test_the_token_is_no_argument_and_in_no_log(token: str) -> None:
    import ray

    assert len(token) == 64
    for process in family():
        with suppress(psutil.NoSuchProcess):  # it has just ended; a zombie counts as such
            assert token not in " ".join(process.cmdline())
    folder = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [path for path in folder.rglob("*") if path.is_file()]
    assert len(logs) > 5
    assert not [path for path in logs if token.encode() in path.read_bytes()]


def test_a_driver_without_the_token_is_refused_in_one_sentence(token: str) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    program = (
        "from rssearch.backend.tune import connected\nfrom rssearch.config import Resources\n"
        f"with connected({address!r}, Resources(), verbose=False): print('in')"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    # Without the last one Ray would look for this Ray at the machine's address, where it is not.
    stranger = environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, local_ray.CLUSTERS: "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=stranger, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "in" not in done.stdout.split()
    assert f"InputError: --address {address}: this Ray asks for another token" in done.stderr, done.stderr[-3500:]
