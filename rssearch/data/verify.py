"""Whether a dataset on the disk is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rssearch.data.copies import array_digests, copies, crossing
from rssearch.data.decode import Progress, decode_all
from rssearch.data.family import Family, Task
from rssearch.data.listing import Files, Listing
from rssearch.data.masks import IGNORE
from rssearch.data.multilabel import is_multiple, totals
from rssearch.data.registry import find, listing, prefix_of
from rssearch.data.scenes import SceneListing
from rssearch.data.scenestore import read_all
from rssearch.escaping import printable

__all__ = ["Report", "verify"]


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        name: the dataset.
        where: its folder or archive.
        images: files that were listed; scenes of a segmentation set.
        classes: class -> images listed; pixels of a segmentation set.
        corrupt: location and reason of each image (or pair of image and mask) that cannot be read.
        missing: ``class/name`` of each image (name of each scene) of the published set that is not there. A part of a
            set works as well.
        copies: groups of byte-identical files. A sampled split keeps each on one side; what given splits have in
            common is in the notes.
        fingerprint: sha256 of the content's listing.
        task: what the targets are.
        ignored: pixels that have no class.
        notes: files that are left out, and images that given splits have in common: a sentence each.
        divided: whether the dataset comes divided.
    """

    name: str
    where: str
    images: int
    classes: dict[str, int]
    corrupt: tuple[str, ...]
    missing: tuple[str, ...]
    copies: tuple[tuple[str, ...], ...]
    fingerprint: str
    task: Task = "classification"
    ignored: int = 0
    notes: tuple[str, ...] = ()
    divided: bool = False

    @property
    def ok(self) -> bool:
        """Whether every image that is there can be read."""
        return not self.corrupt

    @property
    def kind(self) -> str:
        """What is counted: images or scenes."""
        return "scenes" if self.task == "segmentation" else "images"

    def describe(self) -> str:
        """The findings as lines of text; long lists are cut after ten."""
        lines = [f"{self.name}: {self.images} {self.kind} of {len(self.classes)} classes in {self.where}"]
        if self.task == "segmentation":
            shares = self.classes | {"(ignored)": self.ignored}
            total = max(sum(shares.values()), 1)
            lines += [
                f"  {printable(label, set())}: {count:,} pixels, {count / total:.1%}" for label, count in shares.items()
            ]
        else:
            lines += [f"  {printable(label, set())}: {count}" for label, count in self.classes.items()]
        kept = "" if self.divided else " (a split keeps each on one side)"
        for title, items in (
            ("cannot be read", self.corrupt),
            ("of the published set are not there", self.missing),
            (f"groups of identical files{kept}", tuple(map(", ".join, self.copies))),
        ):
            if items:
                more = f", and {len(items) - 10} more" if len(items) > 10 else ""
                lines.append(f"{len(items)} {title}: {'; '.join(items[:10])}{more}")
        lines += self.notes
        lines.append(f"fingerprint {self.fingerprint}")
        return "\n".join(lines)


def verify(name: str, root: str | Path, *, workers: int | None = None, progress: Progress | None = None) -> Report:
    """Decode every image of a dataset at full size and compare the files with those of the published set.

    Raises:
        InputError: the name is unknown or the dataset is not there.
    """
    found = listing(name, root)
    if isinstance(found, SceneListing):
        return _verify_scenes(name, found, workers, progress)
    corrupt: tuple[str, ...] = ()
    twice: tuple[tuple[str, ...], ...] = ()
    if isinstance(found.pixels, Files):
        result = decode_all(found.pixels, None, keep=False, reader=found.reader, workers=workers, progress=progress)
        corrupt = tuple(f"{found.pixels.location(i)}: {reason}" for i, reason in sorted(result.errors.items()))
        digests = result.digests
        twice = copies(digests, found.names)
    else:
        digests = array_digests(found.pixels(None))
    counts = totals(found.labels, len(found.classes)).tolist()
    return Report(
        name=name,
        where=found.where,
        images=len(found.names),
        classes={label: counts[position] for position, label in enumerate(found.classes)},
        corrupt=corrupt,
        missing=_missing(name, found),
        copies=twice,
        fingerprint=found.fingerprint,
        task="multilabel" if is_multiple(found.labels) else "classification",
        notes=(*found.notes, *crossing(digests, found.names, found.fixed)),
        divided=found.fixed is not None,
    )


def _verify_scenes(name: str, found: SceneListing, workers: int | None, progress: Progress | None) -> Report:
    facts = read_all(found.source, lambda index, image, mask: None, workers=workers, progress=progress)  # noqa: ARG005
    counts = np.array(facts.counts).sum(0)
    family = None if prefix_of(name) else find(name)
    published = _published(family) if family is not None else ()
    return Report(
        name=name,
        where=found.where,
        images=len(found.names),
        classes={label: int(counts[index]) for index, label in enumerate(found.classes)},
        corrupt=tuple(facts.errors[index] for index in sorted(facts.errors)),
        missing=tuple(stem for _, stem in published if stem not in found.names),
        copies=copies(facts.digests, found.names),
        fingerprint=found.fingerprint,
        task="segmentation",
        ignored=int(counts[IGNORE]),
        notes=(*found.notes, *crossing(facts.digests, found.names, found.fixed, "scenes")),
        divided=found.fixed is not None,
    )


def _missing(name: str, found: Listing) -> tuple[str, ...]:
    """Images of the published set, by class and file name without its ending, that are not listed."""
    if prefix_of(name):
        return ()
    there = {(PurePosixPath(file).parent.name, os.path.splitext(PurePosixPath(file).name)[0]) for file in found.names}
    return tuple(f"{label}/{stem}" for label, stem in _published(find(name)) if (label, stem) not in there)


def _published(family: Family) -> Iterator[tuple[str, str]]:
    """Class (or group) and file name without its ending of every image of the published set."""
    if family.stem is not None:
        for label, count in family.expected.items():
            for number in range(count):
                yield label, family.stem(label, number)
