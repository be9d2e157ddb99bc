"""The agent of a device in a network of its own: Linux namespaces with a cable between them, which is pulled once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.devices import ROOT, TOKEN

pytestmark = [pytest.mark.machines, pytest.mark.slow]

STUDY = "10.77.1.1"
_NETWORK = f"""
mount -t tmpfs none /run; mkdir -p /run/netns
ip link set lo up
ip netns add device
ip link add cable type veth peer name eth0 netns device
ip address add {STUDY}/24 dev cable; ip link set cable up
ip -n device link set lo up
ip -n device address add 10.77.1.2/24 dev eth0; ip -n device link set eth0 up
ip netns exec device "$0" -m rssearch.agent https://{STUDY}:8765 --name pi --ca cert.pem > agent.log 2>&1 &
exec "$0" -c "$1"
"""
_SERVE = f"""
import json, ssl, subprocess, time
from rssearch.agent.desk import Desk
from rssearch.agent.server import serving
from tests.agent.test_agent import ended
from tests.support.devices import TOKEN, network

tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("cert.pem", "key.pem")
desk = Desk("pi", lease=60)
desk.offer("first", network)
with serving(desk, ("{STUDY}", 8765), TOKEN, tls=tls):
    found = ended(desk)
    subprocess.run(["ip", "link", "set", "cable", "down"], check=True)
    desk.offer("pulled", network)
    time.sleep(3)
    waited = desk.left()
    subprocess.run(["ip", "link", "set", "cable", "up"], check=True)
    found |= ended(desk)
print(json.dumps({{"waited": waited, **{{key: outcome.metrics for key, outcome in found.items()}}}}))
"""


def test_a_device_elsewhere_measures_over_https_and_outlives_a_pulled_cable(tmp_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=study"]
    command += ["-addext", f"subjectAltName=IP:{STUDY}", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*alone, "sh", "-ec", _NETWORK, sys.executable, _SERVE],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT), "RSSEARCH_AGENT_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
        check=False,
    )
    log = (tmp_path / "agent.log").read_text()
    assert done.returncode == 0, done.stderr + log
    found = json.loads(done.stdout)
    assert found["waited"] == ["pulled"]
    assert found["first"]["latency_ms@pi"] > 0
    assert found["pulled"]["latency_ms@pi"] > 0
    assert "the study does not answer" in log
    assert "the study answers again" in log
    assert TOKEN not in done.stdout + done.stderr + log
