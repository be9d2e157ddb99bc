"""What an evaluation counts, batch by batch, on the device: the loss, the confusion matrix, bins of confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rssearch.data import IGNORE
from rssearch.errors import InputError, TrialFailed
from rssearch.scores import BINS, CONFIDENCE_UNIT, Scores
from rssearch.train import losses

__all__ = ["Tally"]


class Tally:
    """Loss, confusion matrix and calibration of many batches. They stay on the device until they are read.

    Integers are counted, and confidences added as integers, so that neither the order nor the size of the batches
    matters, and the same images give the same scores on every device whose logits are the same.

    Args:
        classes: K; None: as many as the first logits have.
        device: where batches are.
        masks: whether targets are masks, of which `rssearch.data.IGNORE` is no class, or labels.
    """

    def __init__(self, classes: int | None, device: torch.device, *, masks: bool = True) -> None:
        self.masks, self.classes = masks, classes
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.bins = torch.zeros(3, BINS + 2, dtype=torch.int64, device=device)  # the last one is of what is ignored
        self._edges = torch.linspace(0, 1, BINS + 1, device=device)
        self._cells: Tensor | None = None

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: logits [B, K, ...], labels int64 [B] or masks [B, H, W]."""
        classes = self.classes = self.classes or logits.shape[1]
        if self._cells is None:
            self._cells = torch.zeros(classes**2 + 1, dtype=torch.int64, device=self.loss.device)
        top, predicted = logits.max(1)
        confidence = (top.float() - logits.float().logsumexp(1)).exp().clamp_(0, 1).ravel()
        place, cell = torch.bucketize(confidence, self._edges, right=True) - 1, targets * classes + predicted
        loss = losses.cross_entropy(logits, targets)
        if self.masks:
            labelled = targets != IGNORE
            self.loss += loss * labelled.sum()
            cell = torch.where(labelled, cell, classes**2)
            place = torch.where(labelled.ravel(), place, BINS + 1)
        else:
            self.loss += loss * len(targets)
        one = torch.ones_like(place)
        self._cells.scatter_add_(0, cell.ravel(), one)
        counted = (one, (predicted == targets).ravel().long(), confidence.mul_(1 / CONFIDENCE_UNIT).round_().long())
        for row, values in zip(self.bins, counted, strict=True):
            row.scatter_add_(0, place, values)

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        """int64 [K, K], so far; the host waits for it."""
        if self._cells is None:
            return np.zeros((self.classes or 0, self.classes or 0), dtype=np.int64)
        classes = self.classes or 0
        found: npt.NDArray[np.int64] = self._cells[:-1].reshape(classes, classes).cpu().numpy().copy()
        return found

    def scores(self, classes: Sequence[str]) -> Scores:
        """What was counted, with the names of the classes.

        Raises:
            InputError: no pixel has a label.
            TrialFailed: the loss is NaN or infinite, so that the others would mean nothing.
        """
        matrix, what = self.matrix, "pixels" if self.masks else "images"
        count = int(matrix.sum())
        if not count:
            raise InputError("there is no labelled pixel to measure the network on: give that split a larger share")
        loss = self.loss.item() / count
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss on {count} {what} outside the training is {loss}")
        more = (f"class_{number}" for number in range(len(classes), len(matrix)))  # of a network with further outputs
        bins = self.bins[:, :-1].cpu().numpy()
        return Scores("segmentation" if self.masks else "classification", (*classes, *more), matrix, bins, loss)

    def metrics(self) -> dict[str, float]:
        """The same as metrics. Raises as `scores`."""
        return self.scores(()).metrics()
