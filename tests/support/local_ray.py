"""One Ray of two CPUs for all modules of a process that can share it: a module names the fixture ``local_ray``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest

from tests.support import forked


def _end() -> None:
    if "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            ray.shutdown()


@pytest.fixture(autouse=True, scope="module")
def _no_other_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ray ends with the module that started it, and the shared one before a module that does not share it."""
    own = [item for item in request.session.items if getattr(item, "module", None) is request.module]
    if any(item.get_closest_marker("ray") for item in own):
        forked.fork_ray_workers(forked.ray_workers())
    if any("local_ray" in getattr(item, "fixturenames", ()) for item in own):
        yield
        return
    _end()
    yield
    _end()


def _is_free() -> bool:
    """Whether nobody holds a CPU: when many drivers end at once, Ray may keep the share of a worker for good."""
    import ray

    deadline = time.monotonic() + 5
    while (free := ray.available_resources().get("CPU", 0)) < ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            print(f"of the CPUs of Ray {free:g} are free: another one is started")
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def local_ray(_no_other_ray: None) -> str:
    """The address of a Ray with two CPUs. It stays for the next module that shares it."""
    import ray

    if ray.is_initialized() and not _is_free():
        _end()
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(autouse=True, scope="session")
def _ray_ends() -> Iterator[None]:
    yield
    _end()
