"""Where a network is trained: the device, the random numbers, the memory, the other workers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from rssearch.device import pick_device
from rssearch.train.data_parallel import ALONE, WorkerGroup


@dataclass(frozen=True)
class TrainContext:
    """What of a training is not its recipe.

    Attributes:
        device: where to train; the default is the GPU, if there is one.
        seed: of the order of the images, the augmentation and dropout.
        micro_batches: parts in which a batch goes through the network where memory is short; the gradients of a step
            are still those of its whole batch, see `rssearch.train.micro_batches.backward`.
        worker_group: the workers that train together; each calls `rssearch.train.fit` with the same arguments, and
            reads its share of every batch. The main worker alone measures, and has the callbacks and the record.
        per_class: metrics of single classes that each epoch reports beside the others, such as ``recall_water``.
    """

    device: torch.device = field(default_factory=pick_device)
    seed: int = 0
    micro_batches: int = 1
    worker_group: WorkerGroup = ALONE
    per_class: tuple[str, ...] = ()
