"""What a trial's module and the study have in common: metrics, preparations, and where things lie in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CHECKPOINTS", "CONVERTED", "DEPLOYED", "MEMBERS", "PREDICTIONS", "WEIGHTS", "Metrics", "Preparation"]

Metrics = dict[str, Any]

CHECKPOINTS = "checkpoints"
WEIGHTS = "weights"  # files of weights that a study names, each by the SHA-256 of its bytes
DEPLOYED = "deployed"  # model.onnx in the store under a trial's key, while a device is to measure it
MEMBERS = "members"  # files in the store under a trial's key go into its folder among the study's, and into its run
CONVERTED = "converted.onnx"  # beside the weights of a trial: the model in fewer bits, which was measured
PREDICTIONS = "predictions"  # predictions.png in the store under a trial's key goes into its run and into front.html


@dataclass(frozen=True)
class Preparation:
    """Something that trials share, such as a trained baseline with its scores."""

    key: str
    title: str
    point: dict[str, Any]
    done: bool
    parts: Mapping[str, int] = field(default_factory=dict)  # what it makes, for the plan: {"baselines": 1, "scores": 3}
    epochs: int | None = None  # that it reports; None where that is not known
