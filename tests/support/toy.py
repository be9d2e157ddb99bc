"""Trials without networks, for tests of the machinery: module ``tests.support.toy``."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from rssearch.config.space import Point
from rssearch.errors import InputError, TrialFailed
from rssearch.trial.interface import PREDICTIONS, Preparation
from rssearch.trial.session import Session

EPOCH_METRICS = ("val_accuracy",)


def plain(config: dict[str, Any]) -> dict[str, float]:
    """A plain trainable that returns its metrics."""
    return {"val_accuracy": 1 - config["rate"] ** 2, "macs": 100 * (1 - config["rate"])}


def reporting(config: dict[str, Any]) -> None:
    """A plain trainable that reports."""
    from ray import tune

    for epoch in range(3):
        tune.report({"val_accuracy": (epoch + 1) / 4, "macs": 100 * (1 - config["rate"])})


def lasting(config: dict[str, Any]) -> dict[str, float]:
    """Takes ten seconds: within them a busy machine has started a worker on another node."""
    time.sleep(10)
    return plain(config)


def deleting(config: dict[str, Any], session: Session) -> dict[str, float]:
    """Somebody deletes the storage while it runs; then it ends, or goes on for ever."""
    while Path(session.context.storage).exists():
        shutil.rmtree(session.context.storage, ignore_errors=True)
    if config["then"] == "saves":
        session.save_checkpoint(b"state")
    while config["then"] == "lasts":
        time.sleep(0.1)
    return {"val_accuracy": 0.5, "macs": 1.0}


def quoting(config: dict[str, Any]) -> dict[str, float]:
    """Fails with a text that quotes a URI of its options, and writes the same to the log."""
    hook = config["settings"]["options"]["hook"]
    logging.getLogger("rssearch").warning("asking %s", hook)
    raise ValueError(f"{hook}/job: refused for 'hook-token'")


def failing(config: dict[str, Any]) -> dict[str, float]:
    """Fails in four ways."""
    match config["mode"]:
        case "raises":
            raise ValueError("a bug in the trial")
        case "diverges":
            raise TrialFailed("the loss is nan in epoch 2")
        case "nan":
            return {"val_accuracy": float("nan"), "macs": 1.0}
        case "lacks":
            return {"macs": 1.0}
    return {"val_accuracy": 0.5, "macs": 1.0}


def dying(config: dict[str, Any], session: Session) -> dict[str, float]:
    """Its worker is killed in the first epoch after a checkpoint, `deaths` times in a row."""
    before = int(session.load_checkpoint() or b"0")
    if before < config["deaths"]:
        session.save_checkpoint(str(before + 1).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    return {"val_accuracy": float(before), "macs": 1.0}


def slow(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """Epochs of a fixed length with a checkpoint each; writes down every epoch that it runs.

    With the option `gate` it waits in its third epoch until that file exists.
    """
    options = session.settings.options
    log = Path(options["log"])
    state = session.load_checkpoint()
    done = int(state) if state else 0
    for epoch in range(done + 1, options["epochs"] + 1):
        time.sleep(options["seconds"])
        while epoch == 3 and "gate" in options and not Path(options["gate"]).exists():
            time.sleep(0.1)
        with log.open("a") as file:
            file.write(f"{session.key} {epoch} {os.getpid()}\n")
        session.save_checkpoint(str(epoch).encode())
        session.report({"epoch": epoch, "val_accuracy": config["rate"] * epoch})
    return {"val_accuracy": config["rate"], "macs": 1 - config["rate"], "resumed_from": done}


def counted(config: dict[str, Any], session: Session) -> dict[str, float]:
    """Three epochs, each with its accuracy and a checkpoint; where there is a log, it says which process ran it."""
    for epoch in range(1, 4):
        session.save_checkpoint(b"state")
        if "log" in session.settings.options:
            with Path(session.settings.options["log"]).open("a") as file:
                file.write(f"{config['rate']} {epoch} {os.getpid()}\n")
        session.report({"epoch": epoch, "val_accuracy": config["rate"] * epoch / 3})
    return plain(config)


def hungry(config: dict[str, Any]) -> dict[str, float]:
    """Takes 32 MiB of tensors, some of them in a cycle, and says how much memory its process holds."""
    import psutil
    import torch

    tensors = [torch.ones(1 << 20) for _ in range(8)]
    cycle: dict[str, Any] = {"tensors": tensors}
    cycle["self"] = cycle
    total = float(sum(t.sum() for t in tensors))
    del tensors, cycle
    return {"val_accuracy": total, "macs": float(config["index"]), "rss": psutil.Process().memory_info().rss}


def cramped(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """Trains a network that runs out of memory with more than `limit` images at a time; batches have 16."""
    import torch

    from rssearch.config.settings import Recipe
    from rssearch.train import TrainContext, fit
    from tests.support.training import image_set, network

    def limited(_: Any, inputs: tuple[Any, ...]) -> None:
        if len(inputs[0]) > config["limit"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model, data = network(), image_set()
    model.register_forward_pre_hook(limited)
    history = fit(
        model,
        data.split("train"),
        data.split("val"),
        Recipe(epochs=2, batch_size=16, lr=0.1),
        augment=None,
        context=TrainContext(torch.device("cpu"), micro_batches=session.micro_batches),
        on_epoch=lambda record, _: session.report(record),
    )
    return {"val_accuracy": history[-1]["val_accuracy"], "macs": float(config["limit"])}


def greedy(config: dict[str, Any], session: Session) -> dict[str, float]:
    """Takes memory until it is killed, at most `most` GiB, unless it trains in micro-batches."""
    taken = []
    for _ in range(4 * config["most"] if session.micro_batches == 1 else 1):
        taken.append(b"x" * (256 << 20))
        time.sleep(0.1)
    return {"val_accuracy": 0.5, "macs": float(len(taken))}


# A trial with all hooks: a "baseline" for each group, a cost, a measurement.


def check(point: Point, settings: Any) -> None:
    if point.get("group") == "refused":
        raise InputError("space.group: 'refused' is not allowed")


def preparations(points: list[Point], settings: Any, data_root: Path, store: Any) -> list[Preparation]:
    groups = sorted({str(p["group"]) for p in points if "group" in p})
    return [
        Preparation(f"baseline-{g}", f"baseline {g}", {"group": g}, done, {"baselines": int(not done)})
        for g in groups
        for done in [store.has("toys", g)]
    ]


def _sign(session: Session, function: str) -> None:
    """Write down which process calls a function, where the study asks for it."""
    if log := session.settings.options.get("signed"):
        with Path(log).open("a") as file:
            file.write(f"{function} {os.getpid()}\n")


def prepare(config: dict[str, Any], session: Session) -> dict[str, float]:
    _sign(session, "prepare")
    if config["group"] == "bad":
        raise TrialFailed("the loss is nan in epoch 1")
    session.report({"epoch": 1, "val_accuracy": 0.5})
    session.store.get_or_build("toys", config["group"], lambda: {"value.txt": b"2"})
    return {"val_accuracy": 0.5}


def cost(point: Point, session: Session) -> dict[str, float]:
    rate = point.get("rate")
    return {"macs": 100 * (1 - rate), "macs_ratio": 1 - rate} if isinstance(rate, float) and "group" in point else {}


def grouped(config: dict[str, Any], session: Session) -> dict[str, float]:
    _sign(session, "grouped")
    value = session.store.get_or_build("toys", config["group"], lambda: {"value.txt": b"2"})
    return {"val_accuracy": float(value["value.txt"]) - config["rate"], "macs": 100 * (1 - config["rate"])}


def measure(config: dict[str, Any], session: Session) -> dict[str, float]:
    _sign(session, "measure")
    if "picture" in config:
        session.store.put(
            PREDICTIONS, session.key, {"predictions.png": f"{config['picture']} {config['rate']}".encode()}
        )
    return {"test_accuracy": 0.25}
