"""How many trials share a machine: slots of a cluster, and the share of a GPU that a trial's memory takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from rssearch.config.schema import Resources
from rssearch.storage.artifacts import Store

FOOTPRINTS = "footprints"  # in the store
HEADROOM = 0.1  # of a GPU's memory: larger batches of the same network, and what the allocator cannot use
_UNIT = 10_000  # Ray counts resources in ten-thousandths


def slots(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float, workers: int = 1) -> int:
    """How many trials a cluster can hold at once.

    Args:
        nodes: the resources of each node, as Ray names them: ``{"CPU": 8, "GPU": 2}``.
        cpus: of each worker of a trial.
        gpus: of each worker; of less than one, a GPU is shared by whole workers.
        workers: of a trial; they may lie on several nodes.
    """
    return sum(_workers(node.get("CPU", 0), node.get("GPU", 0), cpus, gpus) for node in nodes) // workers


def _workers(cpus_there: float, gpus_there: float, cpus: float, gpus: float) -> int:
    # Ray's own unit keeps 3 * 0.1 from being more than 0.3.
    by_cpu = round(cpus_there * _UNIT) // round(cpus * _UNIT)
    if gpus == 0:
        return by_cpu
    by_gpu = int(gpus_there) * (_UNIT // round(gpus * _UNIT)) if gpus < 1 else int(gpus_there // gpus)
    return min(by_cpu, by_gpu)


def fraction(footprint: int, memory: int, headroom: float = HEADROOM) -> float:
    """The share of a GPU for one trial: 1/k for the largest k trials that fit, and 1 where not even one surely does.

    Args:
        footprint: bytes that a trial takes of a GPU's memory, with what CUDA itself takes.
        memory: bytes of the smallest GPU.
        headroom: share of the memory that is left free.

    Returns:
        Not more than 1/k, in the ten-thousandths that Ray counts in, so that k of them make no more than a GPU.
    """
    together = max(1, int(memory * (1 - headroom)) // max(1, footprint))
    return math.floor(_UNIT / min(together, _UNIT)) / _UNIT


def recorded(store: Store, keys: Iterable[str]) -> int | None:
    """The largest footprint among those that the store has; None unless it has all of them, and one at least."""
    found = [store.get(FOOTPRINTS, key) for key in keys]
    taken = [int(json.loads(files["footprint.json"])["taken"]) for files in found if files is not None]
    return max(taken) if taken and len(taken) == len(found) else None


def default_share(nodes: Sequence[Mapping[str, float]], resources: Resources) -> float:
    """The GPUs of a worker where the study says null: one if the cluster can hold a trial of such workers, else 0."""
    return float(slots(nodes, resources.cpus, 1, resources.workers) > 0)


def describe_use(nodes: Sequence[Mapping[str, float]], resources: Resources) -> str | None:
    """How many GPUs the trials use and how many are idle, in a line; None where there is none.

    Args:
        nodes: the resources of each node.
        resources: of a trial, with the GPUs that it takes by now; null where they are 0 by default.
    """
    there, share = int(sum(node.get("GPU", 0) for node in nodes)), resources.share
    if not there:
        return None
    if share == 0:
        why = "none are asked for" if resources.gpus == 0 else "they cannot hold a trial with its CPUs and workers"
        return f"GPUs: {there}, all idle: {why}"
    room = slots(nodes, resources.cpus, share, resources.workers)
    at_once = min(room, resources.max_concurrent or room)
    used = math.ceil(at_once / (_UNIT // round(share * _UNIT))) if share < 1 else at_once * resources.workers * share
    idle = there - int(used)
    limit = "max_concurrent" if at_once < room else "the nodes' CPUs, or by parts of GPUs"
    each = f"{resources.workers} workers of {share:g}" if resources.workers > 1 else f"{share:g}"
    return f"GPUs: {there}; trials at once: {at_once}, each takes {each}; " + (
        f"idle: {idle} (limited by {limit})" if idle else "none is idle"
    )


def describe_share(share: float, taken: int | None, memories: Sequence[int]) -> str:
    """What ``gpus: auto`` came to, in a line."""
    if not memories:
        return "gpus: auto: the cluster has no GPU, trials stay on the CPU"
    if taken is None:
        return "gpus: auto: the memory of a trial is not known, each takes a whole GPU"
    size = f"a trial takes {taken / 2**30:.2f} GiB of at least {min(memories) / 2**30:.1f}"
    return f"gpus: auto: {size}, so {int(1 / share)} share a GPU (gpus: {share:g})"
