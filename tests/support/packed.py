"""Trials that say when, where and with what they ran, for tests of packing and of several workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rssearch.config.space import Point
from rssearch.train.data_parallel import ALONE
from rssearch.trial.session import Session

MIB = 2**20


def held(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """Holds its slot until so many trials have begun, and for a while."""
    import ray

    begun, options = time.time(), session.settings.options
    meeting = Path(options["meet"])
    (meeting / str(config["number"])).touch()
    while len(list(meeting.iterdir())) < options["together"] and time.time() < begun + 120:
        time.sleep(0.05)
    time.sleep(options["seconds"])
    return {
        "val_accuracy": 0.5,
        "macs": float(config["number"]),
        "begun": begun,
        "over": time.time(),
        "gpu": ",".join(map(str, ray.get_gpu_ids())),
        "given": session.context.gpus,
    }


def footprint(config: dict[str, Any], session: Session) -> dict[str, int]:
    """Says what the study asks it to say, and that it was asked."""
    options = session.settings.options
    with Path(options["log"]).open("a") as file:
        file.write(f"{config['number']} {session.context.gpus}\n")
    return {"taken": options["footprint"], "memory": 1000 * MIB}


def cost(point: Point, session: Session) -> dict[str, float]:
    return {"macs": float(point["number"])} if "number" in point else {}


def counted(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """The leader has the others add up what each of them knows."""
    worker_group = session.context.worker_group or ALONE
    for epoch in range(2):
        session.report({"epoch": epoch + 1, "val_accuracy": 0.1 * (epoch + 1)})
    worker_group.call(add_rank, config, offset=10)
    return {"val_accuracy": add_rank(config, session, offset=10), "macs": 1.0, "workers": worker_group.size}


def add_rank(config: dict[str, Any], session: Session, offset: int) -> float:
    """The sum over the workers of their number and an offset."""
    import torch

    worker_group = session.context.worker_group
    assert worker_group is not None
    if (
        config["mode"] == "dies"
        and not worker_group.is_main
        and not (mark := Path(session.settings.options["mark"])).exists()
    ):
        mark.touch()
        _die()
    if config["mode"] == "raises" and not worker_group.is_main:
        raise ValueError("a bug that the second worker meets")
    if config["mode"] == "raises in the leader" and worker_group.is_main:
        raise ValueError("a bug that the leader meets")
    return float(worker_group.total(torch.tensor(float(worker_group.rank + offset))))  # type: ignore[attr-defined]


def _die() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
