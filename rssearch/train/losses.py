"""Losses on logits of shape [N, K] or [N, K, ...] with targets of shape [N] or [N, ...]; every loss is a mean.

Of masks, [N, ...], it is the mean over the pixels that have a label: those of the class `rssearch.data.IGNORE` count
nowhere, and a batch without any other has the loss 0. Every pixel is a sample, also where the papers speak of images.
`rssearch.train.overlap` has the losses of whole masks, which are means over the images.

A weight of the classes multiplies the loss of each sample by that of its label; the mean stays one over the samples,
while PyTorch divides by the sum of the batch's weights. So the loss of a batch is the same from any parts of it, and
weights whose mean over the training samples is 1, as `rssearch.train.balance` makes them, keep its size.

The losses are computed in float32 whatever the logits are, because a softmax in bfloat16 has three digits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rssearch.data import IGNORE

__all__ = ["adaptive_mining", "cross_entropy", "distillation", "focal", "labelled"]


def cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Cross entropy with label smoothing (Szegedy et al. 2016): the label gets 1 - s, and every class s / K on top.

    With weights [K] of the classes every one of these shares counts by that of its class, as in PyTorch.

    Targets [N, K] of floating point are images with several labels, 1 for each: the loss is the binary cross entropy of
    each class by itself, the mean over images and classes; with label smoothing a label is 1 - s / 2, none is s / 2.
    """
    if targets.is_floating_point():
        smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits.float(), smoothed, weight)
    if targets.dim() == 1 and weight is None:
        return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    # PyTorch's own mean is NaN without a label, and on a GPU it adds the pixels in an order that changes.
    ignored = -1 if targets.dim() == 1 else IGNORE
    each = F.cross_entropy(
        logits.float(), targets, weight, ignore_index=ignored, reduction="none", label_smoothing=label_smoothing
    )
    return _mean(each, targets)


def focal(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weight: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    """Focal loss of a softmax (Lin et al., ICCV 2017, eq. 4 and 5): (1 - p_y)^gamma times the cross entropy.

    The weights [K] of the classes are the paper's alpha. With label smoothing each class has its own term, as in
    Keras' CategoricalFocalCrossentropy: sum_k q_k w_k (1 - p_k)^gamma (-log p_k), where q is the smoothed label.
    """
    log = F.log_softmax(logits.float(), dim=1)
    if not label_smoothing:
        return _mean(_at(_focal_terms(log, weight, gamma), targets), targets)
    terms = _focal_terms(log, weight, gamma)
    return _mean((1 - label_smoothing) * _at(terms, targets) + label_smoothing * terms.mean(1), targets)


def _focal_terms(log: Tensor, weight: Tensor | None, gamma: float) -> Tensor:
    """w_k (1 - p_k)^gamma (-log p_k) of log probabilities [N, K, ...]."""
    # Where p is 1 the power has no finite slope for a gamma below 1; the logarithm is 0 there.
    missed = (-torch.expm1(log)).clamp_min(1e-12)
    terms = -log * missed.pow(gamma)
    return terms if weight is None else terms * weight.view(-1, *[1] * (log.dim() - 2))


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, targets: Tensor | None = None
) -> Tensor:
    """Distance of the student's softened probabilities from the teacher's (Hinton et al. 2015).

    T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over the classes. T^2 keeps the gradient's size
    when the temperature changes, as the paper advises. The targets only say which pixels of a mask have a label; where
    they are of images with several labels, the distance is that of the classes' sigmoids, its mean over the classes.
    """
    if targets is not None and targets.is_floating_point():
        return _binary_distillation(student_logits.float() / temperature, teacher_logits.float() / temperature) * (
            temperature**2
        )
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=1)
    return (divergence.mean() if targets is None else _mean(divergence, targets)) * temperature**2


def _binary_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the teacher's from the student's probabilities of each class, a mean."""
    has = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    has_not = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (has + has_not).mean()


def adaptive_mining(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Adaptive mining loss of RemoteTrimmer: cross entropy and a term that weighs hard samples up.

    With p = softmax(z) and K classes, the mean absolute error of a sample is d = mean_k |p_k - y_k| = 2 (1 - p_y) / K,
    and the loss is mean(exp(d + d^2)) + cross entropy, both with weight 1. The first term lies in
    [1, exp(2/K + 4/K^2)]; its gradient carries p_y (1 - p_y), so the hardest samples are pulled by the cross
    entropy alone. Label smoothing concerns the cross entropy only, weights [K] of the classes both terms.
    """
    error = 2 / logits.shape[1] * (1 - _at(F.softmax(logits.float(), dim=1), targets))
    mined = torch.exp(error + error.square())
    if weight is not None:
        mined = mined * weight[_labels(targets)]
    return _mean(mined, targets) + cross_entropy(logits, targets, label_smoothing, weight)


def _labels(targets: Tensor) -> Tensor:
    """The label of each sample; class 0 where it has none."""
    return targets if targets.dim() == 1 else targets.where(targets != IGNORE, 0)


def _at(values: Tensor, targets: Tensor) -> Tensor:
    """Of values [N, K, ...] that of each sample's label; without meaning where the sample has no label."""
    return values.gather(1, _labels(targets).unsqueeze(1)).squeeze(1)


def labelled(targets: Tensor) -> int | Tensor:
    """How many samples the mean of a loss is over; at least 1, and on the device where masks have to be counted."""
    whole = targets.dim() == 1 or targets.is_floating_point()
    return len(targets) if whole else (targets != IGNORE).sum().clamp_min(1)


def _mean(values: Tensor, targets: Tensor) -> Tensor:
    """The mean over the samples that have a label."""
    if targets.dim() == 1:
        return values.mean()
    return values.where(targets != IGNORE, 0).sum() / labelled(targets)
