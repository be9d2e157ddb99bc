"""Divisions of images that keep a place in one split, with shares of every class as near as places allow."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Split
from rssearch.errors import InputError

__all__ = ["by_place"]

ATTEMPTS = 20  # orders of the places that are tried
CLOSE = 0.02  # shares that differ from the wanted ones by no more on average are near enough
MANY = 2000  # places of which one order is tried: there are enough to fill every gap
Counts = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


def by_place(
    names: Sequence[str], labels: npt.NDArray[np.int64], places: Sequence[str], split: Split
) -> dict[str, npt.NDArray[np.int64]]:
    """Divide images so that those of a place stay together. The result does not depend on the order of the images.

    Places come in a seeded order and go to the split that brings the shares of the classes, each class counting the
    same, and of all images nearest to the wanted ones; then single places are moved as long as that brings them nearer.
    Every split with a share gets a place.

    Args:
        names: of the images.
        labels: int64 [N].
        places: of each image.
        split: shares and seed.

    Returns:
        sorted int64 indices of ``train``, ``val`` and ``test``.

    Raises:
        InputError: there are fewer places than splits with a share.
    """
    shares = np.array([split.train, split.val, split.test])
    present = np.flatnonzero(shares > 0)
    known = sorted(set(places))
    if len(known) < len(present):
        raise InputError(
            f"the {len(names)} images are of {len(known)} groups ({', '.join(known)}), which cannot be divided among "
            f"{len(present)} splits, because a group is never parted"
        )
    number = {place: position for position, place in enumerate(known)}
    of_image = np.array([number[place] for place in places], dtype=np.int64)
    counts = np.zeros((len(known), int(labels.max()) + 1 if len(labels) else 0), dtype=np.int64)
    np.add.at(counts, (of_image, labels), 1)
    best, side = math.inf, np.zeros(len(known), dtype=np.int64)
    for attempt in range(ATTEMPTS if len(known) <= MANY else 1):
        order = sorted(range(len(known)), key=lambda p: _rank(split.seed, attempt, known[p]))
        found, distance = _placed(counts, shares, order)
        if distance < best - 1e-9:
            best, side = distance, found
        if best <= CLOSE:
            break
    return {name: np.flatnonzero(side[of_image] == position) for position, name in enumerate(("train", "val", "test"))}


def _rank(seed: int, attempt: int, place: str) -> bytes:
    return hashlib.sha256(f"{seed}\t{attempt}\t{place}".encode()).digest()


def _placed(counts: Counts, shares: Numbers, order: Sequence[int]) -> tuple[Counts, float]:
    """The split of each place, and how far the shares are from the wanted ones: 0 where they are met.

    Args:
        counts: images of each class [places, classes].
        shares: of the three splits.
        order: of the places.
    """
    total = counts.sum(0)
    # As shares of each class and, in the last column, of all images: [places, classes + 1].
    parts = np.concatenate([counts / np.maximum(total, 1), counts.sum(1, keepdims=True) / counts.sum()], axis=1)
    weights = np.append(np.full(len(total), 1 / max(int(np.count_nonzero(total)), 1)), 1.0)
    missing = np.repeat(shares[:, None], parts.shape[1], axis=1)
    present = np.flatnonzero(shares > 0)
    side = np.full(len(parts), -1, dtype=np.int64)

    def gains(place: int) -> Numbers:
        """By how much each split's shares come nearer, were the place put there."""
        closer = np.abs(missing[present]) - np.abs(missing[present] - parts[place])
        return np.asarray(closer @ weights, dtype=np.float64)

    for place in order:
        side[place] = present[int(gains(place).argmax())]
        missing[side[place]] -= parts[place]
    for empty in (s for s in present if not (side == s).any()):
        fullest = np.bincount(side, minlength=len(shares)).argmax()
        smallest = min(np.flatnonzero(side == fullest).tolist(), key=lambda p: (parts[p, -1], order.index(p)))
        side[smallest] = empty
        missing[fullest] += parts[smallest]
        missing[empty] -= parts[smallest]
    moved = True
    while moved:
        moved = False
        for place in order:
            here = side[place]
            if np.count_nonzero(side == here) == 1:
                continue
            missing[here] += parts[place]
            found = gains(place)
            target = present[int(found.argmax())]
            if target == here or found.max() <= found[int(np.flatnonzero(present == here)[0])] + 1e-6:
                target = here
            side[place], moved = target, moved or target != here
            missing[target] -= parts[place]
    return side, float((np.abs(missing).mean(0) @ weights) / weights.sum())
