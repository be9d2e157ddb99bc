"""Whether a dataset on the disk is whole."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rssearch.data.decode import Progress, decode_all
from rssearch.data.folder import PREFIX
from rssearch.data.listing import Files, Listing
from rssearch.data.registry import find, listing


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        name: the dataset.
        where: its folder or archive.
        images: files that were listed.
        classes: class -> images listed.
        corrupt: location and reason of each image that cannot be read.
        missing: ``class/name`` of each image of the published set that is not there. A part of a set works as well.
        copies: groups of byte-identical files, which a split keeps on one side.
        fingerprint: sha256 of the content's listing.
    """

    name: str
    where: str
    images: int
    classes: dict[str, int]
    corrupt: tuple[str, ...]
    missing: tuple[str, ...]
    copies: tuple[tuple[str, ...], ...]
    fingerprint: str

    @property
    def ok(self) -> bool:
        """Whether every image that is there can be read."""
        return not self.corrupt

    def describe(self) -> str:
        """The findings as lines of text; long lists are cut after ten."""
        lines = [f"{self.name}: {self.images} images of {len(self.classes)} classes in {self.where}"]
        lines += [f"  {label}: {count}" for label, count in self.classes.items()]
        for title, items in (
            ("cannot be read", self.corrupt),
            ("of the published set are not there", self.missing),
            ("groups of identical files (a split keeps each on one side)", tuple(map(", ".join, self.copies))),
        ):
            if items:
                more = f", and {len(items) - 10} more" if len(items) > 10 else ""
                lines.append(f"{len(items)} {title}: {'; '.join(items[:10])}{more}")
        lines.append(f"fingerprint {self.fingerprint}")
        return "\n".join(lines)


def verify(name: str, root: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> Report:
    """Decode every image of a dataset at full size and compare the files with those of the published set.

    Raises:
        InputError: the name is unknown or the dataset is not there.
    """
    found = listing(name, root)
    corrupt: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    if isinstance(found.pixels, Files):
        result = decode_all(found.pixels, None, keep=False, workers=workers, progress=progress)
        corrupt = tuple(f"{found.pixels.location(i)}: {reason}" for i, reason in sorted(result.errors.items()))
        groups: dict[bytes, list[str]] = {}
        for digest, file in zip(result.digests, found.names, strict=True):
            if digest:
                groups.setdefault(digest, []).append(file)
        copies = tuple(tuple(group) for group in groups.values() if len(group) > 1)
    else:
        found.pixels(None)
    counts = Counter(found.labels.tolist())
    return Report(
        name=name,
        where=found.where,
        images=len(found.names),
        classes={label: counts[position] for position, label in enumerate(found.classes)},
        corrupt=corrupt,
        missing=_missing(name, found),
        copies=copies,
        fingerprint=found.fingerprint,
    )


def _missing(name: str, found: Listing) -> tuple[str, ...]:
    """Images of the published set, by class and file name without its ending, that are not listed."""
    family = None if name.startswith(PREFIX) else find(name)
    if family is None or family.stem is None:
        return ()
    there = {(PurePosixPath(file).parent.name, os.path.splitext(PurePosixPath(file).name)[0]) for file in found.names}
    published = ((label, family.stem(label, n)) for label, count in family.expected.items() for n in range(count))
    return tuple(f"{label}/{stem}" for label, stem in published if (label, stem) not in there)
