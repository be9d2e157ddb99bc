"""The setting ``round_to: auto`` of a study, as the number that its machine has."""

from __future__ import annotations

import json

from rssearch.config.schema import StudyConfig
from rssearch.config.space import content_key
from rssearch.storage.artifacts import Store

AUTO, KIND = "auto", "round_to"
_FILE = "round_to.json"


def fixed(config: StudyConfig, store: Store) -> StudyConfig:
    """The study with a number in ``settings.pruning.round_to``; ``auto`` is what is fast on this machine.

    It is what the store knows of machines of this kind, so that keys stay as they are; else it is measured.
    """
    pruning = config.settings.pruning
    if pruning.round_to != AUTO:
        return config
    files = store.get(KIND, _key())
    found = json.loads(files[_FILE])["round_to"] if files else _learned()
    settings = config.settings.model_copy(update={"pruning": pruning.model_copy(update={"round_to": found})})
    return config.model_copy(update={"settings": settings})


def keep(asked: StudyConfig, config: StudyConfig, store: Store) -> None:
    """Have the next sessions find what ``auto`` was.

    Args:
        asked: the study as its YAML is.
        config: the same after `fixed`.
        store: of its storage.
    """
    if asked.settings.pruning.round_to == AUTO and not store.has(KIND, _key()):
        found = json.dumps({"round_to": config.settings.pruning.round_to})
        store.put(KIND, _key(), {_FILE: found.encode()})


def _learned() -> int:
    from rssearch.cost.rounding import learned

    return learned()


def _key() -> str:
    import onnxruntime
    import torch

    from rssearch.cost.latency import device_name

    return content_key({"device": device_name(torch.device("cpu")), "onnxruntime": onnxruntime.__version__})
