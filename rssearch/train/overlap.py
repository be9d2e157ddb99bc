"""Losses of masks by how far prediction and label overlap: Dice and Lovasz-softmax, of each image by itself.

Both are computed for each image, and averaged with the image's labelled pixels as its weight: the plain mean over the
images wherever all pixels have a label. So the loss of a batch is the same from any parts of it (micro-batches, shares
of several workers), which an overlap of the whole batch's pixels would not be, and it can be added to the losses of
pixels. Within an image it is the mean over the classes that its mask has, with weights [K] of the classes a weighted
one, as in MONAI's DiceLoss. Pixels of the class `rssearch.data.IGNORE` count nowhere; an image without others counts 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rssearch.data import IGNORE

__all__ = ["dice", "lovasz"]


def dice(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Soft Dice loss, 1 - 2 sum(p y) / (sum(p) + sum(y)) of each class (Milletari et al. 2016, Drozdzal et al. 2016).

    Args:
        logits: [N, K, ...].
        targets: int64 [N, ...].
        weight: float32 [K] of the classes; None: all the same.
    """
    probability, truth, valid = _flat(logits, targets)
    hits, sizes = (probability * truth).sum(2), (probability + truth).sum(2)
    there = truth.any(2)
    return _mean(1 - 2 * hits / sizes.where(there, 1), there, valid, weight)


def lovasz(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Lovasz-softmax loss: a convex surrogate of 1 - IoU of each class (Berman et al., CVPR 2018, alg. 1 and eq. 11).

    Args:
        logits: [N, K, ...].
        targets: int64 [N, ...].
        weight: float32 [K] of the classes; None: all the same.
    """
    probability, truth, valid = _flat(logits, targets)
    # Pixels without a label come last, where they change neither the order nor the sums of the others.
    errors = (truth - probability).abs().where(valid[:, None], -1)
    ordered, order = errors.sort(dim=2, descending=True, stable=True)
    hit = truth.gather(2, order).long()  # sums of integers are exact, and the same in any order
    total = hit.sum(2, keepdim=True)
    missed = total - hit.cumsum(2)
    union = total + (1 - hit).cumsum(2)
    jaccard = 1 - missed.float() / union.float()
    slope = torch.cat([jaccard[..., :1], jaccard.diff(dim=2)], 2)
    return _mean((ordered.clamp_min(0) * slope).sum(2), truth.any(2), valid, weight)


def _flat(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities and truth, float32 [N, K, P], 0 where there is no label; and whether there is one, [N, P]."""
    valid = (targets != IGNORE).flatten(1)
    probability = F.softmax(logits.float(), dim=1).flatten(2) * valid[:, None]
    labels = targets.flatten(1).where(valid, 0)
    truth = torch.zeros_like(probability).scatter_(1, labels[:, None], 1) * valid[:, None]
    return probability, truth, valid


def _mean(values: Tensor, there: Tensor, valid: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of values [N, K] over the classes that are there, and then over the images by their pixels."""
    shares = there.float() if weight is None else there * weight
    images = (values * shares).sum(1) / shares.sum(1).where(there.any(1), 1)
    pixels = valid.sum(1)
    return (images * pixels).sum() / pixels.sum().clamp_min(1)
