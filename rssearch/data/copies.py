"""Byte-identical images: groups of them, and those that a given division has on two sides."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from itertools import combinations

from rssearch.imaging.contents import SHOWN, shown
from rssearch.imaging.pixels import Pixels

WORDS = {"train": "training", "val": "validation", "test": "test"}


def copies(digests: Sequence[Hashable], names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Names of images that are copies of one another.

    Args:
        digests: of each image; equal for copies, false for an image that could not be read.
        names: of each image.
    """
    groups: dict[Hashable, list[str]] = {}
    for digest, name in zip(digests, names, strict=True):
        if digest:
            groups.setdefault(digest, []).append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def array_digests(images: Pixels) -> list[bytes]:
    """A digest of each image of uint8 [N, C, H, W], as a file has one."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def crossing(
    digests: Sequence[Hashable], names: Sequence[str], fixed: Sequence[str] | None, kind: str = "images"
) -> tuple[str, ...]:
    """A sentence for each two given splits that have images in common.

    Args:
        digests: as those of `copies`.
        names: of each image.
        fixed: the given split of each image; None: there is none, and a sampled split keeps copies together.
        kind: images or scenes.
    """
    if fixed is None:
        return ()
    first: dict[str, dict[Hashable, str]] = {split: {} for split in WORDS}
    for digest, name, split in zip(digests, names, fixed, strict=True):
        if digest:
            first[split].setdefault(digest, name)
    notes = []
    for one, other in combinations(WORDS, 2):
        pairs = [
            f"{shown(name)} = {shown(first[one][digest])}"
            for digest, name, split in zip(digests, names, fixed, strict=True)
            if split == other and digest in first[one]
        ]
        if pairs:
            share = f"{len(pairs)} of the {list(fixed).count(other)} {kind} of the given {WORDS[other]} split"
            named = "; ".join(pairs[:SHOWN]) + ("; ..." if len(pairs) > SHOWN else "")
            notes.append(
                f"{share} are also in the {WORDS[one]} split, byte for byte ({named}): what is measured on them "
                f"does not hold for new {kind}"
            )
    return tuple(notes)
