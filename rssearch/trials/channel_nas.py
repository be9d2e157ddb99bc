"""One trial of a channel search: `trials.prune` with the method ``channel_nas``, which need not be named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rssearch.config.settings import Settings
from rssearch.storage.artifacts import Store
from rssearch.trial.interface import Preparation
from rssearch.trial.session import Session
from rssearch.trials import prune
from rssearch.trials.point import CHANNEL_NAS

Config = dict[str, Any]
Metrics = dict[str, Any]

METRICS, ON_REQUEST, MEASURED = prune.METRICS, prune.ON_REQUEST, prune.MEASURED
PER_CLASS, classes = prune.PER_CLASS, prune.classes
check_search = prune.check_search
share = prune.share
prepare = prune.prepare


def _named(point: Config) -> Config:
    return {**point, "method": CHANNEL_NAS}


def check(point: Config, settings: Settings) -> None:
    """Refuse a point that cannot be run. Raises InputError."""
    prune.check(_named(point), settings)


def identity(point: Config, settings: Settings, data_root: Path) -> Config:
    """What determines a trial besides its point and settings."""
    return prune.identity(_named(point), settings, data_root)


def peers(point: Config, settings: Settings) -> str:
    """Whose epochs can be compared."""
    return prune.peers(_named(point), settings)


def preparations(points: Iterable[Config], settings: Settings, data_root: Path, store: Store) -> list[Preparation]:
    """The baselines and the searches that the points need."""
    return prune.preparations([_named(point) for point in points], settings, data_root, store)


def run(config: Config, session: Session) -> Metrics:
    """Derive a network from the search, fine-tune it, and measure it."""
    return {"method": CHANNEL_NAS, **prune.run(_named(config), session)}


def cost(point: Config, session: Session) -> Metrics:
    """MACs and parameters of the derived network, once it has been searched."""
    return prune.cost(_named(point), session)


def describe(point: Config, session: Session) -> str:
    """What a point's images are made of, and what becomes of their values."""
    return prune.describe(_named(point), session)


def unpruned(point: Config, session: Session) -> Metrics:
    """What hypervolumes are measured from."""
    return prune.unpruned(_named(point), session)


def measure(config: Config, session: Session) -> Metrics:
    """Quality on the test split, and latencies alone on the machine."""
    return prune.measure(_named(config), session)


def deploy(config: Config, session: Session) -> Metrics:
    """Put the trained network as an ONNX file into the store."""
    return prune.deploy(_named(config), session)


def estimate(point: Config, session: Session, epochs: int) -> float:
    """Seconds of training on this machine."""
    return prune.estimate(_named(point), session, epochs)
