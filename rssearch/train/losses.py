"""Losses on logits of shape [N, K] or [N, K, ...] with targets of shape [N] or [N, ...]; every loss is a mean.

Of masks, [N, ...], it is the mean over the pixels that have a label: those of the class `rssearch.data.IGNORE` count
nowhere, and a batch without any other has the loss 0. Every pixel is a sample, also where the papers speak of images.

The losses are computed in float32 whatever the logits are, because a softmax in bfloat16 has three digits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rssearch.data import IGNORE


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy with label smoothing (Szegedy et al. 2016): the label gets 1 - s, and every class s / K on top."""
    if targets.dim() == 1:
        return F.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    # PyTorch's own mean is NaN without a label, and on a GPU it adds the pixels in an order that changes.
    each = F.cross_entropy(
        logits.float(), targets, ignore_index=IGNORE, reduction="none", label_smoothing=label_smoothing
    )
    return _mean(each, targets)


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, targets: Tensor | None = None
) -> Tensor:
    """Distance of the student's softened probabilities from the teacher's (Hinton et al. 2015).

    T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over the classes. T^2 keeps the gradient's size
    when the temperature changes, as the paper advises. The targets only say which pixels of a mask have a label.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = (teacher.exp() * (teacher - student)).sum(dim=1)
    return (divergence.mean() if targets is None else _mean(divergence, targets)) * temperature**2


def adaptive_mining(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Adaptive mining loss of RemoteTrimmer: cross entropy and a term that weighs hard samples up.

    With p = softmax(z) and K classes, the mean absolute error of a sample is d = mean_k |p_k - y_k| = 2 (1 - p_y) / K,
    and the loss is mean(exp(d + d^2)) + cross entropy, both with weight 1. The first term lies in
    [1, exp(2/K + 4/K^2)]; its gradient carries p_y (1 - p_y), so the hardest samples are pulled by the cross
    entropy alone. Label smoothing concerns the cross entropy only.
    """
    error = 2 / logits.shape[1] * _miss(logits, targets)
    mined = _mean(torch.exp(error + error.square()), targets)
    return mined + cross_entropy(logits, targets, label_smoothing)


def _miss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - p_y of each sample; without meaning where the sample has no label."""
    probability = F.softmax(logits.float(), dim=1)
    labels = targets if targets.dim() == 1 else targets.where(targets != IGNORE, 0)
    return 1 - probability.gather(1, labels.unsqueeze(1)).squeeze(1)


def labelled(targets: Tensor) -> int | Tensor:
    """How many samples the mean of a loss is over; at least 1, and on the device where masks have to be counted."""
    return len(targets) if targets.dim() == 1 else (targets != IGNORE).sum().clamp_min(1)


def _mean(values: Tensor, targets: Tensor) -> Tensor:
    """The mean over the samples that have a label."""
    if targets.dim() == 1:
        return values.mean()
    return values.where(targets != IGNORE, 0).sum() / labelled(targets)
