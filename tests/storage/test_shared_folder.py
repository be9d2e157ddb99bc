"""A cluster whose nodes do not share the storage is refused before anything is trained."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rssearch.backend import nodes
from rssearch.config.loading import parse_study
from rssearch.errors import InputError
from rssearch.storage import shared_folder
from rssearch.storage.journal import Journal
from rssearch.study import run as study
from tests.support.mounts import private_mounts

pytestmark = pytest.mark.ray


def run(storage: Path, function: str = "plain") -> int:
    document = {"study": "s", "trial": f"tests.support.toy:{function}", "space": {"rate": [0.1, 0.3, 0.5]}}
    return study.search(parse_study(document | {"storage": str(storage)}), console=Console(file=StringIO()))


def test_a_token_is_seen_in_its_session_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_folder, "_TRIES", 1)
    old = shared_folder.leave_token(tmp_path)
    token = shared_folder.leave_token(tmp_path)
    assert shared_folder.problem(str(tmp_path), token) is None
    assert shared_folder.problem(str(tmp_path), old) == "what the driver wrote there is not seen"
    (tmp_path / "file").touch()
    assert "Not a directory" in str(shared_folder.problem(str(tmp_path / "file"), token))
    assert str(shared_folder.refusal("/x/s", {"10.0.0.2": "not there"})) == (
        "storage: /x/s is not shared by all nodes (node 10.0.0.2: not there); set storage (--storage) to a folder "
        "that every node mounts under the same path, or to an object store such as s3://bucket/results"
    )


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the second node of a cluster does not see: a disk of its own hides it there."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("storage")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    start = [str(Path(sys.executable).parent / "ray"), "start", "--address", cluster.address, "--num-cpus=1", "--block"]
    command = private_mounts({str(folder): "1m"}, *start)
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len([n for n in ray.nodes() if n["Alive"]]) < 2:
            assert node.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield folder
    finally:
        ray.shutdown()
        node.terminate()
        node.wait()
        cluster.shutdown()


@pytest.mark.mounts
@pytest.mark.slow
def test_a_storage_that_a_node_does_not_see_is_refused(hidden: Path) -> None:
    reason = r"\(node [\d.]+: what the driver wrote there is not seen\); set storage"
    with pytest.raises(InputError, match=rf"^storage: {hidden}/s is not shared by all nodes {reason}"):
        run(hidden)
    assert not (hidden / "s" / "trials.jsonl").exists()
    assert not (hidden / "s" / "study.yaml").exists()


@pytest.mark.mounts
@pytest.mark.slow
def test_a_node_that_comes_later_ends_the_study_and_spoils_no_trial(
    hidden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "check_nodes", lambda folder, token: None)  # as if it had come since
    with pytest.raises(InputError, match=f"^storage: {hidden}/s is not shared by all nodes"):
        run(hidden, "lasting")
    assert all(record.status == "finished" for record in Journal(hidden / "s" / "trials.jsonl").records.values())


@pytest.mark.mounts
@pytest.mark.slow
@pytest.mark.usefixtures("hidden")
def test_a_folder_that_all_nodes_see_is_used(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    assert len(Journal(tmp_path / "s" / "trials.jsonl").records) == 3
