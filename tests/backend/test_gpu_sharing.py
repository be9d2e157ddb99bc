"""rssearch.backend.gpu_sharing: how many trials share a machine, a GPU and its memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from rssearch.backend import gpu_sharing
from rssearch.config.loading import parse_study
from rssearch.config.schema import Resources
from rssearch.cost.memory import Footprint, measure
from rssearch.data.streaming import read_ahead
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.study import run
from rssearch.study.planning import plan
from tests.support.packed import MIB

GIB = 2**30


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers", "expected"),
    [
        ([{"CPU": 8.0}], 1, 0, 1, 8),
        ([{"CPU": 8.0}], 3, 0, 1, 2),
        ([{"CPU": 0.3}], 0.1, 0, 1, 3),
        ([{"CPU": 8.0, "GPU": 2.0}], 1, 0.5, 1, 4),
        ([{"CPU": 8.0, "GPU": 2.0}], 1, 0.4, 1, 4),  # a GPU holds two, and what is left of two GPUs no fifth
        ([{"CPU": 8.0, "GPU": 1.0}], 1, 0.3333, 1, 3),
        ([{"CPU": 2.0, "GPU": 1.0}], 1, 0.25, 1, 2),
        ([{"CPU": 8.0, "GPU": 5.0}], 1, 2, 1, 2),
        ([{"CPU": 8.0}], 1, 1, 1, 0),
        ([{"CPU": 8.0, "GPU": 4.0}], 2, 1, 4, 1),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}], 1, 1, 2, 2),
        ([{"CPU": 3.0}, {"CPU": 3.0}, {}], 1, 0, 4, 1),  # its workers lie on two nodes
        ([{"CPU": 3.0}, {"CPU": 3.0}], 2, 0, 3, 0),
        ([], 1, 0, 1, 0),
    ],
)
def test_slots(nodes: list[dict[str, float]], cpus: float, gpus: float, workers: int, expected: int) -> None:
    assert gpu_sharing.slots(nodes, cpus, gpus, workers) == expected


@pytest.mark.parametrize(
    ("footprint", "memory", "headroom", "expected"),
    [
        (9 * GIB, 10 * GIB, 0.1, 1.0),
        (10 * GIB, 10 * GIB, 0.1, 1.0),  # it may not fit, and nothing else is beside it
        (4 * GIB, 10 * GIB, 0.1, 0.5),
        (3 * GIB, 10 * GIB, 0.1, 0.3333),
        (3 * GIB, 10 * GIB, 0.0, 0.3333),
        (5 * GIB, 10 * GIB, 0.0, 0.5),
        (5 * GIB, 10 * GIB, 0.01, 1.0),
        (GIB, 80 * GIB, 0.1, 0.0138),  # 72 of them
        (1, 80 * GIB, 0.1, 0.0001),
    ],
)
def test_fraction(footprint: int, memory: int, headroom: float, expected: float) -> None:
    assert gpu_sharing.fraction(footprint, memory, headroom) == expected


@pytest.mark.parametrize("together", range(1, 100))
def test_so_many_fit_on_a_gpu_in_rays_own_arithmetic(together: int) -> None:
    share = gpu_sharing.fraction(1000, 1000 * together, headroom=0)
    assert share * together <= 1 < share * (together + 1) + 1e-2
    assert gpu_sharing.slots([{"CPU": 100.0, "GPU": 1.0}], 1, share) >= together


TWO = {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "resources", "expected"),
    [
        ([{"CPU": 8.0}], {}, 0),
        ([TWO], {}, 1),
        ([{"CPU": 8.0}, TWO], {}, 1),
        ([TWO], {"workers": 2}, 1),
        ([TWO], {"workers": 3}, 0),  # the CPUs can hold three workers, the GPUs cannot
        ([{"CPU": 2.0, "GPU": 2.0}], {"cpus": 4}, 0),
    ],
)
def test_a_trial_takes_a_gpu_where_there_is_one(
    nodes: list[dict[str, float]], resources: dict[str, Any], expected: float
) -> None:
    assert gpu_sharing.default_share(nodes, Resources(**resources)) == expected


@pytest.mark.parametrize(
    ("nodes", "resources", "expected"),
    [
        ([{"CPU": 8.0}], {"gpus": 0}, None),
        ([TWO], {"gpus": 1}, "GPUs: 2; trials at once: 2, each takes 1; none is idle"),
        ([TWO], {"gpus": 0.5}, "GPUs: 2; trials at once: 4, each takes 0.5; none is idle"),
        ([TWO], {"gpus": 1, "workers": 2}, "GPUs: 2; trials at once: 1, each takes 2 workers of 1; none is idle"),
        ([TWO], {"gpus": 0}, "GPUs: 2, all idle: none are asked for"),
        ([TWO], {"workers": 3}, "GPUs: 2, all idle: they cannot hold a trial with its CPUs and workers"),
        (
            [TWO],
            {"gpus": 1, "max_concurrent": 1},
            "GPUs: 2; trials at once: 1, each takes 1; idle: 1 (limited by max_concurrent)",
        ),
        (
            [{"CPU": 2.0, "GPU": 4.0}],
            {"gpus": 1},
            "GPUs: 4; trials at once: 2, each takes 1; idle: 2 (limited by the nodes' CPUs, or by parts of GPUs)",
        ),
        (
            [{"CPU": 8.0, "GPU": 3.0}],
            {"gpus": 2},
            "GPUs: 3; trials at once: 1, each takes 2; idle: 1 (limited by the nodes' CPUs, or by parts of GPUs)",
        ),
    ],
)
def test_what_is_used_and_what_is_idle(
    nodes: list[dict[str, float]], resources: dict[str, Any], expected: str | None
) -> None:
    assert gpu_sharing.describe_use(nodes, Resources(**resources)) == expected


class FakeMemory:
    """A GPU of 16 GiB: CUDA takes half a GiB, and the allocator grows to 3 GiB and gives 1 back."""

    def __init__(self) -> None:
        self.now = self.most = 7 * GIB  # of the job before

    def reset(self) -> None:
        self.now = self.most = 0

    def grow(self) -> None:
        self.now, self.most = 2 * GIB, 3 * GIB

    def peak(self) -> int:
        return self.most

    def held(self) -> int:
        return self.now

    def free(self) -> int:
        return 16 * GIB - GIB // 2 - self.now

    def total(self) -> int:
        return 16 * GIB


def test_a_footprint_is_the_peak_of_the_allocator_and_what_cuda_takes() -> None:
    memory = FakeMemory()
    assert measure(memory.grow, memory) == Footprint(taken=3 * GIB + GIB // 2, memory=16 * GIB)


def test_the_largest_recorded_footprint_counts_once_all_are_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert gpu_sharing.recorded(store, []) is None
    for key, taken in (("a", 5), ("b", 7)):
        assert gpu_sharing.recorded(store, ["a", "b"]) is None
        store.put(gpu_sharing.FOOTPRINTS, key, {"footprint.json": json.dumps({"taken": taken, "memory": 9}).encode()})
    assert gpu_sharing.recorded(store, ["a", "b"]) == 7


def test_readers_are_as_many_as_torch_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    meet = threading.Barrier(3, timeout=60)  # opens when three wait, and only then
    (chunk,) = read_ahead(lambda index: meet.wait() * 0 + index, [np.arange(3)], None)
    assert chunk == [0, 1, 2]


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpus": 1.5}, "resources.gpus: must be a whole number, a part of one GPU such as 0.5, or auto, not 1.5"),
        ({"gpus": "all"}, "resources.gpus: must be a whole number, a part of one GPU such as 0.5, or auto, not 'all'"),
        ({"gpus": -1}, "resources.gpus: must be"),
        ({"gpus": True}, "resources.gpus: must be"),
        ({"workers": 2, "gpus": "auto"}, "workers: 2 need gpus: 0 or a whole number, not auto"),
        ({"workers": 2, "gpus": 0.5}, "workers: 2 need gpus: 0 or a whole number, not 0.5"),
        ({"workers": 0}, "resources.workers: 0 is not allowed"),
    ],
)
def test_resources_that_cannot_be_had_are_refused(resources: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_study({"study": "s", "trial": "t:f", "space": {"a": [1]}, "resources": resources})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_plan_says_what_a_trial_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.data.decode.available_cpus", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def planned(**resources: Any) -> tuple[int | None, str]:
        found = plan(make(tmp_path, **resources))
        (line,) = [text for text in found.lines() if text.startswith("resources")]
        return found.at_once, line

    assert planned(cpus=2) == (2, "resources  a trial takes 2 CPUs, 1 GPUs; 2 at once on this machine")
    assert planned(cpus=2, gpus=0) == (4, "resources  a trial takes 2 CPUs, 0 GPUs; 4 at once on this machine")
    assert planned(gpus=0.5) == (4, "resources  a trial takes 1 CPUs, 0.5 GPUs; 4 at once on this machine")
    assert planned(gpus=0.5, max_concurrent=3)[0] == 3
    assert planned(workers=3) == (
        2,
        "resources  a trial takes 3 workers, each 1 CPUs, no GPU (one where the cluster has any); "
        "2 at once on this machine",
    )
    assert planned(gpus="auto") == (None, "resources  a trial takes 1 CPUs, a share of a GPU (measured at the start)")


# On Ray, with GPUs that it believes in


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    import ray

    ray.init(
        address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield
    ray.shutdown()


def make(tmp_path: Path, numbers: int = 1, together: int = 1, **resources: Any) -> Any:
    (tmp_path / "meet").mkdir(exist_ok=True)
    options = {"seconds": 0.5, "together": together, "meet": str(tmp_path / "meet")}
    measured = {"footprint": 280 * MIB, "log": str(tmp_path / "log")}
    return parse_study(
        {
            "study": "s",
            "trial": "tests.support.packed:held",
            "space": {"number": list(range(numbers))},
            "settings": {"options": options | measured},
            "resources": resources,
            "storage": str(tmp_path),
        }
    )


def search(config: Any) -> tuple[list[dict[str, Any]], str]:
    text = StringIO()
    assert run.search(config, console=Console(file=text, width=200)) == 0
    records = Journal(Path(config.storage) / "s" / "trials.jsonl").records.values()
    return [record.metrics for record in records], text.getvalue()


def at_once(trials: list[dict[str, Any]]) -> int:
    """The most trials that ran together."""
    return max(sum(t["begun"] <= begun < t["over"] for t in trials) for begun in [t["begun"] for t in trials])


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_two_trials_share_a_gpu(tmp_path: Path) -> None:
    trials, _ = search(make(tmp_path, numbers=4, together=2, gpus=0.5))
    assert len(trials) == 4
    assert at_once(trials) == 2
    assert {(t["gpu"], t["given"]) for t in trials} == {("0", 0.5)}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_max_concurrent_holds_trials_back(tmp_path: Path) -> None:
    trials, _ = search(make(tmp_path, numbers=3, gpus=0.25, max_concurrent=1))
    assert at_once(trials) == 1


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_auto_packs_by_the_footprint_which_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.backend.tune.gpu_memories", lambda: [2000 * MIB, 1000 * MIB])
    trials, text = search(make(tmp_path, numbers=6, together=3, gpus="auto"))
    assert "a trial takes 0.27 GiB of at least 1.0, so 3 share a GPU (gpus: 0.3333)" in text
    assert at_once(trials) == 3
    assert {t["given"] for t in trials} == {0.3333}
    assert (tmp_path / "log").read_text() == "5 1.0\n"  # that with the most MACs, alone on a GPU
    (line,) = [
        text
        for text in plan(make(tmp_path, numbers=6, together=3, gpus="auto")).lines()
        if text.startswith("resources")
    ]
    assert line == "resources  a trial takes 1 CPUs, a share of a GPU (0.27 GiB of its memory, as measured)"
    _, text = search(make(tmp_path, numbers=6, together=3, gpus="auto"))
    assert "so 3 share a GPU" in text
    assert (tmp_path / "log").read_text() == "5 1.0\n"


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_auto_without_a_gpu_stays_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.backend.tune.gpu_memories", list)
    trials, text = search(make(tmp_path, gpus="auto"))
    assert "gpus: auto: the cluster has no GPU, trials stay on the CPU" in text
    assert [(t["gpu"], t["given"]) for t in trials] == [("", 0.0)]
    assert not (tmp_path / "log").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 5}, "no node can hold a trial of 5 CPUs and 0 GPUs; nodes: 4 CPUs, 1 GPUs"),
        ({"gpus": 2}, "no node can hold a trial of 1 CPUs and 2 GPUs"),
    ],
)
def test_what_the_cluster_can_never_hold_is_refused(resources: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        search(make(tmp_path, **resources))
