"""Several workers of one trial, on Ray Train."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from rssearch.errors import PeerLostError
from rssearch.storage import scratch
from rssearch.train.data_parallel import DistributedWorkerGroup

_PATIENCE = 30 * 24 * 3600  # seconds: the others wait while the main one scores or searches; Ray notices who dies


def launch(
    work: Callable[[DistributedWorkerGroup, Callable[[Any], None]], Any],
    on_report: Callable[[Any], None],
    *,
    workers: int,
    cpus: float,
    gpus: float,
) -> Any:
    """Run a function on new workers of the Ray cluster by Ray Train, as part of a trial of Ray Tune.

    Args:
        work: called on each worker with its worker group, and with what passes a report on to `on_report`; can be
            pickled.
        on_report: called here, with each report in turn, while the workers run.
        workers: how many.
        cpus: of each worker.
        gpus: of each worker; on GPUs NCCL connects them, else gloo.

    Returns:
        What the function returns on the main worker.

    Raises:
        PeerLostError: a worker died.
        Exception: what the function raised, on the main one if it did.
    """
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean the same on a worker
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Empty, Queue

    reports = Queue(actor_options={"num_cpus": 0})
    with scratch.folder("rssearch-workers-") as folder:  # Ray Train wants a place; nothing is kept
        trainer = TorchTrainer(
            lambda: work(DistributedWorkerGroup(), reports.put),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, "GPU": gpus}
            ),
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus > 0 else "gloo", timeout_s=_PATIENCE),
            run_config=RunConfig(name="trial", storage_path=str(folder)),
        )
        with ThreadPoolExecutor(1, thread_name_prefix="ray train") as pool:
            running: Future[Any] = pool.submit(trainer.fit)
            while not running.done() or not reports.empty():
                with suppress(Empty):
                    on_report(reports.get(timeout=1))
    reports.shutdown()
    try:
        return running.result().return_value
    except TrainingFailedError as error:
        raise _cause(getattr(error, "worker_failures", {}), error) from error


def _cause(failures: Mapping[int, BaseException], error: Exception) -> BaseException:
    """What the main worker raised, or else another worker; but a worker's death explains what the others raised."""
    raised = [failure for _, failure in sorted(failures.items())]
    if raised and not any(type(failure).__module__.startswith("ray.") for failure in raised):
        return raised[0]
    return PeerLostError(f"a worker of the trial died: {str(error).strip().splitlines()[-1]}")
