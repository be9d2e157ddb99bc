"""Which images have which class, and epochs in which every class comes equally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rssearch.data.multilabel import is_multiple
from rssearch.data.sceneset import AnyDataset, PatchDataset

__all__ = ["ClassIndex", "balanced_order", "index_classes"]

Indices = npt.NDArray[np.int64]

SHARE = 0.01  # of a patch's labelled pixels; DAFormer asks for 3,000 of 512 x 512
_CHUNK = 64  # masks that are counted at once
_VALUES = 256  # of a mask


class ClassIndex(NamedTuple):
    """What a split has of each class.

    Attributes:
        totals: int64 [K], its images; of masks its labelled pixels, in overlapping patches as often as they are there.
        members: for each class, the positions of the images that have it. A patch has a class that takes `SHARE` of its
            labelled pixels; where no patch has as much of a class, any that has a pixel of it.
    """

    totals: Indices
    members: tuple[Indices, ...]


def index_classes(dataset: AnyDataset) -> ClassIndex:
    """Look at every label, or every mask, of a split once."""
    if not isinstance(dataset, PatchDataset) and is_multiple(dataset.labels):
        return ClassIndex(dataset.labels.sum(0), tuple(np.flatnonzero(column) for column in dataset.labels.T))
    if not isinstance(dataset, PatchDataset):
        order = np.argsort(dataset.labels, kind="stable")
        totals = np.bincount(dataset.labels, minlength=dataset.num_classes)
        return ClassIndex(totals, tuple(np.split(order, np.cumsum(totals)[:-1])))
    counts = _pixels(dataset)
    seen = counts.sum(1, keepdims=True)
    enough = (counts > 0) & (counts >= SHARE * seen)
    enough = np.where(enough.any(0), enough, counts > 0)
    return ClassIndex(counts.sum(0), tuple(np.flatnonzero(column) for column in enough.T))


def _pixels(dataset: PatchDataset) -> Indices:
    """How many pixels each patch has of each class: int64 [N, K]."""
    counts = np.zeros((len(dataset), dataset.num_classes), np.int64)
    for start in range(0, len(dataset), _CHUNK):
        masks = dataset.source.targets(dataset.indices[start : start + _CHUNK]).numpy()
        cells = masks.reshape(len(masks), -1) + _VALUES * np.arange(len(masks))[:, None]
        found = np.bincount(cells.ravel(), minlength=_VALUES * len(masks)).reshape(len(masks), _VALUES)
        counts[start : start + len(masks)] = found[:, : dataset.num_classes]
    return counts


def balanced_order(members: Sequence[Indices], count: int, rng: np.random.Generator) -> Indices:
    """Positions of the images of an epoch of which each class has the same share, but for one image.

    Class-aware sampling: Shen, Lin and Huang, "Relay backpropagation for effective learning of deep convolutional
    neural networks", ECCV 2016. The images of a class are gone through in a random order, and again in another one
    until its share is full, so that none is repeated before all have come. Of masks an image stands for one of the
    classes that it has, as in the class uniform sampling of Zhu et al., "Improving semantic segmentation via video
    propagation and label relaxation", CVPR 2019.

    Args:
        members: of each class, as in `ClassIndex`. A class without any has no share.
        count: images of the epoch.
        rng: draws the order.

    Returns:
        int64 [count].
    """
    present = [positions for positions in members if len(positions)]
    shares = np.full(len(present), count // len(present))
    shares[rng.permutation(len(present))[: count % len(present)]] += 1
    drawn = []
    for positions, share in zip(present, shares.tolist(), strict=True):
        rounds = [rng.permutation(positions) for _ in range(-(-share // len(positions)))]
        drawn.append(np.concatenate([*rounds, positions[:0]])[:share])
    return rng.permutation(np.concatenate(drawn))
