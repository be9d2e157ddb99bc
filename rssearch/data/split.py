"""Stratified, seeded splits that depend on the images' names alone."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Split
from rssearch.data.multilabel import strata
from rssearch.data.places import by_place
from rssearch.errors import InputError

SPLITS = ("train", "val", "test")
ATTEMPTS = 50  # orders of the groups that are tried
CLOSE = 0.05  # of the pixels: shares that differ from the wanted ones by no more in all are near enough


def quotas(counts: Sequence[int], shares: Sequence[float]) -> list[list[int]]:
    """How many images of each class go to each split.

    Largest-remainder rounding, with the remainder carried from class to class: each row sums to its count, each
    entry is within one of its share, and so are the totals of the columns. Every split whose share is positive gets
    an image of every class that has enough of them, the first split (training) before the others.

    Args:
        counts: images of each class.
        shares: of each split; they sum to 1.
    """
    rows: list[list[int]] = []
    owed = [0.0] * len(shares)
    present = [position for position, share in enumerate(shares) if share > 0]
    for count in counts:
        exact = [count * share for share in shares]
        # 0.7 * 10 must not floor to 6: shares are decimals, so a billionth is rounding error of the floats.
        row = [math.floor(value + 1e-9) for value in exact]
        owed = [debt + value for debt, value in zip(owed, exact, strict=True)]
        for _ in range(count - sum(row)):
            open_ = [s for s in present if row[s] < exact[s] - 1e-9] or present
            row[max(open_, key=lambda s: (round(owed[s] - row[s], 9), -s))] += 1
        for position in present[:count]:
            if row[position] == 0:
                row[row.index(max(row))] -= 1
                row[position] = 1
        owed = [debt - given for debt, given in zip(owed, row, strict=True)]
        rows.append(row)
    return rows


def stratified(
    names: Sequence[str], labels: npt.NDArray[np.int64], split: Split, groups: Sequence[Hashable] | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """Divide images by class. The result does not depend on the order of the images.

    Args:
        names: unique name of each image.
        labels: int64 [N].
        split: shares and seed.
        groups: images with the same key (copies of one another) stay on the same side; None: no copies.

    Returns:
        sorted int64 indices of ``train``, ``val`` and ``test``.
    """
    classes = int(labels.max()) + 1 if len(labels) else 0
    room = np.array(quotas(np.bincount(labels, minlength=classes).tolist(), (split.train, split.val, split.test)))
    side = np.zeros(len(names), dtype=np.int64)

    # Hashes rather than a shuffled list: an image that is added later does not move the others about.
    ranks = [hashlib.sha256(f"{split.seed}\t{name}".encode()).digest() for name in names]
    order = sorted(range(len(names)), key=ranks.__getitem__)
    copies: dict[Hashable, list[int]] = defaultdict(list)
    if groups is not None:
        often = {key for key, count in Counter(groups).items() if count > 1}
        for index in order:
            if groups[index] in often:
                copies[groups[index]].append(index)
    for group in copies.values():
        need = np.bincount(labels[group], minlength=classes)
        left = (room - need[:, None])[need > 0].min(axis=0)
        # Where there is most room; training wins ties, and takes what fits nowhere.
        choice = int(np.argmax(left)) if left.max() >= 0 else 0
        side[group] = choice
        room[:, choice] -= need

    placed = {index for group in copies.values() for index in group}
    singles: list[list[int]] = [[] for _ in range(classes)]
    for index in order:
        if index not in placed:
            singles[labels[index]].append(index)
    for members, (_, val, test) in zip(singles, np.maximum(room, 0).tolist(), strict=True):
        train = max(len(members) - val - test, 0)
        side[members[train : train + val]] = 1
        side[members[train + val :]] = 2
    return {name: np.flatnonzero(side == position) for position, name in enumerate(SPLITS)}


def divide(
    names: Sequence[str],
    labels: npt.NDArray[np.int64],
    split: Split,
    fixed: Sequence[str] | None = None,
    groups: Sequence[Hashable] | None = None,
    places: Sequence[str] | None = None,
) -> dict[str, npt.NDArray[np.int64]]:
    """As `stratified`, or `by_place` where places are known, but keep to the sides that a dataset fixes.

    A published test set stays the test set. Without a published validation set, the rest is divided in the
    proportion of the train and val shares.

    Args:
        names: unique name of each image.
        labels: int64 [N]; or [N, K], of which the rarest class of each image is divided by.
        split: shares and seed.
        fixed: the given split of each image; None: there is none.
        groups: as of `stratified`; places that have copies of one another become one.
        places: of each image, none of which is parted; None: they are not known.
    """
    labels = strata(labels)

    def sampled(chosen: Sequence[int], shares: Split) -> dict[str, npt.NDArray[np.int64]]:
        called, classes = [names[i] for i in chosen], labels[np.asarray(chosen, dtype=np.int64)]
        copies = None if groups is None else [groups[i] for i in chosen]
        if places is None:
            return stratified(called, classes, shares, copies)
        inner = [places[i] for i in chosen]
        return by_place(called, classes, inner if copies is None else joined(inner, copies), shares)

    if fixed is None:
        return sampled(range(len(names)), split)

    def draw(rest: npt.NDArray[np.int64], shares: Split) -> dict[str, npt.NDArray[np.int64]]:
        return sampled(rest.tolist(), shares)

    return _keep(fixed, split, draw)


def divide_scenes(
    names: Sequence[str], groups: Sequence[str], pixels: Sequence[int], split: Split, fixed: Sequence[str] | None = None
) -> dict[str, npt.NDArray[np.int64]]:
    """As `by_group`, but keep to the sides that a dataset fixes, as `divide` does."""
    if fixed is None:
        return by_group(names, groups, pixels, split)

    def draw(rest: npt.NDArray[np.int64], shares: Split) -> dict[str, npt.NDArray[np.int64]]:
        chosen = rest.tolist()
        return by_group([names[i] for i in chosen], [groups[i] for i in chosen], [pixels[i] for i in chosen], shares)

    return _keep(fixed, split, draw)


def _keep(
    fixed: Sequence[str],
    split: Split,
    draw: Callable[[npt.NDArray[np.int64], Split], dict[str, npt.NDArray[np.int64]]],
) -> dict[str, npt.NDArray[np.int64]]:
    """The given sides; where there is no validation, it is sampled from the training images."""
    sides = np.array(fixed)
    indices = {name: np.flatnonzero(sides == name) for name in SPLITS}
    if len(indices["val"]) == 0:
        rest = indices["train"]
        known = split.train + split.val
        inner = draw(rest, Split(train=split.train / known, val=split.val / known, test=0, seed=split.seed))
        indices |= {"train": rest[inner["train"]], "val": rest[inner["val"]]}
    return indices


def by_group(
    names: Sequence[str], groups: Sequence[str], pixels: Sequence[int], split: Split
) -> dict[str, npt.NDArray[np.int64]]:
    """Divide scenes so that the scenes of a group stay together, with shares of the pixels as near as groups allow.

    Groups come in a seeded order and go where most pixels are owed; then single groups are moved or exchanged between
    splits as long as that brings the shares nearer by a hundredth of all pixels. Of several orders the first is taken
    that comes close, so that another seed is another division where groups allow it. Every split with a share gets a
    group.

    Args:
        names: unique name of each scene.
        groups: of each scene.
        pixels: of each scene.
        split: shares and seed.

    Returns:
        sorted int64 indices of ``train``, ``val`` and ``test``.

    Raises:
        InputError: there are fewer groups than splits with a share.
    """
    total: dict[str, int] = defaultdict(int)
    for group, count in zip(groups, pixels, strict=True):
        total[group] += count
    shares = np.array([split.train, split.val, split.test])
    present = np.flatnonzero(shares > 0)
    if len(total) < len(present):
        kinds = "groups of scenes" if len(total) < len(names) else "scenes"
        raise InputError(
            f"{len(total)} {kinds} ({', '.join(sorted(total))}) cannot be divided among {len(present)} splits, because "
            f"a group is never parted; set settings.split.{'test' if split.test else 'val'} to 0, or bring more scenes"
        )
    wanted = shares * sum(total.values())
    best: tuple[float, dict[str, int]] = (math.inf, {})
    for attempt in range(ATTEMPTS):
        order = sorted(total, key=lambda g: hashlib.sha256(f"{split.seed}\t{attempt}\t{g}".encode()).digest())
        sizes = np.array([total[group] for group in order], dtype=np.float64)
        side = _by_debt(sizes, wanted)
        while (better := _nearer(side, sizes, wanted)) is not None:
            side = better
        error = float(np.abs(np.bincount(side, sizes, minlength=3) - wanted).sum() / wanted.sum())
        if error < best[0] - CLOSE:
            best = error, dict(zip(order, side.tolist(), strict=True))
        if error <= CLOSE:
            break
    sides = np.array([best[1][group] for group in groups])
    return {name: np.flatnonzero(sides == position) for position, name in enumerate(SPLITS)}


def _by_debt(sizes: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Each group in turn goes where most pixels are owed; then every split with a share gets one."""
    present, owed = np.flatnonzero(wanted > 0), wanted.copy()
    side = np.zeros(len(sizes), dtype=np.int64)
    for position, size in enumerate(sizes):
        side[position] = present[np.argmax(owed[present])]
        owed[side[position]] -= size
    for empty in (s for s in present if not (side == s).any()):
        # The smallest group of the split that has most of them, which are two or more, as there are groups enough.
        fullest = np.bincount(side, minlength=len(wanted)).argmax()
        smallest = min(np.flatnonzero(side == fullest), key=lambda position: sizes[position])
        side[smallest] = empty
    return side


def _nearer(
    side: npt.NDArray[np.int64], sizes: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64] | None:
    """The division with one group moved, or two exchanged, that comes nearest; None: no gain of a hundredth."""
    best, gain = None, 0.01 * sizes.sum()
    surplus = np.bincount(side, sizes, minlength=len(wanted)) - wanted
    for source, target in permutations(np.flatnonzero(wanted > 0).tolist(), 2):
        givers, takers = np.flatnonzero(side == source), np.flatnonzero(side == target)
        flow = np.concatenate(
            [np.zeros((len(givers), 1)), np.broadcast_to(sizes[takers], (len(givers), len(takers)))], 1
        )
        flow = sizes[givers][:, None] - flow
        if len(givers) == 1:
            flow[:, 0] = np.inf  # its last group
        before = abs(surplus[source]) + abs(surplus[target])
        gains = before - abs(surplus[source] - flow) - abs(surplus[target] + flow)
        giver, taker = np.unravel_index(gains.argmax(), gains.shape)
        if gains[giver, taker] > gain:
            best, gain = side.copy(), gains[giver, taker]
            best[givers[giver]] = target
            if taker > 0:
                best[takers[taker - 1]] = source
    return best


def joined(groups: Sequence[str], copies: Sequence[Hashable]) -> tuple[str, ...]:
    """Groups without leaks: those that have copies of one another become one, under the first of their names."""
    name = {group: group for group in groups}

    def root(group: str) -> str:
        while name[group] != group:
            group = name[group]
        return group

    first: dict[Hashable, str] = {}
    for group, key in zip(groups, copies, strict=True):
        one, two = sorted((root(group), root(first.setdefault(key, group))))
        name[two] = one
    return tuple(root(group) for group in groups)


def split_hash(names: Sequence[str], indices: dict[str, npt.NDArray[np.int64]]) -> str:
    """sha256 over the sorted names and their split."""
    lines = sorted(f"{names[i]}\t{split}\n" for split, members in indices.items() for i in members)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
