"""What training and measuring took in all: the MACs of a network times the images that went through it.

One unit is a multiply-accumulate, as `rssearch.cost.Cost.macs` counts the forward pass of one image. A backward pass
counts as two forward passes (one product for the gradient of the input, one for that of the weights), so that an image
in training counts three times. The pass of a teacher, of an evaluation, or of a recalibration of batch normalisation
counts once. What else a step does (augmentation, losses, the optimiser, attention modules that are folded in the end)
counts nothing. It is what a recipe asks for, not what a machine did: epochs that were lost with a worker are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["BACKWARD", "FORWARD", "TRAINING", "Work", "compute", "training"]

FORWARD = 1
BACKWARD = 2 * FORWARD
TRAINING = FORWARD + BACKWARD


class Work(NamedTuple):
    """Images that went through a network.

    Attributes:
        macs: of one image, forward.
        images: each counts as often as it went through.
        passes: what each takes, in forward passes: `FORWARD` or `TRAINING`.
    """

    macs: int
    images: int
    passes: int = FORWARD


def compute(work: Iterable[tuple[int, int, int]]) -> int:
    """The MACs of some work: the sum of macs x images x passes."""
    return sum(macs * images * passes for macs, images, passes in work)


def training(
    macs: int, *, epochs: int, images: int, validated: int, teacher_macs: int = 0, recalibrated: int = 0
) -> list[Work]:
    """The work of a training.

    Args:
        macs: of the network.
        epochs: how many.
        images: that an epoch trains on.
        validated: that are evaluated after each epoch.
        teacher_macs: of the network whose logits are learned from; 0 where there is none.
        recalibrated: that the statistics of batch normalisation are made of, before the first epoch.
    """
    taught = [Work(teacher_macs, epochs * images)] if teacher_macs else []
    recalibration = [Work(macs, recalibrated)] if recalibrated else []
    return [*recalibration, Work(macs, epochs * images, TRAINING), *taught, Work(macs, epochs * validated)]
