"""How well a network recognises images that have several labels: mean average precision, and F1 at a threshold.

The average precision of a class is the area under its precision-recall curve as scikit-learn defines it: the sum over
the thresholds of the precision times the recall that is gained there, without interpolation. Its mean is over the
classes that some image has. F1 counts what has a probability of at least `THRESHOLD`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rssearch.errors import TrialFailed
from rssearch.scores import PerClass
from rssearch.train import losses

__all__ = ["THRESHOLD", "LabelScores", "LabelTally", "average_precision"]

THRESHOLD = 0.5
Floats = npt.NDArray[np.float64]


def average_precision(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Of one class, [N] each; images of one score come in together. NaN where no image has the class."""
    positives = int(truth.sum())
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], np.cumsum(truth[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    gained = np.diff(right[last], prepend=0) / positives
    return float((gained * right[last] / (last + 1)).sum())


@dataclass(frozen=True)
class LabelScores:
    """What an evaluation has found.

    Attributes:
        classes: K names.
        per_class: images that have each class, that were given it, and both.
        precisions: float64 [K], average precision; NaN where no image has the class.
        loss: mean binary cross entropy over images and classes.
    """

    classes: tuple[str, ...]
    per_class: PerClass
    precisions: Floats
    loss: float

    @cached_property
    def micro_f1(self) -> float:
        """F1 of all pairs of image and class together; NaN where there is none, neither labelled nor predicted."""
        counted = self.per_class
        total = int(counted.true.sum() + counted.predicted.sum())
        return 2 * int(counted.right.sum()) / total if total else float("nan")

    def metrics(self, names: Iterable[str] = ()) -> dict[str, float]:
        """The loss, map, macro_f1, micro_f1, and metrics of single classes by name, such as ``recall_water``."""
        known = self.precisions[~np.isnan(self.precisions)]
        single = {}
        for name in names:
            kind, _, of = name.partition("_")
            value = self.per_class.value(kind, of)
            single[name] = float("nan") if value is None else value
        return {
            "loss": self.loss,
            "map": float(known.mean()) if known.size else float("nan"),
            "macro_f1": self.per_class.macro_f1,
            "micro_f1": self.micro_f1,
            **single,
        }


class LabelTally:
    """Probabilities and labels of many batches; ranks need all of them."""

    def __init__(self) -> None:
        self.probabilities: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.loss = torch.zeros((), dtype=torch.float64)
        self._images = 0

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Note a batch: logits [B, K], labels float32 [B, K] of 0 and 1."""
        self.loss = self.loss.to(logits.device)
        self.loss += losses.cross_entropy(logits, targets) * len(targets)
        self._images += len(targets)
        self.probabilities.append(logits.float().sigmoid())
        self.targets.append(targets)

    def scores(self, classes: Sequence[str]) -> LabelScores:
        """What was found, with the names of the classes.

        Raises:
            TrialFailed: the loss is NaN or infinite, so that the others would mean nothing.
        """
        loss = self.loss.item() / max(self._images, 1)
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss on {self._images} images outside the training is {loss}")
        probabilities = torch.cat(self.probabilities).cpu().numpy()
        truth = torch.cat(self.targets).cpu().numpy() > THRESHOLD
        given = probabilities >= THRESHOLD
        names = (*classes, *(f"class_{number}" for number in range(len(classes), truth.shape[1])))
        counts = (values.sum(0, dtype=np.int64) for values in (truth, given, truth & given))
        precisions = [average_precision(*columns) for columns in zip(truth.T, probabilities.T, strict=True)]
        return LabelScores(names, PerClass(names, *counts), np.array(precisions, dtype=np.float64), loss)
