"""Whether a baseline from given weights reaches what it should: what is measured of it, and the usual suspects.

A network that was trained elsewhere measures far too low where its images were normalised or scaled in another way, or
its classes were in another order. Each of these is tried on the validation split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from rssearch.data import AnySet, loader
from rssearch.data.masks import IGNORE
from rssearch.device import mode, to_memory_format
from rssearch.trials import normalisation
from rssearch.trials.network_trial import NetworkTrial
from rssearch.trials.normalisation import By

_MOST = 2048  # images that each normalisation is tried on
_OVERCONFIDENT = 0.2  # more certain than right by so much: no network is that on images like those it was trained on
_BETTER = 0.1  # what another normalisation or order has to gain to be named

# What is tried beside the study's own; values of 0 to 255 are what a network gets that was trained without ToTensor.
SUSPECTS: dict[str, By | None] = {
    "dataset": None,
    "imagenet": By(*normalisation.IMAGENET),
    "none": normalisation.UNCHANGED,
    "{mean: [0.5], std: [0.5]}": By((0.5,), (0.5,)),
    "{mean: [0], std: [0.003922]}": By((0.0,), (1 / 255,)),
}


class Reached(NamedTuple):
    """What a network reaches on a split, or on images spread over a large one, under one normalisation.

    Attributes:
        normalize: as a study says it.
        accuracy: of images, or of labelled pixels.
        confidence: mean of the largest probability.
        reordered: the accuracy with the order of the classes that fits best.
        chance: what the most frequent class alone reaches.
        measured: images, or labelled pixels.
    """

    normalize: str
    accuracy: float
    confidence: float
    reordered: float
    chance: float
    measured: int

    @property
    def at_chance(self) -> bool:
        """Whether it is no better than three standard deviations above naming the most frequent class."""
        return self.accuracy <= self.chance + 3 * math.sqrt(self.chance * (1 - self.chance) / self.measured)

    @property
    def is_suspicious(self) -> bool:
        """Whether it is at chance, or far below what its own certainty suggests."""
        return self.at_chance or self.accuracy < self.confidence - _OVERCONFIDENT


def reached(model: nn.Module, images: AnySet, normalize: str, by: By | None, device: torch.device) -> Reached:
    """Measure a network on the validation split under one normalisation."""
    split = normalisation.applied(images, by).split("val")
    # Images stand class by class, so the first of many would be of a few classes.
    split = split.part(np.unique(np.linspace(0, len(split) - 1, _MOST).round().astype(np.int64)))
    confusion = torch.zeros(images.num_classes, images.num_classes, dtype=torch.int64)
    confidence, count = 0.0, 0
    with mode(model.to(device), training=False), torch.inference_mode():
        for x, y in loader.batches(split, 64, device=device, train=False):
            probability, label = model(to_memory_format(x)).float().softmax(1).max(1)
            labelled = y != IGNORE if images.task == "segmentation" else torch.ones_like(y, dtype=torch.bool)
            confusion += _counts(y[labelled], label[labelled], images.num_classes).cpu()
            confidence += float(probability[labelled].sum())
            count += int(labelled.sum())
    table = confusion.numpy()
    rows, columns = linear_sum_assignment(-table)
    return Reached(
        normalize=normalize,
        accuracy=float(np.trace(table)) / count,
        confidence=confidence / count,
        reordered=float(table[rows, columns].sum()) / count,
        chance=float(table.sum(1).max()) / count,
        measured=count,
    )


def _counts(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def tried(trial: NetworkTrial, model: nn.Module) -> Iterator[Reached]:
    """What a network reaches as the study normalises, and then under each of `SUSPECTS`.

    Those that fit the number of bands.
    """
    images, own = trial.plain_images, normalisation.of_point(trial.point)
    yield reached(model, images, normalisation.name_of(trial.point), own, trial.device)
    for name, by in SUSPECTS.items():
        if by != own and (by is None or len(by.mean) in (1, images.input_shape[0])):
            yield reached(model, images, name, by, trial.device)


def rows(trial: NetworkTrial) -> list[dict[str, Any]]:
    """A row for each normalisation, the study's own first; empty where the trial begins with no given weights."""
    point = trial.point
    if point.weights is None or trial.plain_images.task == "multilabel":  # whose certainty says nothing of one label
        return []
    model = trial.initial_model()
    found = list(tried(trial, model))
    said = _said(trial, found[0], found[1:]) if found[0].is_suspicious else None
    return [
        {
            "model": point.model,
            "weights": point.weights,
            "normalize": row.normalize,
            "accuracy": row.accuracy,
            "certainty": row.confidence,
            "reordered": row.reordered,
            "warning": said,
        }
        for row in found
    ]


def warning(trial: NetworkTrial, model: nn.Module) -> str | None:
    """What is to be said of a baseline from given weights that measures too low; None where it does not."""
    if trial.plain_images.task == "multilabel":
        return None
    found = tried(trial, model)
    first = next(found)
    return _said(trial, first, found) if first.is_suspicious else None


def _said(trial: NetworkTrial, first: Reached, found: Iterable[Reached]) -> str:
    state = "at chance" if first.at_chance else f"while it is {first.confidence:.0%} certain of them"
    best = max(found, key=lambda other: other.accuracy)
    suspects = [_normalisation(first, best), _order(first), "scaling: pixels of another depth or unit"]
    return (
        f"the weights {trial.point.weights} reach {first.accuracy:.1%} of the validation images, {state}. The usual "
        f"suspects: {'; '.join(suspects)}"
    )


def _normalisation(first: Reached, best: Reached) -> str:
    if best.accuracy < first.accuracy + _BETTER:
        return f"normalisation (now {first.normalize}; none of {', '.join(SUSPECTS)} gives more)"
    return f"normalisation (now {first.normalize}; with settings.normalize: {best.normalize} it is {best.accuracy:.1%})"


def _order(first: Reached) -> str:
    if first.reordered < first.accuracy + _BETTER:
        return "class order (no other order gives more)"
    return f"class order (with the classes in another order it is {first.reordered:.1%})"
