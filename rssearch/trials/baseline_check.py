"""What a baseline from given weights reaches: as the study normalises, and as weights are often trained.

A network that was trained elsewhere measures far too low where its images were normalised or scaled in another way, or
its classes were in another order. Each of these is tried on the validation split; `rssearch.trials.reached` says what
follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from rssearch.data import AnySet, loader
from rssearch.data.masks import IGNORE
from rssearch.device import mode, to_memory_format
from rssearch.train.segmentation import confusion
from rssearch.trials import normalisation, tasks
from rssearch.trials.network_trial import NetworkTrial
from rssearch.trials.normalisation import By
from rssearch.trials.reached import Reached, of_matrix, order_text, said

_MOST = 2048  # images that each normalisation is tried on

# What is tried beside the study's own, as a study says it.
SUSPECTS: dict[str, By | None] = {
    "dataset": None,
    "imagenet": By(*normalisation.IMAGENET),
    "none": normalisation.UNCHANGED,
    "{mean: [0.5], std: [0.5]}": By((0.5,), (0.5,)),
    "{mean: [0], std: [0.00392157]}": By((0.0,), (0.00392157,)),
}
# What a network gets that was trained without ToTensor.
MEANINGS = {"{mean: [0], std: [0.00392157]}": "pixels of 0 to 255"}


def reached(model: nn.Module, images: AnySet, normalize: str, by: By | None, device: torch.device) -> Reached:
    """Measure a network on the validation split under one normalisation."""
    split = normalisation.applied(images, by).split("val")
    # Images stand class by class, so the first of many would be of a few classes.
    split = split.part(np.unique(np.linspace(0, len(split) - 1, _MOST).round().astype(np.int64)))
    matrix = torch.zeros(images.num_classes, images.num_classes, dtype=torch.int64)
    confidence = 0.0
    with mode(model.to(device), training=False), torch.inference_mode():
        for x, y in loader.batches(split, 64, device=device, train=False):
            probability, label = model(to_memory_format(x, model)).float().softmax(1).max(1)
            labelled = y != IGNORE if images.task == "segmentation" else torch.ones_like(y, dtype=torch.bool)
            matrix += confusion(label[labelled], y[labelled], images.num_classes).cpu()
            confidence += float(probability[labelled].sum())
    return of_matrix(matrix, confidence / int(matrix.sum()), normalize, tasks.QUALITIES[images.task][0])


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
    found = list(tried(trial, trial.initial_model()))
    text = said(str(point.weights), found, trial.images.classes) if found[0].is_suspicious else None
    return [
        {
            "model": point.model,
            "weights": point.weights,
            "normalize": row.normalize,
            "meaning": MEANINGS.get(row.normalize),
            "metric": row.metric,
            "quality": row.quality,
            "reordered": row.reordered,
            "order": list(row.order),
            "other_order": order_text(row.order, trial.images.classes) if row.is_reordered else None,
            "best": row.best,
            "at_chance": row.at_chance,
            "accuracy": row.accuracy,
            "certainty": row.confidence,
            "warning": text,
        }
        for row in found
    ]


def warning(trial: NetworkTrial, model: nn.Module) -> str | None:
    """What is to be said of a baseline from given weights that measures too low; None where it does not."""
    if trial.plain_images.task == "multilabel":
        return None
    found = tried(trial, model)
    first = next(found)
    if not first.is_suspicious:
        return None
    return said(str(trial.point.weights), [first, *found], trial.images.classes)
