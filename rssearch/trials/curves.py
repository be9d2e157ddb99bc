"""Trials that train nothing and follow learning curves, for studies in virtual time (`rssearch.study.simulation`).

`synthetic` makes curves up. Its dimensions are ``rate`` (the share of the channels that is removed), ``method`` (its
first letters, a to d, are worth less and less) and ``lr``, all optional, and ``seed``. `recorded` repeats those of a
study that has been run: ``settings.options.journal`` names its trials.jsonl, and the space must be the same.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rssearch.config.settings import Settings
from rssearch.config.space import content_key
from rssearch.errors import TrialFailed
from rssearch.storage.journal import Journal
from rssearch.storage.records import Status, TrialRecord
from rssearch.trial.session import Session

Config = dict[str, Any]
Metrics = dict[str, Any]

EPOCH_METRICS = ("val_accuracy", "val_miou")
MACS = 40_000_000  # of the unpruned network, as ResNet-20 at 32 pixels
CLASSES = 10
CHANCE = 1 / CLASSES
NOISE = 0.004  # standard deviation of the accuracy from epoch to epoch
COST = ("macs", "params", "macs_ratio", "params_ratio")


def epochs(point: Config, settings: Settings) -> int:
    """How many epochs a trial reports."""
    if (path := settings.options.get("journal")) is not None:
        return len(_record(path, point).history)
    return settings.train.epochs


def cost(point: Config, session: Session) -> Metrics:
    """MACs, which fall with the square of the channels that are kept."""
    if (path := session.settings.options.get("journal")) is not None:
        metrics = _record(path, point).metrics
        return {name: metrics[name] for name in COST if name in metrics}
    kept = (1 - float(point.get("rate", 0.0))) ** 2
    return {"macs": round(MACS * kept), "macs_ratio": kept}


def unpruned(point: Config, session: Session) -> Metrics:
    """What hypervolumes are measured from: the unpruned network, and chance where the curves are synthetic."""
    if (path := session.settings.options.get("journal")) is not None:
        metrics = _record(path, point).metrics
        return {name: value for name, value in metrics.items() if name == "classes" or name.startswith("baseline_")}
    return {"classes": CLASSES, "baseline_macs": MACS}


def synthetic(config: Config, session: Session) -> Metrics:
    """A power law with noise.

    The final accuracy rises with the MACs, less and less, and falls with the distance of the learning rate from 0.1.
    Smaller networks and higher learning rates get there sooner, so that curves cross.
    """
    point = {name: value for name, value in config.items() if name != "settings"}
    known, total = cost(point, session), session.settings.train.epochs
    decades = abs(math.log10(float(point.get("lr", 0.1))) + 1)
    place = "abcd".find(str(point.get("method", "a"))[0])
    top = 0.97 - 0.05 * known["macs_ratio"] ** -0.4 - 0.03 * max(0, place) - 0.05 * decades**2
    top = max(CHANCE, top)
    half = (0.3 + known["macs_ratio"]) * 2 ** (decades if point.get("lr", 0.1) < 0.1 else -decades)
    rng = np.random.default_rng(int(content_key(point)[:12], 16))
    noise = NOISE * rng.standard_normal(total)
    history = [
        {
            "epoch": epoch,
            "val_accuracy": top - (top - CHANCE) * (1 + epoch / half) ** -1.5 + float(noise[epoch - 1]),
            "seconds": 2 + 20 * known["macs_ratio"],
        }
        for epoch in range(1, total + 1)
    ]
    for epoch in history:
        session.report(epoch)
    quality = history[-1]["val_accuracy"] if history else CHANCE
    return {"val_accuracy": quality, **known, "baseline_macs": MACS, "history": history}


def recorded(config: Config, session: Session) -> Metrics:
    """The epochs and the end of the trial of the same point in another study's journal.

    Raises:
        TrialFailed: it has no such trial, or that did not finish.
    """
    point = {name: value for name, value in config.items() if name != "settings"}
    record = _record(session.settings.options["journal"], point)
    for epoch in record.history:
        session.report(epoch)
    return {**record.metrics, "history": list(record.history)}


def _record(path: str, point: Config) -> TrialRecord:
    found = _records(path).get(json.dumps(point, sort_keys=True))
    if found is None:
        raise TrialFailed(f"{path} has no finished trial of {point}")
    return found


@lru_cache(maxsize=4)
def _records(path: str) -> dict[str, TrialRecord]:
    records = Journal(Path(path)).records.values()
    return {json.dumps(r.point, sort_keys=True): r for r in records if r.status is Status.FINISHED}
