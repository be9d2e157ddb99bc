"""Images that have several labels: int64 [N, K] of 0 and 1, a column for each class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["SEPARATOR", "is_multiple", "joined_names", "strata", "totals"]

SEPARATOR = ";"
Labels = npt.NDArray[np.int64]


def is_multiple(labels: Labels) -> bool:
    """Whether labels are those of images that may have several."""
    return labels.ndim == 2


def totals(labels: Labels, classes: int) -> Labels:
    """How many images have each class: int64 [K], of labels [N] or [N, K]."""
    return labels.sum(0) if is_multiple(labels) else np.bincount(labels, minlength=classes)


def strata(labels: Labels) -> Labels:
    """The stratum of each image, int64 [N]: the rarest of its classes, so that rare classes get their shares.

    The greedy idea of Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011.

    Args:
        labels: [N, K]; or [N], which are returned.
    """
    if not is_multiple(labels):
        return labels
    counts = labels.sum(0)
    # Among equally frequent classes the first one.
    order = np.argsort(counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    rarest: Labels = np.where(labels > 0, rank[None], len(order)).argmin(1).astype(np.int64)
    return rarest


def joined_names(classes: Sequence[str], row: Iterable[int]) -> str:
    """The labels of one image, as a table has them."""
    return SEPARATOR.join(name for name, has in zip(classes, row, strict=True) if has)
