"""cluster.local.yaml on two machines: `ray up`, `ray submit`, `ray exec`, `ray job submit`, `ray down`, over ssh.

The machines are namespaces of this one (tests/support/machines.py). The file is used as it is but for its name, its
addresses, its user and key, and its installation: the environment is the one that the tests run in, for which pip goes
only as far as it can without installing, and the project is found where `ray up` has copied it to.
"""

from __future__ import annotations

import csv
import os
import pty
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ray._private.utils import get_num_cpus

from tests.support.machines import TOOLS, Machines, machines

pytestmark = [pytest.mark.machines, pytest.mark.slow, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
HEAD, WORKER = "10.77.0.2", "10.77.0.3"
STUDY = {
    "study": "tiny",
    "trial": "trials.prune:run",
    "space": {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["random"], "rate": [0.3, 0.5]},
    "settings": {"input_size": 16, "train": {"epochs": 1}, "finetune": {"epochs": 0}},
    "resources": {"cpus": get_num_cpus()},  # a trial takes a whole machine
}

# A user-defined trial, and a module that it imports: each trial waits until there is one on both machines.
WHERE = """
import socket
from together import meet

def run(config):
    meet(socket.gethostname())
    return {"val_accuracy": config["x"], "macs": config["x"], "host": socket.gethostname()}
"""
TOGETHER = """
import time
from pathlib import Path

def meet(host):
    met = Path("/mnt/shared/met")
    met.mkdir(exist_ok=True)
    (met / host).touch()
    deadline = time.monotonic() + 240
    while len(list(met.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs, as the user sees it."""

    machines: Machines
    file: Path

    @property
    def shared(self) -> Path:
        """The machines' /mnt/shared."""
        return self.machines.folder / "shared"

    def ray(self, command: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray's about the cluster, without a terminal."""
        return self.run("ray", command, "--no-config-cache", str(self.file), *arguments, cwd=cwd)

    def run(self, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a command on the user's machine."""
        return subprocess.run(
            self.machines.command(*command, cwd=cwd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )

    def write(self, name: str, document: object) -> str:
        """Put a YAML into the shared folder; its path on the machines."""
        (self.shared / name).write_text(yaml.safe_dump(document))
        return f"/mnt/shared/{name}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    folder = tmp_path_factory.mktemp("machines")
    text = (ROOT / "cluster.local.yaml").read_text(encoding="utf-8")
    for old, new in {
        "cluster_name: rssearch-local": f"cluster_name: rssearch-{os.getpid()}",  # names files in /tmp
        "head_ip: 192.168.1.10": f"head_ip: {HEAD}",
        "worker_ips: [192.168.1.11, 192.168.1.12]": f"worker_ips: [{WORKER}]",
        "ssh_user: ubuntu": "ssh_user: root",
        "~/.ssh/id_ed25519": str(folder / "key"),
        "pip install": "pip install --dry-run --no-index --no-deps --no-build-isolation",
        "export PATH=": "export PYTHONPATH=$HOME/rssearch-source PATH=",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "cluster.local.yaml").write_text(text)
    with machines(folder, [HEAD, WORKER]) as running:
        up = Cluster(running, folder / "cluster.local.yaml")
        done = up.ray("up", "--yes")
        assert done.returncode == 0, done.stdout
        deadline = time.monotonic() + 300
        while up.run(*running.ssh(WORKER, "ps -A -o args | grep -q [r]aylet/raylet")).returncode:  # asks no Python
            assert time.monotonic() < deadline, done.stdout
            time.sleep(0.5)
        while "2 local.cluster.node" not in (status := up.ray("exec", "ray status").stdout):
            assert time.monotonic() < deadline, status
        yield up


def trials(cluster: Cluster, study: str) -> list[dict[str, str]]:
    with (cluster.shared / "results" / study / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_submitted_study_runs_on_all_machines_and_leaves_its_front(cluster: Cluster) -> None:
    space = cluster.write("tiny.yaml", STUDY)
    done = cluster.ray("submit", "search.py", space, "--storage", "/mnt/shared/results", "--set", "search.seed=1")
    assert done.returncode == 0, done.stdout
    assert [row["status"] for row in trials(cluster, "tiny")] == ["finished", "finished"]
    for machine in (HEAD, WORKER):
        logs = cluster.run(*cluster.machines.ssh(machine, "ls /tmp/ray/session_latest/logs")).stdout
        assert re.search(r"^worker-\w+-01000000-\d+\.out$", logs, re.M), f"no worker of the study on {machine}: {logs}"
    shown = cluster.ray("exec", "rssearch front tiny --storage /mnt/shared/results --format csv")
    assert shown.returncode == 0, shown.stdout
    front = (cluster.shared / "results" / "tiny" / "front.csv").read_text().splitlines()
    assert len(front) >= 2
    assert set(front) <= set(shown.stdout.splitlines())


def test_workers_get_modules_that_the_head_alone_has(cluster: Cluster) -> None:
    space = cluster.write("where.yaml", {**STUDY, "study": "where", "trial": "where:run", "space": {"x": [1, 2]}})
    (cluster.shared / "where.py").write_text(WHERE)
    (cluster.shared / "together.py").write_text(TOGETHER)
    moved = "mkdir /mnt/own && mv /mnt/shared/where.py /mnt/shared/together.py /mnt/own && cd /mnt/own"
    search = f"rssearch search {space} --storage /mnt/shared/results"
    done = cluster.ray("exec", f"{moved} && {search}")
    assert done.returncode == 0, done.stdout
    assert sorted(row["host"] for row in trials(cluster, "where")) == ["machine2", "machine3"]


def test_a_mistake_in_the_yaml_is_told_and_fails_the_command(cluster: Cluster) -> None:
    space = cluster.write("wrong.yaml", STUDY | {"spaec": {}})
    done = cluster.ray("submit", "search.py", space, "--storage", "/mnt/shared/results")
    assert done.returncode == 1
    assert "error: /mnt/shared/wrong.yaml: spaec: unknown key. Did you mean 'space'?" in done.stdout
    assert "Traceback" not in done.stdout


def test_ctrl_c_ends_a_submitted_study_in_order(cluster: Cluster) -> None:
    long = STUDY | {"study": "long", "settings": {"input_size": 16, "train": {"epochs": 10_000}}}
    space = cluster.write("long.yaml", long)
    command = ["ray", "submit", "--no-config-cache", str(cluster.file), "search.py", space]
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        cluster.machines.command(*command, "--storage", "/mnt/shared/results", cwd=ROOT),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    try:
        said = _read(terminal, until="baselines and scores")
        os.write(terminal, b"\x03")
        said += _read(terminal)
        assert process.wait(60) == 1, said
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert "interrupted; the same command resumes from here (/mnt/shared/results/long)" in said
    assert "search.py" not in cluster.run(*cluster.machines.ssh(HEAD, "ps -A -o args")).stdout


def _read(terminal: int, until: str | None = None) -> str:
    """What a terminal shows, up to a text or to its end."""
    shown = ""
    while until is None or until not in shown:
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # nobody writes to it any more
            assert until is None, shown
            break
    return shown


def test_a_job_takes_the_project_along_and_goes_on_with_the_study(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("search.py", "pyproject.toml", ".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("rssearch", "trials", "search_spaces"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "large").write_bytes(os.urandom(50 << 20))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    tunnel = subprocess.Popen(
        cluster.machines.command("ray", "dashboard", "--no-config-cache", str(cluster.file), cwd=ROOT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while cluster.run("bash", "-c", "echo > /dev/tcp/localhost/8265").returncode:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        search = ["search.py", "mine.yaml", "--storage", "/mnt/shared/results", "--set", "space.rate=[0.5, 0.7]"]
        job = ["job", "submit", "--address", "http://localhost:8265", "--working-dir", ".", "--", "python"]
        done = cluster.run("ray", *job, *search, cwd=tmp_path)
    finally:
        tunnel.kill()
        tunnel.wait()
    assert done.returncode == 0, done.stdout
    assert {float(row["rate"]) for row in trials(cluster, "tiny")} == {0.5, 0.7}
    assert {row["status"] for row in trials(cluster, "tiny")} == {"finished"}
    packages = "du -b -s /tmp/ray/session_latest/runtime_resources/working_dir_files"
    size = int(cluster.run(*cluster.machines.ssh(HEAD, packages)).stdout.split()[0])
    assert 1 << 18 < size < 10 << 20


def test_down_ends_ray_on_the_head(cluster: Cluster) -> None:
    """The workers end by themselves a minute later, which is too long to look on."""
    done = cluster.run("ray", "down", "--yes", str(cluster.file))
    assert done.returncode == 0, done.stdout
    assert "raylet" not in cluster.run(*cluster.machines.ssh(HEAD, "ps -A -o args")).stdout
