"""Measuring a network on images, or on patches of scenes, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rssearch.data import loader
from rssearch.device import Precision, autocast, mode, to_memory_format
from rssearch.errors import InputError
from rssearch.scores import Scores
from rssearch.train.multilabel import LabelScores, LabelTally
from rssearch.train.tally import Tally

if TYPE_CHECKING:
    from rssearch.data import AnyDataset

__all__ = ["Batches", "evaluate", "evaluate_batches", "measured"]

Batches = Iterable[tuple[Tensor, Tensor]]  # images [B, C, H, W] and labels [B] or masks [B, H, W]
OnBatch = Callable[[Tensor], None]


def evaluate(
    model: nn.Module,
    dataset: AnyDataset,
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision = "auto",
    per_class: Sequence[str] = (),
) -> dict[str, float]:
    """Measure a network in evaluation mode; the mode of the model is restored.

    Returns:
        loss (cross entropy), macro_f1, balanced_accuracy, kappa, ece (see `rssearch.scores`), and accuracy (top 1, in
        [0, 1]); for segmentation miou, pixel_accuracy, and miou_foreground where there is a background, all over the
        labelled pixels of the patches; for images with several labels map, macro_f1 and micro_f1, see
        `rssearch.train.multilabel`. `rssearch.train.segmentation.evaluate_scenes` measures whole scenes. Of
        `per_class` each name, such as recall_water; NaN where it is not defined.

    Raises:
        TrialFailed: the loss is NaN or infinite, so that the accuracy would mean nothing.
        InputError: the dataset has no images, or no labelled pixel.
    """
    scores = measured(model, dataset, batch_size=batch_size, device=device, precision=precision)
    return scores.metrics(per_class)


def measured(
    model: nn.Module,
    dataset: AnyDataset,
    *,
    batch_size: int,
    device: torch.device,
    precision: Precision = "auto",
    on_logits: OnBatch | None = None,
) -> Scores | LabelScores:
    """As `evaluate`, what was counted: of single labels with the confusion matrix.

    `on_logits` gets the logits of each batch [B, K, ...].
    """
    if not len(dataset):
        raise InputError("there are no images to measure the network on: give that split a larger share")
    batches = loader.batches(dataset, batch_size, device=device, train=False)
    if dataset.task == "multilabel":
        several = LabelTally()
        _count(several, model, batches, device, precision, on_logits)
        return several.scores(dataset.classes)
    masks = dataset.task == "segmentation"
    tally = Tally(dataset.num_classes if masks else None, device, masks=masks)
    _count(tally, model, batches, device, precision, on_logits)
    return tally.scores(dataset.classes)


def evaluate_batches(
    model: nn.Module, batches: Batches, *, classes: int | None, device: torch.device, precision: Precision = "auto"
) -> dict[str, float]:
    """As `evaluate`, of batches that are on the device, one at least; `classes` of masks, None for labels."""
    tally = Tally(classes, device, masks=classes is not None)
    _count(tally, model, batches, device, precision, None)
    return tally.metrics()


def _count(
    tally: Tally | LabelTally,
    model: nn.Module,
    batches: Batches,
    device: torch.device,
    precision: Precision,
    on_logits: OnBatch | None,
) -> None:
    with mode(model, training=False), torch.inference_mode(), autocast(device, precision):
        for x, y in batches:
            logits = model(to_memory_format(x, model))
            tally.add(logits, y)
            if on_logits is not None:
                on_logits(logits)
